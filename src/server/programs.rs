//! Looks up programs on PATH, for engines and decoders that are installed separately.

use std::path::PathBuf;

/// The path of a program on PATH.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
