//! Storage of recordings, by object_store: in a folder, which several nodes may share, or in a bucket of an
//! S3-compatible server. An upload is received into a scratch file of this node and appears among the recordings whole
//! or not at all. `sessions` writes, `http::audio` reads, `jobs` decodes.

mod location;
mod scratch;

pub use location::OpenError;
pub use scratch::Scratch;

use crate::{
    model::{Session, SessionId, Timestamp, Track, playback::CopyForm},
    server::{
        config::RecordingsUrl,
        space::{Disk, Ledger, Reservation, RoomError},
        tree_hash::TreeHash,
    },
};
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, buffered::BufWriter, path::Path};
use std::{collections::HashSet, fmt, fs::File, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt, BufReader, BufWriter as FileWriter},
    task::JoinHandle,
    time,
};

/// Bytes of an upload buffered in memory before they are written to the disk.
const WRITE_BUFFER: usize = 64 * 1024;
/// The smallest part of a multipart upload that S3 accepts, in bytes. Up to three parts are in memory while a recording
/// is stored.
const MIN_PART: u64 = 5 * 1024 * 1024;
/// S3 accepts 10,000 parts. Recordings larger than this many of the smallest parts have larger ones.
const MAX_PARTS: u64 = 9_000;
const CONCURRENT_PARTS: usize = 2;
/// The folder of the recordings in the data folder, unless they are kept elsewhere.
pub const FOLDER: &str = "recordings";
/// The file among the recordings that says whose they are.
pub const MARKER: &str = "hark-cluster.txt";
/// How long reading it may take. Reading a folder whose server is gone may never end.
const MARKER_TIMEOUT: Duration = Duration::from_secs(10);
/// How many copies of a recording are removed at once.
const REMOVED_AT_ONCE: usize = 16;
/// Bytes that are reserved at once for an upload of unknown length.
const RESERVE_STEP: u64 = 1024 * 1024;

/// The storage of recordings and of this node's scratch files.
#[derive(Clone, Debug)]
pub struct Recordings {
    store: Arc<dyn ObjectStore>,
    /// The folder of the recordings; none if they are in a bucket.
    folder: Option<PathBuf>,
    incoming: PathBuf,
    spool: PathBuf,
    disks: Disks,
    ledger: Arc<Ledger>,
    /// The reading of the marker that is under way, of a folder.
    marker_read: Arc<tokio::sync::Mutex<Option<Reading>>>,
}

/// A file that a thread reads.
type Reading = JoinHandle<io::Result<Vec<u8>>>;

/// The disks of a node's folders.
#[derive(Clone, Debug)]
struct Disks {
    incoming: Disk,
    spool: Disk,
    /// That of the folder of the recordings, if they are in one.
    kept: Option<Disk>,
}

/// Why recordings can't be read or written. `Display` is for the log.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("the recording isn't in the storage")]
    Missing,
    #[error("the disk is full: {free} bytes are free")]
    Full { free: u64 },
    #[error("the storage of recordings failed: {0}")]
    Storage(String),
    #[error("'{}' can't be used: {error}", path.display())]
    Scratch { path: PathBuf, error: io::Error },
}

impl MediaError {
    /// What to make of the error of a file or folder of this node.
    fn of(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        |error| match error.kind() {
            io::ErrorKind::TimedOut => Self::Storage(format!("'{}': {error}", path.display())),
            _ => Self::Scratch { path: path.to_owned(), error },
        }
    }
}

impl From<object_store::Error> for MediaError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            other => Self::Storage(other.to_string()),
        }
    }
}

impl From<RoomError> for MediaError {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Full(free) => Self::Full { free },
            RoomError::Unknown { folder, error } => Self::of(&folder)(error),
        }
    }
}

/// Room on the disk that is reserved for an upload before any of it is read.
#[derive(Debug)]
pub struct UploadRoom {
    incoming: Reservation,
    /// Room where the recording will be stored, if that is a folder on another disk.
    kept: Option<Reservation>,
}

/// A recording that is being received. Dropping it unfinished removes all of it.
pub struct Upload {
    file: FileWriter<tokio::fs::File>,
    scratch: Scratch,
    media: Recordings,
    room: UploadRoom,
    /// Computed of recordings, and of nothing else.
    hash: Option<TreeHash>,
    /// Bytes written so far.
    pub bytes: u64,
}

