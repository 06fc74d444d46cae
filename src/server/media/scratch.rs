//! Files of this node's own, which are gone with their owner. For uploads that come in, and for what workers decode.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty one.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        File::create(&path)?;
        Ok(Self(path))
    }

    /// One that is there already.
    pub(super) fn found(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Bytes in it.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn size(&self) -> io::Result<u64> {
        std::fs::metadata(&self.0).map(|meta| meta.len())
    }

    /// Opened to add to it. Unlike [`File::create`], this never brings back one that was removed.
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
