//! Scratch files: files of this node, removed when their owner is dropped. They hold uploads that come in and
//! recordings that workers have fetched.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Creates an empty file.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        File::create(&path)?;
        Ok(Self(path))
    }

    /// Takes over a file that exists already.
    pub(super) fn existing(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The size of the file in bytes.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn size(&self) -> io::Result<u64> {
        std::fs::metadata(&self.0).map(|meta| meta.len())
    }

    /// Opens the file for appending. Unlike [`File::create`], this never creates a file that was removed.
    pub(super) fn append(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a scratch file could not be removed");
        }
    }
}