/// A recording that was received whole and isn't stored yet. Its scratch file stays until this is dropped. A scratch
/// file that a crash leaves behind tells the next start that the recording never became a session.
#[derive(Debug)]
pub struct Received {
    scratch: Scratch,
    /// Room reserved for storing it on another disk.
    room: Option<Reservation>,
    pub bytes: u64,
    /// The hash of a recording.
    pub hash: Option<String>,
}

/// The name of a copy for browsers, which says all that the copy depends on. So the copy of one track is never taken for that
/// of another, whichever is stored last. No recording's name: those are ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyName {
    /// The session whose recording it is a copy of.
    pub id: SessionId,
    /// The track that was chosen for it, if the recording has others.
    pub track: Option<Track>,
    pub form: CopyForm,
}

impl CopyName {
    /// The copy of what is transcribed of a session's recording.
    #[must_use]
    pub fn of(session: &Session, form: CopyForm) -> Self {
        Self::new(session.id, session.track, session.media.tracks, form)
    }

    /// The copy of the track that is chosen of so many; their number is 0 if it isn't known.
    #[must_use]
    pub fn new(id: SessionId, track: Option<Track>, tracks: u16, form: CopyForm) -> Self {
        Self { id, track: track.filter(|_| tracks != 1), form }
    }

    /// Every copy of a recording that may have been made, whichever track was chosen then. `track` is chosen now.
    #[must_use]
    pub fn all(id: SessionId, track: Option<Track>, tracks: u16) -> Vec<Self> {
        let each = (1..=tracks).map(Track::Number).chain([Track::Mix]).map(Some).chain([None, track]);
        // The track that is chosen is among the others if their number is known, and all are the same if it is 1.
        let names: HashSet<Self> =
            each.flat_map(|track| CopyForm::ALL.map(|form| Self::new(id, track, tracks, form))).collect();
        names.into_iter().collect()
    }

    /// Reads the name of a file; none if it is no copy's.
    fn parse(text: &str) -> Option<Self> {
        let (id, rest) = text.split_once("-playable-")?;
        let (extension, track) =
            rest.split_once('-').map_or((rest, None), |(extension, track)| (extension, Some(track)));
        let form = CopyForm::ALL.into_iter().find(|form| form.extension() == extension)?;
        let track = track.map(|track| track.parse().ok()).map_or(Some(None), |track| track.map(Some))?;
        let name = Self { id: id.parse().ok()?, track, form };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-playable-{}", self.id, self.form.extension())?;
        self.track.map_or(Ok(()), |track| write!(f, "-{track}"))
    }
}

/// A copy for browsers that is in the storage.
#[derive(Clone, Debug)]
pub struct StoredCopy {
    pub name: CopyName,
    pub bytes: u64,
    /// Names this version of it, without quotes.
    pub version: String,
    pub made_at: Timestamp,
}

impl StoredCopy {
    fn new(name: CopyName, meta: ObjectMeta) -> Self {
        let made_at = Timestamp(meta.last_modified.timestamp_millis());
        let tag = meta.e_tag.unwrap_or_else(|| format!("{:x}", meta.last_modified.timestamp_micros()));
        let version = tag.trim_start_matches("W/").trim_matches('"').to_owned();
        Self { name, bytes: meta.size, version, made_at }
    }
}

