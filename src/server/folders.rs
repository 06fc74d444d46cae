//! Folders and files that no other user of the machine may read, because recordings, texts and keys are private. Called
//! by `main`, and by everything that creates a folder.

use rustix::fs::Mode;
use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Sets the umask, so that no other user of the machine can read files that this process and its children create from
/// now on.
pub fn keep_files_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Whether other users may enter a folder, which may have been made by hand.
#[must_use]
pub fn is_open_to_others(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// Creates a folder and its missing parents, which no other user of the machine may enter.
///
/// # Errors
/// If it can't be created, or isn't a folder.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file that nobody else may read, and syncs it to the disk.
///
/// # Errors
/// If it exists already, or can't be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_private() {
        let root = tempfile::tempdir().unwrap();
        let [data, models] = ["data", "data/models"].map(|name| root.path().join(name));
        make_folder(&models).unwrap();
        make_folder(&models).unwrap();
        for folder in [&data, &models] {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(data.join("file"), "").unwrap();
        assert!(make_folder(&data.join("file")).is_err());
    }
}
