//! Recordings, kept by object_store: a folder for now. An upload is written as it comes, never held in memory, and
//! appears whole or not at all. `sessions` writes, `http::audio` reads, `jobs` decodes.

use crate::model::SessionId;
use bytes::Bytes;
use futures::{TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, buffered::BufWriter, local::LocalFileSystem,
    path::Path,
};
use std::{path::PathBuf, sync::Arc};
use tokio::io::AsyncWriteExt;

/// Where recordings lie.
#[derive(Clone, Debug)]
pub struct Media {
    store: Arc<LocalFileSystem>,
    spool: PathBuf,
}

/// A recording that is being received. Dropped unfinished, it leaves nothing behind.
pub struct Upload {
    writer: Option<BufWriter>,
    /// Bytes written so far.
    pub bytes: u64,
}

impl Media {
    /// Recordings in `recordings/` and scratch files in `spool/` under `folder`; both are made if missing.
    ///
    /// # Errors
    /// If the folders can't be made.
    pub fn open(folder: &std::path::Path) -> Result<Self, object_store::Error> {
        let make = |name: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(&path)
                .map(|()| path)
                .map_err(|e| object_store::Error::Generic { store: "recordings", source: Box::new(e) })
        };
        let spool = make("spool")?;
        let store = LocalFileSystem::new_with_prefix(make("recordings")?)?.with_fsync(true);
        Ok(Self { store: Arc::new(store), spool })
    }

    /// Begins to receive the recording of a session.
    #[must_use]
    pub fn receive(&self, id: SessionId) -> Upload {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        // One megabyte in memory, the rest goes to a hidden part file.
        Upload { writer: Some(BufWriter::with_capacity(store, key(id), 1024 * 1024)), bytes: 0 }
    }

    /// The recording's size in bytes, if it is there.
    ///
    /// # Errors
    /// If it isn't, or can't be read.
    pub async fn size(&self, id: SessionId) -> Result<u64, object_store::Error> {
        Ok(self.store.head(&key(id)).await?.size)
    }

    /// The bytes of a recording, or a range of them.
    ///
    /// # Errors
    /// If it isn't there, or can't be read.
    pub async fn read(
        &self,
        id: SessionId,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BoxStream<'static, Result<Bytes, object_store::Error>>, object_store::Error> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let result: GetResult = self.store.get_opts(&key(id), options).await?;
        Ok(result.into_stream())
    }

    /// A recording as a file, for the decoder.
    ///
    /// # Errors
    /// If the path can't be expressed.
    pub fn file(&self, id: SessionId) -> Result<PathBuf, object_store::Error> {
        self.store.path_to_filesystem(&key(id))
    }

    /// Where the decoded samples of a session are kept while it is transcribed.
    #[must_use]
    pub fn spool(&self, id: SessionId) -> PathBuf {
        self.spool.join(format!("{id}.pcm"))
    }

    /// Removes a recording and its scratch file. It is no error if they aren't there.
    ///
    /// # Errors
    /// If the recording can't be removed.
    pub async fn remove(&self, id: SessionId) -> Result<(), object_store::Error> {
        let _ = tokio::fs::remove_file(self.spool(id)).await;
        match self.store.delete(&key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The recordings there are.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub async fn list(&self) -> Result<Vec<SessionId>, object_store::Error> {
        let all: Vec<_> = self.store.list(None).try_collect().await?;
        Ok(all.iter().filter_map(|meta| meta.location.filename()?.parse().ok()).collect())
    }

    /// Bytes free on the disk that holds the recordings.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn free_bytes(&self) -> std::io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.spool)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl Upload {
    /// Adds a piece.
    ///
    /// # Errors
    /// If it can't be written, for example because the disk is full.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), object_store::Error> {
        self.bytes += piece.len() as u64;
        match &mut self.writer {
            Some(writer) => writer.put(piece).await,
            None => Ok(()),
        }
    }

    /// Makes the recording appear, whole.
    ///
    /// # Errors
    /// If it can't be written.
    pub async fn finish(mut self) -> Result<(), object_store::Error> {
        if let Some(mut writer) = self.writer.take() {
            writer
                .shutdown()
                .await
                .map_err(|e| object_store::Error::Generic { store: "recordings", source: Box::new(e) })?;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writer.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // An upload that broke off: take its part file away.
            runtime.spawn(async move { writer.abort().await });
        }
    }
}

fn key(id: SessionId) -> Path {
    Path::from(id.to_string())
}