impl Recordings {
    /// Opens the recordings at `url`, or in `recordings/` under `folder`, and the scratch files in `incoming/` and
    /// `spool/` there. Creates folders of this node's own if they don't exist. Nobody else may use `folder`. Writes
    /// leave `spare` bytes of the disk free.
    ///
    /// # Errors
    /// If a folder can't be used, or the bucket can't be reached.
    pub async fn open(folder: &std::path::Path, url: Option<&RecordingsUrl>, spare: u64) -> Result<Self, OpenError> {
        let [incoming, spool] = ["incoming", "spool"].map(|name| folder.join(name));
        location::make_folder(&incoming)?;
        // Removes fetched recordings that a crash left behind.
        let _ = std::fs::remove_dir_all(&spool);
        location::make_folder(&spool)?;
        // They may have been there, and another user's.
        location::check_own_folder(&incoming)?;
        location::check_own_folder(&spool)?;
        let mut kept = None;
        let (store, folder) = match url {
            None => {
                let own = folder.join(FOLDER);
                location::make_folder(&own)?;
                location::check_own_folder(&own)?;
                (location::folder(&own)?, Some(own))
            }
            Some(RecordingsUrl::Folder(shared)) => {
                location::check_folder(shared)?;
                let unusable = |error| OpenError::SharedFolder { path: shared.clone(), error };
                kept = Some(Disk::shared(shared.clone()).map_err(unusable)?);
                (location::folder(shared)?, Some(shared.clone()))
            }
            Some(RecordingsUrl::Bucket { name, prefix }) => (location::bucket(name, prefix).await?, None),
        };
        Ok(Self::new(store, folder, kept, [incoming, spool], spare))
    }

    /// `kept`: the disk of `folder`, if that isn't one of this machine. `spare` bytes must stay free.
    fn new(
        store: Arc<dyn ObjectStore>,
        folder: Option<PathBuf>,
        kept: Option<Disk>,
        [incoming, spool]: [PathBuf; 2],
        spare: u64,
    ) -> Self {
        let disks = Disks {
            incoming: Disk::own(incoming.clone()),
            spool: Disk::own(spool.clone()),
            kept: kept.or_else(|| folder.clone().map(Disk::own)),
        };
        Self { store, folder, incoming, spool, disks, ledger: Ledger::new(spare), marker_read: Arc::default() }
    }

    /// Opens the recordings of a node that may be running, to read and remove them. Creates and clears nothing.
    ///
    /// # Errors
    /// If the folder or the bucket can't be reached.
    pub async fn attach(folder: &std::path::Path, url: Option<&RecordingsUrl>) -> Result<Self, OpenError> {
        let [incoming, spool, own] = ["incoming", "spool", FOLDER].map(|name| folder.join(name));
        let (store, folder) = match url {
            None => (location::folder(&own)?, Some(own)),
            Some(RecordingsUrl::Folder(shared)) => (location::folder(shared)?, Some(shared.clone())),
            Some(RecordingsUrl::Bucket { name, prefix }) => (location::bucket(name, prefix).await?, None),
        };
        // Reserves nothing, because nothing is written.
        Ok(Self::new(store, folder, None, [incoming, spool], 0))
    }

    /// Checks that recordings can be stored at `url`, by writing a file there and removing it.
    ///
    /// # Errors
    /// If they can't.
    pub async fn probe(url: &RecordingsUrl) -> Result<(), OpenError> {
        match url {
            RecordingsUrl::Folder(shared) => location::check_folder(shared),
            RecordingsUrl::Bucket { name, prefix } => location::bucket(name, prefix).await.map(drop),
        }
    }

    /// Reserves room for an upload of so many bytes. One of unknown length reserves more as it comes.
    ///
    /// # Errors
    /// [`MediaError::Full`] if there isn't so much.
    pub fn reserve_upload(&self, bytes: Option<u64>) -> Result<UploadRoom, MediaError> {
        let bytes = bytes.unwrap_or(0);
        let incoming = self.ledger.reserve(&self.disks.incoming, bytes)?;
        let mut kept = None;
        if let Some(disk) = &self.disks.kept
            && !disk.is_that_of(&self.disks.incoming).map_err(MediaError::of(disk.folder()))?
        {
            kept = Some(self.ledger.reserve(disk, bytes)?);
        }
        Ok(UploadRoom { incoming, kept })
    }

    /// Checks that there is room for an upload of so many bytes that comes in parts: for the parts, and for the recording that
    /// is put together from them. Reserves nothing, because the parts may take days.
    ///
    /// # Errors
    /// [`MediaError::Full`] if there isn't so much.
    pub fn check_room_for_parts(&self, bytes: u64) -> Result<(), MediaError> {
        // Parts in a folder may be on the disk on which the recording is put together.
        let bytes = if self.folder.is_some() { bytes.saturating_mul(2) } else { bytes };
        self.ledger.reserve(&self.disks.incoming, bytes).map(drop).map_err(MediaError::from)
    }

