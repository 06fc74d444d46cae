//! `hark backup` and `hark restore`: the database, the key and the recordings of a data folder in one file, taken while Hark
//! runs, and put back. Called by `main`; `node` completes a restore that was interrupted.

mod archive;
mod place;
mod restore;

pub use place::complete as complete_restore;
pub use restore::{RestoreArgs, restore};

use super::{
    config::RecordingsUrl,
    folders,
    manage::StoreArgs,
    media, print,
    secret::{KEY_FILE, KEY_FILE_BEFORE},
    space,
    store::{DatabaseCopy, Store},
};
use crate::model::{bytes, text::count};
use archive::{Manifest, Writer};
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The file name that stands for standard output or input.
const STANDARD: &str = "-";
/// How much is written at once, in bytes.
const BUFFER: usize = 1024 * 1024;

/// `hark backup`.
#[derive(Args)]
pub struct BackupArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where its recordings are, if not in the data folder. Then they aren't part of the backup.
    #[arg(long, env = "HARK_RECORDINGS_URL", value_name = "URL")]
    recordings_url: Option<RecordingsUrl>,
    /// The file to write, which doesn't exist yet, or '-' for standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// What is backed up.
struct Source {
    data: PathBuf,
    /// The copy of the database, which no longer has a name.
    database: File,
    held: DatabaseCopy,
    /// Where the recordings are, if not in the data folder.
    elsewhere: Option<String>,
}

/// Makes a backup.
///
/// # Errors
/// If that isn't possible, as a message for the operator.
pub async fn back_up(args: BackupArgs) -> Result<(), String> {
    if args.store.database_url()?.is_some() {
        return Err(
            "the sessions are in PostgreSQL, which has tools of its own: back it up with pg_dump, and the recordings \
             with those of their storage, as 'Backup of PostgreSQL' in docs/operations.md says"
                .to_owned(),
        );
    }
    let standard = args.file.as_os_str() == STANDARD;
    if standard && io::stdout().is_terminal() {
        return Err("a backup isn't written to a terminal; name a file, or pass it on with '|'".to_owned());
    }
    if !standard {
        check_new(&args.file)?;
    }
    let data = args.store.data_dir().to_owned();
    let (database, held) = copy_database(&data, &args.store.database_file()?).await?;
    let elsewhere = args.recordings_url.as_ref().map(ToString::to_string);
    let source = Source { data, database, held, elsewhere };
    let written = tokio::task::spawn_blocking(move || {
        if standard {
            write(&source, io::stdout().lock()).map(|(_, manifest)| manifest)
        } else {
            write_file(&source, &args.file)
        }
    });
    let manifest = written.await.map_err(|e| e.to_string())??;
    let told = summary(&manifest);
    // Standard output is the backup itself.
    if standard {
        print::error(told)
    } else {
        print::line(told)
    }
    Ok(())
}

/// Copies the database as it is now. The copy loses its name at once, so that nothing is left of it however this ends.
async fn copy_database(data: &Path, database: &Path) -> Result<(File, DatabaseCopy), String> {
    // Each start of Hark clears this folder.
    let folder = data.join("spool");
    let failed = |error: io::Error| format!("the database can't be copied into {}: {error}", folder.display());
    if !folder.exists() {
        folders::check_user(data, "hark backup - > FILE")?;
    }
    folders::make_folder(&folder).map_err(failed)?;
    let size = |path: PathBuf| path.metadata().map_or(0, |meta| meta.len());
    let needed = size(database.to_owned()) + size(database.with_extension("sqlite-wal"));
    let free = space::free_bytes(&folder).map_err(failed)?;
    if needed > free {
        return Err(format!(
            "the database is copied into the data folder first, which needs {}, and {} are free there",
            bytes(needed),
            bytes(free)
        ));
    }
    let to = folder.join(format!("backup-{}.sqlite", Uuid::new_v4()));
    let copied = Store::copy_file(database, &to).await;
    let opened = File::open(&to);
    let _ = fs::remove_file(&to);
    let held = copied.map_err(|e| format!("the database can't be copied: {e}"))?;
    Ok((opened.map_err(failed)?, held))
}

