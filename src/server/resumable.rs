//! Uploads that come in parts, so that one that breaks off goes on where it was: by the tus protocol. The parts lie in the storage
//! of recordings and their state in the database, so any node takes the next one. When all are here, they are put together, and
//! the recording goes the way of one that was sent as a form. Called by `http::resumable`.

pub mod protocol;

use super::{
    address::ClientAddress,
    audio::AudioError,
    body::{Fault, UploadBody, UploadLimits, upload_error},
    config::{ResumableConfig, UploadConfig},
    error::Error,
    media::{MediaError, Received, Upload},
    owner::Owner,
    sessions::{Incoming, Sessions},
    store::{self, PartRow, UnfinishedLimits, UploadRow},
    uploads::UploadPermits,
};
use crate::model::{
    Session, Timestamp,
    upload::{PartialUpload, UploadId},
};
use axum::body::Body;
use futures::{StreamExt, TryStreamExt};
use protocol::{Arrival, Checksum, Extent, Metadata};
use std::{sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, time};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The most parts of an upload. Smaller ones than a ten-thousandth of the largest recording help nobody, and each is a file.
const MAX_PARTS: u32 = 10_000;
/// Bytes that are read at once of a part on this node's disk.
const READ_BUFFER: usize = 64 * 1024;
/// The name of the chore in the store, how many uploads are removed at once, and for how many seconds a node takes the chore.
const CHORE: &str = "uploads";
const BATCH: u32 = 50;
const CHORE_SECS: f64 = 120.0;
/// An upload is removed so many seconds after it expired, by when no node takes a part of it any more, whatever its clock says.
const MARGIN_SECS: f64 = 5.0;
/// The interval of checks in seconds is a part of the time that uploads are kept, within these bounds.
const MIN_INTERVAL_SECS: f64 = 1.0;
const MAX_INTERVAL_SECS: f64 = 600.0;

/// The uploads that come in parts.
pub struct Resumable {
    sessions: Arc<Sessions>,
    permits: Arc<UploadPermits>,
    uploads: UploadConfig,
    config: ResumableConfig,
}

/// The answer to a client that begins an upload.
#[derive(Debug)]
pub enum Begun {
    /// Its parts may come.
    New(UploadRow),
    /// The same recording was sent before, and became this session.
    AlreadySent(Box<Session>),
}

/// A part that a client sends.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has, if the client says it.
    pub bytes: Option<u64>,
    pub checksum: Option<Checksum>,
}

/// An upload after a part.
#[derive(Debug)]
pub struct Appended {
    /// How many bytes are here.
    pub offset: u64,
    pub expires_at: Timestamp,
    /// The session that it has become with this part.
    pub session: Option<Session>,
}