    /// Reserves room for the copy of a recording that a worker fetches. Reserves nothing where recordings are in a
    /// folder, because they are read there directly.
    ///
    /// # Errors
    /// [`MediaError::Full`] if there isn't so much.
    pub fn reserve_copy(&self, bytes: u64) -> Result<Reservation, MediaError> {
        Ok(self.ledger.reserve(&self.disks.spool, if self.folder.is_some() { 0 } else { bytes })?)
    }

    /// Returns the size of the largest recording that a worker could fetch, in bytes.
    ///
    /// # Errors
    /// If the system doesn't tell how much is free.
    pub fn room_for_copy(&self) -> io::Result<u64> {
        if self.folder.is_some() { Ok(u64::MAX) } else { self.ledger.room(&self.disks.spool) }
    }

    /// Begins to receive the recording of a session.
    ///
    /// # Errors
    /// If no scratch file can be made.
    pub fn receive(&self, id: SessionId, room: UploadRoom) -> Result<Upload, MediaError> {
        let upload = self.receive_as(&id.to_string(), room)?;
        Ok(Upload { hash: Some(TreeHash::default()), ..upload })
    }

    /// Begins to write a copy for browsers. One that is left behind by a crash is removed by the next start.
    ///
    /// # Errors
    /// If no scratch file can be made.
    pub fn receive_copy(&self, name: CopyName, room: UploadRoom) -> Result<Upload, MediaError> {
        self.receive_as(&name.to_string(), room)
    }

    /// Begins to receive a part of an upload, under a name of its own. One that is left behind by a crash is removed by the next
    /// start.
    ///
    /// # Errors
    /// If no scratch file can be made.
    pub fn receive_part(&self, name: &str, room: UploadRoom) -> Result<Upload, MediaError> {
        self.receive_as(name, room)
    }

    fn receive_as(&self, name: &str, room: UploadRoom) -> Result<Upload, MediaError> {
        let path = self.incoming.join(name);
        let opened = Scratch::create(path.clone()).and_then(|s| Ok((s.append()?, s)));
        let (file, scratch) = opened.map_err(|e| self.failed(&path, e))?;
        let mut file = tokio::fs::File::from_std(file);
        // Tokio's file has a buffer of this size too, while a thread writes it.
        file.set_max_buf_size(WRITE_BUFFER);
        let file = FileWriter::with_capacity(WRITE_BUFFER, file);
        Ok(Upload { file, scratch, media: self.clone(), room, hash: None, bytes: 0 })
    }

    /// Stores a received recording, which appears whole.
    ///
    /// # Errors
    /// If it can't be stored. It may have been stored all the same, if only the answer was lost.
    pub async fn keep(&self, id: SessionId, received: &Received) -> Result<(), MediaError> {
        self.keep_as(&id.to_string(), received).await
    }

