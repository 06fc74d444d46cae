//! The files in the program itself, as `ServeDir` reads them.

use crate::model::page::AppFiles;
use std::{
    borrow::Cow,
    future::{Ready, ready},
    io::{self, Cursor},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File, Metadata};

/// What `scripts/build pages` has made, compressed copies included.
#[derive(rust_embed::Embed)]
#[folder = "target/embed"]
struct Files;

/// The addresses of the app's files. `folder` is the one of `site-pkg-dir`.
pub(super) fn app_files(folder: &str) -> AppFiles {
    let address = |ending: &str| {
        let mut files = Files::iter().filter(|file| file.starts_with(folder));
        files.find(|file| file.ends_with(ending)).map(|file| format!("/{file}")).unwrap_or_default()
    };
    AppFiles { style: address(".css"), script: address(".js"), wasm: address(".wasm") }
}

/// Opens files of the program.
#[derive(Clone)]
pub(super) struct Embedded;

/// A file of the program, and how far it has been read.
pub(super) struct EmbeddedFile {
    content: Cursor<Cow<'static, [u8]>>,
    metadata: EmbeddedMetadata,
}

#[derive(Clone, Copy)]
pub(super) struct EmbeddedMetadata {
    bytes: u64,
    modified: SystemTime,
}

fn open(path: &Path) -> io::Result<EmbeddedFile> {
    // `ServeDir` puts the folder that it was given before the path of the request: an empty one, which is ".".
    let path = path.strip_prefix(".").unwrap_or(path);
    let file = path.to_str().and_then(Files::get).ok_or(io::ErrorKind::NotFound)?;
    let since_1970 = Duration::from_secs(file.metadata.last_modified().unwrap_or_default());
    let metadata = EmbeddedMetadata { bytes: file.data.len() as u64, modified: SystemTime::UNIX_EPOCH + since_1970 };
    Ok(EmbeddedFile { content: Cursor::new(file.data), metadata })
}

impl Backend for Embedded {
    type File = EmbeddedFile;
    type Metadata = EmbeddedMetadata;
    type OpenFuture = Ready<io::Result<EmbeddedFile>>;
    type MetadataFuture = Ready<io::Result<EmbeddedMetadata>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        ready(open(&path))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        ready(open(&path).map(|file| file.metadata))
    }
}

impl Metadata for EmbeddedMetadata {
    fn is_dir(&self) -> bool {
        false
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(self.modified)
    }

    fn len(&self) -> u64 {
        self.bytes
    }
}

impl File for EmbeddedFile {
    type Metadata = EmbeddedMetadata;
    type MetadataFuture<'a> = Ready<io::Result<EmbeddedMetadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.metadata))
    }
}

impl AsyncRead for EmbeddedFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.content).poll_read(cx, buf)
    }
}

impl AsyncSeek for EmbeddedFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.content).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.content).poll_complete(cx)
    }
}