impl Resumable {
    /// Takes uploads into `sessions`, within the limits of the settings.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        permits: Arc<UploadPermits>,
        uploads: UploadConfig,
        config: ResumableConfig,
    ) -> Self {
        Self { sessions, permits, uploads, config }
    }

    /// The largest file that is accepted, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.sessions.limits.max_upload_bytes
    }

    /// The largest part that is accepted, in bytes.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        self.config.part_bytes()
    }

    /// Begins an upload of a file of `length` bytes, with its `Upload-Metadata`, or finds the session that it is already.
    ///
    /// # Errors
    /// If the options aren't valid, or as for a form: the file is too large, the queue is full, the owner keeps too much, or the
    /// disk is full; and if too many uploads have begun.
    pub async fn begin(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        length: u64,
        metadata: &str,
    ) -> Result<Begun, Error> {
        let sessions = &self.sessions;
        let read = Metadata::parse(metadata)?;
        sessions.check_options(&read.options)?;
        let limit = self.max_bytes();
        if length > limit {
            return Err(Error::TooLarge { size: Some(length), limit });
        }
        if length == 0 {
            return Err(AudioError::EmptyFile.into());
        }
        if let Some(hash) = read.hash.filter(|_| !read.again)
            && let Some(session) = self.database(sessions.store.session_of_recording(owner, &hash)).await?
        {
            return Ok(Begun::AlreadySent(Box::new(session)));
        }
        sessions.media.check_room_for_parts(length)?;
        sessions.check_location().await?;
        sessions.check_share(owner, address, Some(length)).await?;
        let address = sessions.shares.address_hash(sessions.standing(owner, address).await);
        let now = Timestamp::now();
        let upload = UploadRow {
            id: UploadId(Uuid::now_v7()),
            length,
            received: 0,
            metadata: metadata.to_owned(),
            created_at: now,
            expires_at: self.expiry(now),
            session_id: None,
        };
        let limits = UnfinishedLimits {
            per_owner: self.config.max_unfinished_uploads_per_owner,
            per_address: self.config.max_unfinished_uploads_per_address,
            bytes_per_owner: sessions.queue.bytes_per_owner,
        };
        let added = self.database(sessions.store.add_upload(owner, address.as_deref(), &upload, &limits)).await;
        added.map(|()| Begun::New(upload))
    }

    /// An upload of this owner.
    ///
    /// # Errors
    /// [`Error::NoUpload`] if there is none, or it has expired.
    pub async fn find(&self, owner: &Owner, id: UploadId) -> Result<UploadRow, Error> {
        let found = self.database(self.sessions.store.upload(owner, id, Timestamp::now())).await?;
        found.ok_or(Error::NoUpload)
    }

    /// An upload of this owner as programs are told of it, with the session that it has become.
    ///
    /// # Errors
    /// [`Error::NoUpload`] if there is none, or its session was deleted.
    pub async fn describe(&self, owner: &Owner, id: UploadId) -> Result<PartialUpload, Error> {
        let upload = self.find(owner, id).await?;
        Ok(PartialUpload {
            id,
            file_name: Metadata::parse(&upload.metadata)?.file_name,
            length: upload.length,
            offset: upload.received,
            created_at: upload.created_at,
            expires_at: upload.expires_at,
            session: self.session(owner, &upload).await?,
        })
    }

    async fn session(&self, owner: &Owner, upload: &UploadRow) -> Result<Option<Session>, Error> {
        let Some(id) = upload.session_id else { return Ok(None) };
        let session = self.database(self.sessions.store.session(owner, id)).await?;
        session.map(Some).ok_or(Error::NoUpload)
    }

    /// Receives a part of an upload. With the last one, the upload becomes a session; if it can't at the moment, it stays as it
    /// was before that part, which can be sent again.
    ///
    /// # Errors
    /// If there is no such upload, the part doesn't begin where it ends, is too large, has another checksum, breaks off or comes
    /// too slowly; and as for a form, once all is here. An upload that isn't a recording is removed.
    pub async fn append(
        self: &Arc<Self>,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: UploadId,
        part: Part,
        body: Body,
    ) -> Result<Appended, Error> {
        let _permit = UploadPermits::take(&self.permits, owner, address)?;
        let upload = self.find(owner, id).await?;
        let extent = Extent { length: upload.length, received: upload.received };
        let most = extent.room(part.offset, part.bytes, self.part_bytes())?;
        self.sessions.check_location().await?;
        let name = format!("{id}-part-{}-{}", part.offset, Uuid::new_v4().simple());
        let received = self.receive(&name, most, &part, body).await.map_err(|fault| match fault {
            ReceiveError::Fault(Fault::TooLarge, _) => extent.too_large(self.part_bytes()),
            ReceiveError::Fault(fault, limits) => upload_error(fault, &limits, most),
            ReceiveError::Other(error) => error,
        })?;
        match extent.after(received.bytes) {
            Arrival::Unchanged => {
                let session = self.session(owner, &upload).await?;
                Ok(Appended { offset: upload.received, expires_at: upload.expires_at, session })
            }
            Arrival::More => self.keep(owner, &upload, name, received).await,
            Arrival::Last => {
                let finished = self.finish(owner, address, &upload, &received).await;
                match &finished {
                    Err(error) if is_final(error) => self.discard(owner, id).await,
                    // Another part has finished the upload meanwhile, or it was removed.
                    Err(Error::NoUpload) => {
                        return Err(Error::WrongOffset { offset: self.find(owner, id).await?.received });
                    }
                    _ => {}
                }
                // A part is missing, as after a backup without it was restored.
                let session = finished.map_err(|error| match error {
                    Error::NoRecording => Error::NoUpload,
                    error => error,
                })?;
                Ok(Appended { offset: upload.length, expires_at: upload.expires_at, session: Some(session) })
            }
        }
    }

    /// Writes the body of a part to a scratch file.
    async fn receive(&self, name: &str, most: u64, part: &Part, body: Body) -> Result<Received, ReceiveError> {
        let limits = UploadLimits::new(&self.uploads, most);
        let room = self.sessions.reserve(part.bytes).map_err(ReceiveError::Other)?;
        let (mut body, faults, parser) = UploadBody::new(body, limits);
        // There is no form around it.
        parser.reads_data();
        let mut upload = self.sessions.media.receive_part(name, room)?;
        let mut hasher = part.checksum.as_ref().map(Checksum::hasher);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|fault| ReceiveError::Fault(faults.get().unwrap_or(fault), limits))?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            upload.write(&piece).await?;
        }
        if let (Some(checksum), Some(hasher)) = (&part.checksum, hasher)
            && !checksum.matches(hasher)
        {
            return Err(ReceiveError::Other(Error::ChecksumMismatch));
        }
        Ok(upload.finish().await?)
    }

    /// Stores a part that isn't the last one.
    async fn keep(
        &self,
        owner: &Owner,
        upload: &UploadRow,
        name: String,
        received: Received,
    ) -> Result<Appended, Error> {
        let (store, id) = (&self.sessions.store, upload.id);
        if self.database(store.count_parts(id)).await? >= MAX_PARTS {
            return Err(Error::BadRequest(format!(
                "The upload has come in {MAX_PARTS} parts, which is the most that is possible. Begin it again, with larger parts."
            )));
        }
        if !self.database(store.begin_part(id, &name, Timestamp::now())).await? {
            return Err(Error::NoUpload);
        }
        if let Err(error) = self.sessions.media.keep_part(&name, &received).await {
            self.forget_part(&name).await;
            return Err(error.into());
        }
        let now = Timestamp::now();
        let part = PartRow { name, first_byte: Some(upload.received), bytes: received.bytes };
        let expires_at = self.expiry(now);
        // If this fails, the part may have been added all the same, so it isn't removed.
        if self.database(store.add_part(id, &part, expires_at, now)).await? {
            return Ok(Appended { offset: upload.received + received.bytes, expires_at, session: None });
        }
        self.forget_part(&part.name).await;
        Err(Error::WrongOffset { offset: self.find(owner, id).await?.received })
    }

    /// Puts the parts together and makes a session of them.
    async fn finish(
        self: &Arc<Self>,
        owner: &Owner,
        address: Option<ClientAddress>,
        upload: &UploadRow,
        last: &Received,
    ) -> Result<Session, Error> {
        let sessions = &self.sessions;
        let metadata = Metadata::parse(&upload.metadata)?;
        let options = sessions.check_options(&metadata.options)?;
        let (id, mut whole) = sessions.receive(sessions.reserve(Some(upload.length))?)?;
        for part in self.database(sessions.store.parts(upload.id)).await? {
            let Some(first_byte) = part.first_byte else { continue };
            if first_byte != whole.bytes {
                let message = format!("upload {} lacks the bytes from {} to {first_byte}", upload.id, whole.bytes);
                return Err(Error::Internal(message));
            }
            self.copy_part(&part.name, &mut whole).await?;
        }
        copy_file(last, &mut whole).await?;
        if whole.bytes != upload.length {
            let message = format!("upload {} has {} bytes and should have {}", upload.id, whole.bytes, upload.length);
            return Err(Error::Internal(message));
        }
        if metadata.hash.is_some() && metadata.hash != whole.hash() {
            return Err(Error::ChecksumMismatch);
        }
        let incoming = Incoming { id, upload: whole, file_name: metadata.file_name, parts: Some(upload.id) };
        let session = sessions.create(owner, address, incoming, options).await?;
        let (uploads, id) = (Arc::clone(self), upload.id);
        tokio::spawn(async move {
            if let Err(error) = uploads.remove_parts(id).await {
                tracing::warn!(upload_id = %id, %error, "parts of upload {id} could not be removed; they will be when it expires");
            }
        });
        Ok(session)
    }

    async fn copy_part(&self, name: &str, whole: &mut Upload) -> Result<(), Error> {
        let mut pieces = self.sessions.media.read_part(name).await?;
        while let Some(piece) = pieces.try_next().await.map_err(|e| Error::Storage(e.to_string()))? {
            whole.write(&piece).await?;
        }
        Ok(())
    }

    /// Removes an upload with its parts. The session that it has become stays.
    ///
    /// # Errors
    /// [`Error::NoUpload`] if there is none.
    pub async fn terminate(&self, owner: &Owner, id: UploadId) -> Result<(), Error> {
        self.find(owner, id).await?;
        self.discard(owner, id).await;
        Ok(())
    }

    /// Removes an upload that is of no use any more. What can't be removed now goes with the uploads that have expired.
    async fn discard(&self, owner: &Owner, id: UploadId) {
        let removing = async {
            // First, so that no part comes to it any more.
            self.database(self.sessions.store.expire_upload(owner, id)).await?;
            self.remove(id).await
        };
        if let Err(error) = removing.await {
            tracing::warn!(upload_id = %id, %error, "upload {id} could not be removed; trying again later");
        }
    }

    async fn remove(&self, id: UploadId) -> Result<(), Error> {
        self.remove_parts(id).await?;
        Ok(self.sessions.store.remove_upload(id).await?)
    }

    async fn remove_parts(&self, id: UploadId) -> Result<(), Error> {
        for part in self.sessions.store.parts(id).await? {
            self.sessions.media.remove_part(&part.name).await?;
            self.sessions.store.remove_part(&part.name).await?;
        }
        Ok(())
    }

    /// Removes a part that didn't become one.
    async fn forget_part(&self, name: &str) {
        let removing = async {
            self.sessions.media.remove_part(name).await?;
            self.sessions.store.remove_part(name).await.map_err(Error::from)
        };
        if let Err(error) = removing.await {
            tracing::warn!(%error, "a part of an upload could not be removed; it will be with its upload");
        }
    }

    /// Runs work of the store, but not much longer than until the database is known to be away.
    async fn database<T, E: Into<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Error> {
        let done = self.sessions.store.unless_away(work).await;
        done.ok_or(Error::DatabaseAway)?.map_err(Into::into)
    }

    fn expiry(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(self.config.keep_secs())
    }

    /// Removes uploads that have expired, until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let interval = (self.config.keep_secs() / 20.0).clamp(MIN_INTERVAL_SECS, MAX_INTERVAL_SECS);
        let node = Uuid::new_v4().to_string();
        let mut poll = time::interval(Duration::from_secs_f64(interval));
        poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(poll.tick()).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.sweep(&node)).await
                && !store::is_away(&error)
            {
                tracing::warn!(%error, "uploads that have expired could not be removed; trying again");
            }
            // So that another node may do the next sweep; also when this one was stopped or failed.
            let _ = self.sessions.store.release_chore(CHORE, &node).await;
        }
    }

    async fn sweep(&self, node: &str) -> Result<(), sqlx::Error> {
        let store = &self.sessions.store;
        let now = store.now().await?;
        if !store.take_chore(CHORE, node, now, now.plus_seconds(CHORE_SECS)).await? {
            return Ok(());
        }
        loop {
            let expired = store.expired_uploads(Timestamp::now().plus_seconds(-MARGIN_SECS), BATCH).await?;
            let mut failed = false;
            for id in &expired {
                match self.remove(*id).await {
                    Ok(()) => tracing::info!(upload_id = %id, "upload {id} has expired and was removed"),
                    Err(error) => {
                        failed = true;
                        tracing::warn!(upload_id = %id, %error, "upload {id} has expired and could not be removed; trying again");
                    }
                }
            }
            if failed || expired.len() < BATCH as usize {
                return Ok(());
            }
        }
    }
}

/// Why a part wasn't received.
enum ReceiveError {
    /// The body was rejected by these limits.
    Fault(Fault, UploadLimits),
    Other(Error),
}

impl From<MediaError> for ReceiveError {
    fn from(error: MediaError) -> Self {
        Self::Other(error.into())
    }
}

/// Whether an upload that failed so with all its bytes would fail again.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Audio(error) => !matches!(error, AudioError::Io(_)),
        Error::ChecksumMismatch | Error::NoRecording => true,
        _ => false,
    }
}

async fn copy_file(from: &Received, whole: &mut Upload) -> Result<(), Error> {
    let failed = |error| Error::Internal(format!("a scratch file can't be read: {error}"));
    let mut file = tokio::fs::File::open(from.path()).await.map_err(failed)?;
    let mut buffer = vec![0; READ_BUFFER];
    while let n @ 1.. = file.read(&mut buffer).await.map_err(failed)? {
        whole.write(&buffer[..n]).await?;
    }
    Ok(())
}
