//! `hark restore`: unpacks a backup beside what the data folder holds, checks all of it, and only then puts it in place.
//! Called by `main`.

use super::{
    BUFFER, STANDARD,
    archive::{self, Manifest},
    place,
};
use crate::{
    model::{
        bytes,
        text::{count, date_time},
    },
    server::{
        folders,
        manage::StoreArgs,
        print, space,
        store::{DATABASE_FILE, DatabaseOpenError, Schema, Store},
    },
};
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

/// What a data folder may have without holding any sessions. Empty folders are no obstacle either.
const HARMLESS: [&str; 6] = ["hark.lock", "ballast", "models", "spool", "lost+found", place::BEFORE];

/// `hark restore`.
#[derive(Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Put the backup in place of what the data folder holds, which is moved into its folder 'before-restore'.
    #[arg(long)]
    replace: bool,
    /// The backup, or '-' for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Restores a backup.
///
/// # Errors
/// If that isn't possible, as a message for the operator. Then nothing has been put in place.
pub async fn restore(args: RestoreArgs) -> Result<(), String> {
    if args.store.database_url()?.is_some() {
        return Err(
            "DATABASE_URL is set, so this Hark keeps its sessions in PostgreSQL, and a backup holds an SQLite database. \
             Restore PostgreSQL with pg_restore, or leave DATABASE_URL out"
                .to_owned(),
        );
    }
    let standard = args.file.as_os_str() == STANDARD;
    let shown = if standard { "standard input".to_owned() } else { args.file.display().to_string() };
    let (input, size): (Box<dyn Read + Send>, u64) = if standard {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(&args.file).map_err(|e| format!("{shown} can't be read: {e}"))?;
        let size = file.metadata().map_err(|e| format!("{shown} can't be read: {e}"))?.len();
        (Box::new(file), size)
    };
    let data = args.store.data_dir();
    let folder = data.display();
    let unusable = |error: io::Error| format!("the data folder {}", folders::unusable(data, data, &error));
    folders::make_folder(data).map_err(unusable)?;
    folders::check_user(data, "hark restore - < FILE")?;
    let lock = File::create(data.join("hark.lock")).map_err(unusable)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| format!("the data folder '{folder}' is in use by a running Hark. Stop that one first"))?;
    if place::complete(data).map_err(unusable)? {
        print::line(format_args!(
            "an earlier restore into '{folder}' had been interrupted, and was completed now; nothing else was done. To put \
             another backup in its place, run this again with --replace"
        ));
        return Ok(());
    }
    check_free(data, args.replace).map_err(unusable)??;
    let free = space::free_bytes(data).map_err(unusable)?;
    if size > free {
        return Err(format!("the backup needs {}, and {} are free in '{folder}'", bytes(size), bytes(free)));
    }
    let staged = data.join(place::UNPACKED);
    folders::make_folder(&staged).map_err(unusable)?;
    let checked = check(input, &staged).await;
    let manifest = match checked {
        Ok(manifest) => manifest,
        Err(message) => {
            let _ = fs::remove_dir_all(&staged);
            return Err(format!("{shown} can't be restored: {message}"));
        }
    };
    place::put_in_place(data).map_err(|error| {
        format!(
            "the backup couldn't be put in place: {error}. Mend that and run the same command again, or start Hark: both go on"
        )
    })?;
    print::line(summary(&manifest, data));
    Ok(())
}

/// Unpacks a backup and checks it.
async fn check(input: Box<dyn Read + Send>, staged: &Path) -> Result<Manifest, String> {
    let to = staged.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || archive::unpack(BufReader::with_capacity(BUFFER, input), &to));
    let manifest = unpacked.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    match Store::examine_file(&staged.join(DATABASE_FILE)).await {
        Ok(Schema::Current(_) | Schema::Behind { has: Some(_), .. }) => Ok(manifest),
        Ok(Schema::Behind { has: None, .. }) => Err(DatabaseOpenError::Empty.to_string()),
        Err(DatabaseOpenError::Newer { has, knows }) => Err(format!(
            "its tables have version {has}, and this program knows versions up to {knows}: it was made by Hark {}, which is \
             newer. Restore it with that one",
            manifest.hark
        )),
        Err(error) => Err(format!("its database can't be opened: {error}")),
    }
}

/// Whether the backup may be put into the folder.
fn check_free(data: &Path, replace: bool) -> io::Result<Result<(), String>> {
    if replace {
        let before = data.join(place::BEFORE);
        let message = || {
            format!(
                "{} is there from an earlier restore. See whether you need what it holds, then remove it",
                before.display()
            )
        };
        return Ok(if before.exists() { Err(message()) } else { Ok(()) });
    }
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let empty =
            || Ok::<bool, io::Error>(entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none());
        if !HARMLESS.contains(&&*name) && !empty()? {
            return Ok(Err(format!(
                "the data folder '{}' isn't empty: it has '{name}'. Name an empty one with HARK_DATA_DIR; or --replace puts \
                 the backup in place of its database, recordings and keys, and moves these into its folder '{}'",
                data.display(),
                place::BEFORE
            )));
        }
    }
    Ok(Ok(()))
}

/// What was restored, as lines for the operator.
fn summary(manifest: &Manifest, data: &Path) -> String {
    let sum = [count(manifest.sessions as usize, "session"), count(manifest.recordings as usize, "recording")];
    let mut lines = vec![format!(
        "restored into '{}': {}, {}, as they were on {}, from Hark {}",
        data.display(),
        sum[0],
        sum[1],
        date_time(manifest.made_at),
        manifest.hark
    )];
    if let Some(place) = &manifest.recordings_elsewhere {
        lines.push(format!("the recordings aren't in the backup: start Hark with HARK_RECORDINGS_URL={place}"));
    }
    if !manifest.has_key() {
        lines.push(
            "the key that signs cookies isn't in the backup: start Hark with the HARK_SECRET that it had".to_owned(),
        );
    }
    if data.join(place::BEFORE).exists() {
        lines.push(format!(
            "what was there before is in {}; remove it when you don't need it any more",
            data.join(place::BEFORE).display()
        ));
    }
    lines.join("\n")
}