    /// Stores a copy for browsers, which appears whole.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub async fn keep_copy(&self, name: CopyName, made: &Received) -> Result<(), MediaError> {
        self.keep_as(&name.to_string(), made).await
    }

    /// Stores a part of an upload, which appears whole.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub async fn keep_part(&self, name: &str, part: &Received) -> Result<(), MediaError> {
        self.keep_as(name, part).await
    }

    async fn keep_as(&self, name: &str, received: &Received) -> Result<(), MediaError> {
        let scratch = received.scratch.path().to_owned();
        match self.folder.as_ref().zip(self.disks.kept.as_ref()) {
            Some((folder, disk)) => {
                let to = folder.join(name);
                let linked = {
                    let (scratch, to) = (scratch.clone(), to.clone());
                    self.blocking(folder, move || location::link_into_folder(&scratch, &to)).await?
                };
                if !linked {
                    // On the same disk, but on a file system without hard links, no room has been reserved for a copy
                    // yet.
                    let _room = match &received.room {
                        Some(_) => None,
                        None => Some(self.ledger.reserve(disk, received.bytes)?),
                    };
                    self.blocking(folder, move || location::copy_into_folder(&scratch, &to)).await?;
                }
                Ok(())
            }
            None => self.keep_in_bucket(name, &scratch, received.bytes).await,
        }
    }

    /// Does work with the files in `folder` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        folder: &std::path::Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, MediaError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| self.failed(folder, e))
    }

    async fn keep_in_bucket(&self, name: &str, from: &std::path::Path, bytes: u64) -> Result<(), MediaError> {
        let part = usize::try_from(MIN_PART.max(bytes.div_ceil(MAX_PARTS))).unwrap_or(usize::MAX);
        let file = tokio::fs::File::open(from).await.map_err(MediaError::of(from))?;
        let mut reader = BufReader::with_capacity(WRITE_BUFFER, file);
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.store), Path::from(name), part)
            .with_max_concurrency(CONCURRENT_PARTS);
        if let Err(error) = tokio::io::copy_buf(&mut reader, &mut writer).await {
            // The server would keep the parts that it has, and charge for them. This may fail as the upload did.
            let _ = writer.abort().await;
            return Err(MediaError::Storage(error.to_string()));
        }
        // If this fails, it removes the parts itself.
        writer.shutdown().await.map_err(|e| MediaError::Storage(e.to_string()))
    }

    /// Reads a recording, or a range of its bytes.
    ///
    /// # Errors
    /// If it isn't there, or can't be read.
    pub async fn read(&self, id: SessionId, range: Option<std::ops::Range<u64>>) -> Result<Pieces, MediaError> {
        self.read_at(&key(id), range).await
    }

    /// Reads a copy for browsers, or a range of its bytes.
    ///
    /// # Errors
    /// If it isn't there, or can't be read.
    pub async fn read_copy(&self, name: CopyName, range: Option<std::ops::Range<u64>>) -> Result<Pieces, MediaError> {
        self.read_at(&Path::from(name.to_string()), range).await
    }

    /// Reads a part of an upload.
    ///
    /// # Errors
    /// If it isn't there, or can't be read.
    pub async fn read_part(&self, name: &str) -> Result<Pieces, MediaError> {
        self.read_at(&Path::from(name), None).await
    }

    async fn read_at(&self, key: &Path, range: Option<std::ops::Range<u64>>) -> Result<Pieces, MediaError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        Ok(self.store.get_opts(key, options).await?.into_stream())
    }

    /// Looks for a copy for browsers.
    ///
    /// # Errors
    /// If the storage can't be read.
    pub async fn copy(&self, name: CopyName) -> Result<Option<StoredCopy>, MediaError> {
        match self.store.head(&Path::from(name.to_string())).await {
            Ok(meta) => Ok(Some(StoredCopy::new(name, meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All copies for browsers.
    ///
    /// # Errors
    /// If the storage can't be read.
    pub async fn copies(&self) -> Result<Vec<StoredCopy>, MediaError> {
        let (mut listed, mut copies) = (self.store.list(None), Vec::new());
        while let Some(meta) = listed.try_next().await? {
            let name = meta.location.filename().and_then(CopyName::parse);
            copies.extend(name.map(|name| StoredCopy::new(name, meta)));
        }
        Ok(copies)
    }

    /// How many bytes more would have to be free on the disk of the recordings for new copies for browsers. They leave as much
    /// again as must stay free, so that they never take the room of uploads. None is lacking in a bucket.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn lacking_for_copies(&self) -> Result<u64, MediaError> {
        let Some(disk) = &self.disks.kept else { return Ok(0) };
        let room = self.ledger.room(disk).map_err(MediaError::of(disk.folder()))?;
        Ok(self.ledger.min_free().saturating_sub(room))
    }

    /// Checks that there is room for more of a copy for browsers.
    ///
    /// # Errors
    /// [`MediaError::Full`] if there isn't.
    pub fn check_room_for_copies(&self) -> Result<(), MediaError> {
        match self.lacking_for_copies()? {
            0 => Ok(()),
            _ => Err(MediaError::Full { free: self.free_bytes().map_err(MediaError::of(&self.incoming))? }),
        }
    }

    /// Returns the recording's file where recordings are in a folder; none where it has to be fetched.
    #[must_use]
    pub fn file(&self, id: SessionId) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(id.to_string()))
    }

    /// Appends the rest of a recording to `copy`, within the `room` that was reserved. Can be dropped at any time and
    /// called again.
    ///
    /// # Errors
    /// If the recording isn't there or can't be read, or there is no room for it.
    pub async fn fetch(&self, id: SessionId, copy: &Scratch, room: &mut Reservation) -> Result<(), MediaError> {
        let offset = copy.size().map_err(MediaError::of(copy.path()))?;
        room.written(offset);
        let size = self.store.head(&key(id)).await?.size;
        if size <= offset {
            return Ok(());
        }
        room.cover(size, 0)?;
        let options = GetOptions { range: Some(GetRange::Offset(offset)), ..GetOptions::default() };
        let mut pieces = self.store.get_opts(&key(id), options).await?.into_stream();
        let mut file = tokio::fs::File::from_std(copy.append().map_err(|e| self.failed(copy.path(), e))?);
        let mut done = offset;
        let copied = loop {
            match pieces.try_next().await {
                Ok(Some(piece)) => {
                    // Each write waits until the previous one has reached the disk.
                    room.written(done);
                    file.write_all(&piece).await.map_err(|e| self.failed(copy.path(), e))?;
                    done += piece.len() as u64;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        // Also before an error is returned: the next call continues after what was written.
        file.flush().await.map_err(|e| self.failed(copy.path(), e))?;
        room.written(done);
        copied
    }

    /// Creates a scratch file for an attempt at a session. `kind` says for what.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn scratch(&self, id: SessionId, attempt: u32, kind: &str) -> Result<Scratch, MediaError> {
        // The name contains the attempt, because an earlier attempt that lost its claim may still be ending here.
        let path = self.spool.join(format!("{id}.{attempt}.{kind}"));
        Scratch::create(path.clone()).map_err(|e| self.failed(&path, e))
    }

    /// Removes a recording and these copies of it. Succeeds also if there are none.
    ///
    /// # Errors
    /// If one can't be removed.
    pub async fn remove(&self, id: SessionId, copies: &[CopyName]) -> Result<(), MediaError> {
        let (recording, copies) = futures::join!(self.remove_as(id.to_string()), self.remove_copies(copies));
        recording.and(copies)
    }

    /// Removes copies. Succeeds also if they aren't there.
    ///
    /// # Errors
    /// If one can't be removed.
    pub async fn remove_copies(&self, copies: &[CopyName]) -> Result<(), MediaError> {
        let removing: Vec<_> = copies.iter().map(|name| self.remove_copy(*name)).collect();
        // Also after an error, so that no more are left than must be.
        let removed: Vec<_> = stream::iter(removing).buffer_unordered(REMOVED_AT_ONCE).collect().await;
        removed.into_iter().collect()
    }

    /// Removes a copy. Succeeds also if there is none.
    ///
    /// # Errors
    /// If it can't be removed.
    pub async fn remove_copy(&self, name: CopyName) -> Result<(), MediaError> {
        self.remove_as(name.to_string()).await
    }

    /// Removes a part of an upload. Succeeds also if there is none.
    ///
    /// # Errors
    /// If it can't be removed.
    pub async fn remove_part(&self, name: &str) -> Result<(), MediaError> {
        self.remove_as(name.to_owned()).await
    }

    async fn remove_as(&self, name: String) -> Result<(), MediaError> {
        if let Some(folder) = &self.folder {
            let _ = tokio::fs::remove_file(location::part_file(&folder.join(&name))).await;
        }
        match self.store.delete(&Path::from(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the marker of the cluster whose recordings these are. None if there is none: nobody has put one here, or
    /// what should be mounted here isn't.
    ///
    /// # Errors
    /// If the storage can't be read.
    pub async fn marker(&self) -> Result<Option<String>, MediaError> {
        let read = async {
            match &self.folder {
                // By its name, as workers open recordings: what is mounted there may change.
                Some(folder) => match self.read_marker(folder.join(MARKER)).await {
                    Ok(bytes) => Ok(Bytes::from(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MediaError::Missing),
                    Err(error) => Err(MediaError::Storage(error.to_string())),
                },
                None => Ok(self.store.get(&Path::from(MARKER)).await?.bytes().await?),
            }
        };
        match time::timeout(MARKER_TIMEOUT, read).await {
            Ok(Ok(bytes)) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Ok(Err(MediaError::Missing)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(MediaError::Storage(format!("no answer within {} seconds", MARKER_TIMEOUT.as_secs()))),
        }
    }

    /// Reads the marker's file. If the folder's server didn't answer the last time, waits on for that answer, because a thread
    /// stands still for each question.
    async fn read_marker(&self, file: PathBuf) -> io::Result<Vec<u8>> {
        let mut under_way = self.marker_read.lock().await;
        let reading = under_way.get_or_insert_with(|| tokio::task::spawn_blocking(move || std::fs::read(file)));
        let read = reading.await;
        *under_way = None;
        read.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Which of the folders that recordings pass through or stay in can't be used, and why, for operators; none if all can.
    /// Writes nothing.
    pub async fn unusable_folder(&self) -> Option<String> {
        let folders = [&self.incoming, &self.spool].into_iter().chain(&self.folder).cloned().collect();
        let looking = tokio::task::spawn_blocking(|| unusable(folders));
        match time::timeout(MARKER_TIMEOUT, looking).await {
            Ok(found) => found.ok().flatten().map(|(folder, error)| MediaError::of(&folder)(error).to_string()),
            Err(_) => Some(format!("its folders gave no answer within {} seconds", MARKER_TIMEOUT.as_secs())),
        }
    }

    /// The same of a node that may be running, or that has never run: folders that aren't there will be made.
    #[must_use]
    pub fn unusable_folder_at(data: &std::path::Path, url: Option<&RecordingsUrl>) -> Option<(PathBuf, io::Error)> {
        let own = if url.is_none() { Some(FOLDER) } else { None };
        let folders = ["incoming", "spool"].into_iter().chain(own).map(|name| data.join(name));
        unusable(folders.filter(|folder| folder.symlink_metadata().is_ok()).collect())
    }

    /// Puts the marker of a cluster here.
    ///
    /// # Errors
    /// If it can't be stored.
    pub async fn put_marker(&self, cluster: &str) -> Result<(), MediaError> {
        self.store.put(&Path::from(MARKER), format!("{cluster}\n").into()).await?;
        Ok(())
    }

    /// Whether a recording is here.
    ///
    /// # Errors
    /// If the storage can't be read.
    pub async fn has(&self, id: SessionId) -> Result<bool, MediaError> {
        match self.store.head(&key(id)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the uploads that an earlier run had received, or was receiving, when it was interrupted.
    ///
    /// # Errors
    /// If the folder can't be read.
    pub fn interrupted(&self) -> io::Result<Vec<(SessionId, Received)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.incoming)? {
            let scratch = Scratch::existing(entry?.path());
            let id = scratch.path().file_name().and_then(|name| name.to_str()?.parse().ok());
            found.extend(id.map(|id| (id, Received { scratch, room: None, bytes: 0, hash: None })));
        }
        Ok(found)
    }

    /// Returns the free bytes of the disk of scratch files, or of that of the recordings if it has fewer.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let Disks { incoming, spool, kept } = &self.disks;
        [Some(incoming), Some(spool), kept.as_ref()]
            .into_iter()
            .flatten()
            .try_fold(u64::MAX, |free, disk| Ok(free.min(disk.space()?.free)))
    }

    /// The disks that fill up, with the names of their folders in metrics: the data folder, and that of the recordings if they
    /// aren't in a bucket.
    #[must_use]
    pub fn disks(&self) -> Vec<(&'static str, Disk)> {
        let recordings = self.disks.kept.iter().map(|disk| ("recordings", disk.clone()));
        [("data", self.disks.incoming.clone())].into_iter().chain(recordings).collect()
    }

    /// Returns the bytes of the data folder's disk that aren't reserved and needn't stay free.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn room(&self) -> io::Result<u64> {
        self.ledger.room(&self.disks.incoming)
    }

    fn failed(&self, path: &std::path::Path, error: io::Error) -> MediaError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                MediaError::Full { free: self.free_bytes().unwrap_or(0) }
            }
            _ => MediaError::of(path)(error),
        }
    }
}

impl Upload {
    /// Appends a piece.
    ///
    /// # Errors
    /// If it can't be written, for example because the disk is full.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), MediaError> {
        let bytes = self.bytes + piece.len() as u64;
        self.room.incoming.cover(bytes, RESERVE_STEP)?;
        if let Some(kept) = &mut self.room.kept {
            kept.cover(bytes, RESERVE_STEP)?;
        }
        self.bytes = bytes;
        if let Some(hash) = &mut self.hash {
            hash.update(piece);
        }
        self.file.write_all(piece).await.map_err(|e| self.media.failed(self.scratch.path(), e))?;
        // A buffer's worth may be waiting here, and as much may be on its way to the disk.
        self.room.incoming.written(bytes.saturating_sub((self.file.buffer().len() + WRITE_BUFFER) as u64));
        Ok(())
    }

    /// The hash of what was written of a recording so far.
    #[must_use]
    pub fn hash(&self) -> Option<String> {
        self.hash.as_ref().map(TreeHash::hex)
    }

    /// Ends the upload.
    ///
    /// # Errors
    /// If the last bytes can't be written.
    pub async fn finish(mut self) -> Result<Received, MediaError> {
        self.file.flush().await.map_err(|e| self.media.failed(self.scratch.path(), e))?;
        let hash = self.hash();
        Ok(Received { scratch: self.scratch, room: self.room.kept, bytes: self.bytes, hash })
    }
}

impl Received {
    /// The file of the recording, until this is dropped.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// Writes over the first bytes of the file.
    ///
    /// # Errors
    /// If they can't be written.
    pub async fn overwrite(&self, head: Vec<u8>) -> Result<(), MediaError> {
        let path = self.path().to_owned();
        let written = tokio::task::spawn_blocking(move || {
            let file = File::options().write(true).open(path)?;
            std::os::unix::fs::FileExt::write_all_at(&file, &head, 0)
        });
        written.await.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(MediaError::of(self.path()))
    }

    /// Replaces the scratch file by an empty one of the same name, to free its room on the disk.
    pub fn empty(&self) {
        // A new file and no truncation, because the stored recording may be a hard link to the same bytes.
        let note = self.path().with_extension("note");
        let _ = File::create(&note).and_then(|_| std::fs::rename(&note, self.path()));
    }
}

/// The first of these folders that can't be used, and why.
fn unusable(folders: Vec<PathBuf>) -> Option<(PathBuf, io::Error)> {
    folders.into_iter().find_map(|folder| {
        let error = location::check_access(&folder).err()?;
        Some((folder, error))
    })
}

/// The bytes of a file, piece by piece.
pub type Pieces = BoxStream<'static, Result<Bytes, object_store::Error>>;

fn key(id: SessionId) -> Path {
    Path::from(id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_name_of_a_copy_says_which_track_it_has() {
        let id = SessionId(Uuid::now_v7());
        let name = |track, tracks| CopyName::new(id, track, tracks, CopyForm::Opus).to_string();
        let (second, mix) = (Some(Track::Number(2)), Some(Track::Mix));
        assert_eq!(name(None, 3), format!("{id}-playable-ogg"));
        assert_eq!(name(second, 3), format!("{id}-playable-ogg-2"));
        assert_eq!(name(mix, 0), format!("{id}-playable-ogg-mix"));
        // The only track sounds the same, whatever was chosen.
        assert_eq!(name(mix, 1), name(None, 1));
        assert_eq!(CopyName::all(id, mix, 1).len(), 2);
        let all = CopyName::all(id, second, 2);
        assert_eq!(all.len(), 8, "{all:?}");
        // Of an old session, of which the number of tracks isn't known.
        let all = [&all[..], &CopyName::all(id, second, 0)].concat();
        for name in all {
            assert_eq!(CopyName::parse(&name.to_string()), Some(name));
        }
        assert!(CopyName::all(id, Some(Track::Number(9)), 0).contains(&CopyName {
            id,
            track: Some(Track::Number(9)),
            form: CopyForm::Wav
        }));
        for other in ["-0", "-02", "-", "-2-2", "-all", "s"] {
            assert_eq!(CopyName::parse(&format!("{id}-playable-ogg{other}")), None, "{other}");
        }
        assert_eq!(CopyName::parse(&id.to_string()), None);
    }
}
