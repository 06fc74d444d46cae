//! Puts the files of a checked backup in their places in the data folder, so that a crash at any moment leaves either what
//! was there or what was restored: what is begun here is completed by the next start of Hark, or the next `hark restore`.
//! Called by `restore` and `node`.

use crate::server::{
    folders, media,
    secret::{KEY_FILE, KEY_FILE_BEFORE},
    store::DATABASE_FILE,
};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Where what was there before goes.
pub(super) const BEFORE: &str = "before-restore";
/// Where files are unpacked. What is there isn't checked yet, and is thrown away by the next start.
pub(super) const UNPACKED: &str = "restore-unpacked";
/// Its name once all was checked. What the data folder holds elsewhere is what was there before.
const CHECKED: &str = "restore-checked";
/// Its name once what was there before is out of the way.
const CLEARED: &str = "restore-cleared";

/// What a backup brings back.
const RESTORED: [&str; 4] = [media::FOLDER, KEY_FILE, KEY_FILE_BEFORE, DATABASE_FILE];
/// What else belongs to what was there before.
const OTHERS: [&str; 4] = ["hark.sqlite-wal", "hark.sqlite-shm", "hark.sqlite-journal", "incoming"];

/// Everything that belongs to one database in a data folder.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    RESTORED.into_iter().chain(OTHERS)
}

/// Decides that what was unpacked in `data` replaces what is there, and does it. What was there goes to [`BEFORE`].
///
/// # Errors
/// If a file can't be moved. Then [`complete`] goes on.
pub(super) fn put_in_place(data: &Path) -> io::Result<()> {
    sync(&data.join(UNPACKED))?;
    rename(data, UNPACKED, CHECKED)?;
    complete(data).map(drop)
}

/// Completes a restore that was interrupted after everything had been checked, and removes what is left of one that was
/// interrupted before. Nobody else may use the folder meanwhile. Returns whether something was completed.
///
/// # Errors
/// If a file can't be moved or removed.
pub fn complete(data: &Path) -> io::Result<bool> {
    let unpacked = data.join(UNPACKED);
    if unpacked.exists() {
        fs::remove_dir_all(unpacked)?;
    }
    let begun = data.join(CHECKED).exists();
    if begun {
        for name in names() {
            // Only an empty folder, which is nothing to keep.
            let _ = fs::remove_dir(data.join(name));
        }
        move_all(data, data, &data.join(BEFORE))?;
        rename(data, CHECKED, CLEARED)?;
    }
    let cleared = data.join(CLEARED);
    let begun = begun || cleared.exists();
    if begun {
        move_all(data, &cleared, data)?;
        fs::remove_dir_all(cleared)?;
        sync_folder(data)?;
    }
    Ok(begun)
}

/// Moves what there is of [`names`] from one folder to another, which is made if need be.
fn move_all(data: &Path, from: &Path, to: &Path) -> io::Result<()> {
    for name in names().filter(|name| from.join(name).symlink_metadata().is_ok()) {
        folders::make_folder(to)?;
        let moved = fs::rename(from.join(name), to.join(name));
        moved.map_err(|error| io::Error::new(error.kind(), format!("{name} can't be moved: {error}")))?;
    }
    for folder in [from, to].into_iter().filter(|folder| folder.exists()) {
        sync_folder(folder)?;
    }
    sync_folder(data)
}

fn rename(data: &Path, from: &str, to: &str) -> io::Result<()> {
    fs::rename(data.join(from), data.join(to))?;
    sync_folder(data)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes everything on the disk of a folder to it.
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    /// All files under a folder with what they hold.
    fn files(folder: &Path) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    all.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        all
    }

    /// A folder with the files of one Hark and, in `at`, those of another one.
    fn folder(at: &str) -> TempDir {
        let data = TempDir::new().unwrap();
        let write = |name: &str, text: &str| {
            let path = data.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["hark.sqlite", "hark.sqlite-wal", "secret.key", "secret-before.key", "recordings/a", "models/m"] {
            write(name, "old");
        }
        for name in ["hark.sqlite", "secret.key", "recordings/b"] {
            write(&format!("{at}/{name}"), "new");
        }
        data
    }

    fn check(data: &TempDir) {
        let expected = [
            ("before-restore/hark.sqlite", "old"),
            ("before-restore/hark.sqlite-wal", "old"),
            ("before-restore/recordings/a", "old"),
            ("before-restore/secret-before.key", "old"),
            ("before-restore/secret.key", "old"),
            ("hark.sqlite", "new"),
            ("models/m", "old"),
            ("recordings/b", "new"),
            ("secret.key", "new"),
        ];
        let expected: BTreeMap<_, _> = expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        assert_eq!(files(data.path()), expected);
        assert!(!complete(data.path()).unwrap(), "nothing is left to do");
        assert_eq!(files(data.path()), expected);
    }

    #[test]
    fn what_was_checked_replaces_what_was_there() {
        let data = folder(UNPACKED);
        put_in_place(data.path()).unwrap();
        check(&data);
    }

    /// A place for recordings that another program has made, and what an earlier restore has left.
    #[test]
    fn empty_folders_are_no_obstacle() {
        let data = TempDir::new().unwrap();
        for name in ["recordings", "incoming", "restore-unpacked/recordings", "before-restore/recordings"] {
            fs::create_dir_all(data.path().join(name)).unwrap();
        }
        fs::write(data.path().join("before-restore/recordings/a"), "old").unwrap();
        fs::write(data.path().join("restore-unpacked/recordings/b"), "new").unwrap();
        put_in_place(data.path()).unwrap();
        let expected = [("before-restore/recordings/a", "old"), ("recordings/b", "new")];
        assert_eq!(files(data.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    #[test]
    fn what_was_not_checked_is_thrown_away() {
        let data = folder(UNPACKED);
        assert!(!complete(data.path()).unwrap());
        let left = files(data.path());
        assert!(left.len() == 6 && left.values().all(|text| text == "old"), "{left:?}");
    }

    /// Wherever a crash stops it: after any number of moves in either half.
    #[test]
    fn what_was_interrupted_is_completed() {
        let old = ["recordings", "secret.key", "secret-before.key", "hark.sqlite", "hark.sqlite-wal"];
        for moved in 0..=old.len() {
            let data = folder(CHECKED);
            fs::create_dir(data.path().join(BEFORE)).unwrap();
            for name in &old[..moved] {
                fs::rename(data.path().join(name), data.path().join(BEFORE).join(name)).unwrap();
            }
            assert!(complete(data.path()).unwrap());
            check(&data);
        }
        let new = ["recordings", "secret.key", "hark.sqlite"];
        for moved in 0..=new.len() {
            let data = folder(CLEARED);
            fs::create_dir(data.path().join(BEFORE)).unwrap();
            for name in old {
                fs::rename(data.path().join(name), data.path().join(BEFORE).join(name)).unwrap();
            }
            for name in &new[..moved] {
                fs::rename(data.path().join(CLEARED).join(name), data.path().join(name)).unwrap();
            }
            assert!(complete(data.path()).unwrap());
            check(&data);
        }
    }
}