/// Fails if a file is there already.
fn check_new(file: &Path) -> Result<(), String> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{} can't be written: {error}", file.display())),
        Ok(_) => Err(format!("{} exists already; choose another name, or remove it first", file.display())),
    }
}

/// Writes the backup to a file, which appears whole or not at all.
fn write_file(source: &Source, file: &Path) -> Result<Manifest, String> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |error: io::Error| format!("{} can't be written: {error}", partial.display());
    // What an interrupted backup has left is written over.
    let out = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&partial).map_err(failed)?;
    flock(&out, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("{} is being written by another backup", partial.display()))?;
    let written = || -> Result<Manifest, String> {
        out.set_len(0).and_then(|()| out.set_permissions(Permissions::from_mode(0o600))).map_err(failed)?;
        let (mut buffer, manifest) = write(source, BufWriter::with_capacity(BUFFER, &out))?;
        buffer.flush().and_then(|()| out.sync_all()).map_err(failed)?;
        check_new(file)?;
        fs::rename(&partial, file).map_err(failed)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(manifest)
    };
    written().inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// Writes the archive. The database comes first and is the older: whatever its sessions need was stored before it.
fn write<W: Write>(source: &Source, out: W) -> Result<(W, Manifest), String> {
    let mut archive = Writer::new(out, Manifest::new(source.held.schema, source.held.sessions));
    let failed = |name: &str, error: io::Error| format!("the backup failed at {name}: {error}");
    archive.append(super::store::DATABASE_FILE, &source.database).map_err(|e| failed("the database", e))?;
    for name in [KEY_FILE, KEY_FILE_BEFORE] {
        if let Some(file) = open(&source.data.join(name)).map_err(|e| failed(name, e))? {
            archive.append(name, &file).map_err(|e| failed(name, e))?;
        }
    }
    archive.manifest.recordings_elsewhere.clone_from(&source.elsewhere);
    let here = if source.elsewhere.is_none() { &source.held.with_recordings[..] } else { &[] };
    let folder = source.data.join(media::FOLDER);
    for id in here {
        let name = archive::recording_name(*id);
        match open(&folder.join(id.to_string())).map_err(|e| failed(&name, e))? {
            Some(file) => {
                archive.append(&name, &file).map_err(|e| failed(&name, e))?;
                archive.manifest.recordings += 1;
            }
            // Its owner has deleted it meanwhile, or it was lost before.
            None => archive.manifest.without_recording += 1,
        }
    }
    archive.finish().map_err(|e| failed("its end", e))
}

/// Opens a file; none if there is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a backup holds and doesn't hold, as lines for the operator.
fn summary(manifest: &Manifest) -> String {
    let sum = [count(manifest.sessions as usize, "session"), count(manifest.recordings as usize, "recording")];
    let mut lines = vec![format!(
        "backed up: {}, {}, {} in all; tables of version {}",
        sum[0],
        sum[1],
        bytes(manifest.bytes()),
        manifest.schema
    )];
    if let Some(place) = &manifest.recordings_elsewhere {
        lines.push(format!(
            "not in it: the recordings, which are at {place}; back them up with the tools of that storage"
        ));
    }
    if manifest.without_recording > 0 {
        let sessions = count(manifest.without_recording as usize, "session");
        lines.push(format!("{sessions} had no recording: deleted meanwhile, or lost before"));
    }
    if !manifest.has_key() {
        lines.push(format!(
            "not in it: the key that signs cookies, because the data folder has no {KEY_FILE}. If HARK_SECRET is set, keep \
             it with the backup: without it nobody finds their sessions again"
        ));
    }
    lines.push("not in it: speech models; 'hark model get' fetches them again".to_owned());
    lines.join("\n")
}
