//! What can be done with sessions, for the JSON API and the pages alike: each checks the owner, changes the store,
//! and publishes the event that the store returned.

use super::{
    address::ClientAddress,
    audio::{self, Decoders},
    bus::Bus,
    config::{KeepConfig, LimitConfig},
    disk::DiskWatch,
    error::Error,
    event::Event,
    language::language,
    media::{Received, Recordings, Upload, UploadRoom},
    outside::Outside,
    owner::Owner,
    retention,
    shares::{Shares, Standing},
    speech::{Availability, Engines},
    store::{self, MAX_PAGE, NewSession, PAGE, QueueLimits, SEGMENT_PAGE, Store, recent_cutoff},
};
use crate::model::{
    EngineId, Media, Session, SessionDetail, SessionId, SessionPage, Status, Timestamp, Title, Transcript,
};
use std::{sync::Arc, time::Duration};
use tokio::time;
use uuid::Uuid;

/// Pauses between tries to take back a recording that never became a session, while the storage or the store fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// The sessions of a node: the use cases, and what they are made of. Routes, pages and workers share one.
pub struct Sessions {
    pub store: Store,
    pub media: Recordings,
    pub bus: Bus,
    pub engines: Engines,
    pub decoders: Decoders,
    pub disk: DiskWatch,
    /// Those that workers outside Hark report on.
    pub outside: Arc<Outside>,
    /// How callers count where something is shared.
    pub shares: Shares,
    pub limits: LimitConfig,
    pub queue: QueueLimits,
    pub kept: KeepConfig,
}

/// What a person or program says about a recording.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub title: Option<String>,
    pub language: Option<String>,
    pub engine: Option<String>,
}

/// Wishes that have been checked.
#[derive(Clone, Debug)]
pub struct Plan {
    title: Option<Title>,
    language: Option<String>,
    engine: EngineId,
}

impl Sessions {
    /// How an owner counts, coming from this address.
    pub async fn standing(&self, owner: &Owner, address: Option<ClientAddress>) -> Standing {
        self.shares.standing(&self.store, owner, address).await
    }

    /// The owner's sessions, newest first.
    ///
    /// # Errors
    /// If the cursor isn't one of ours, or the store fails.
    pub async fn list(
        &self,
        owner: &Owner,
        query: Option<&str>,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<SessionPage, Error> {
        let before = cursor
            .filter(|c| !c.is_empty())
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::BadRequest("The cursor must be the next_cursor of an earlier page.".to_owned()))?;
        let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
        let query: String = query.unwrap_or_default().trim().chars().take(Title::MAX_CHARS).collect();
        let mut sessions = self.store.list(owner, &query, before, limit + 1).await?;
        let more = sessions.len() > limit as usize;
        sessions.truncate(limit as usize);
        let next_cursor = if more { sessions.last().map(|s| s.id.to_string()) } else { None };
        Ok(SessionPage { sessions, next_cursor })
    }

    /// One session.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn get(&self, owner: &Owner, id: SessionId) -> Result<Session, Error> {
        self.store.session(owner, id).await?.ok_or(Error::NotFound)
    }

    /// A session with all its segments.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn transcript(&self, owner: &Owner, id: SessionId) -> Result<Transcript, Error> {
        let session = self.get(owner, id).await?;
        let mut segments = Vec::with_capacity(session.status.segments as usize);
        // Only what the status counts, so that the two fit together while more is being added.
        while let wanted @ 1.. = session.status.segments - segments.len() as u32 {
            let page = self.store.segments(id, segments.len() as u32, wanted.min(SEGMENT_PAGE)).await?;
            if page.is_empty() {
                break;
            }
            segments.extend(page);
        }
        Ok(Transcript { session, segments })
    }

    /// All that the session's page shows: lines, but not the times of their words, which would be most of its bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn detail(&self, owner: &Owner, id: SessionId) -> Result<SessionDetail, Error> {
        let mut transcript = self.transcript(owner, id).await?;
        for segment in &mut transcript.segments {
            segment.words.clear();
            segment.confidence = None;
        }
        let waveform = self.store.waveform(id).await?.unwrap_or_default();
        let stages = self.store.stages(id).await?;
        Ok(SessionDetail { transcript, waveform, stages })
    }

    /// The shape of a session's recording; empty until it has been decoded.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn waveform(&self, owner: &Owner, id: SessionId) -> Result<Vec<u8>, Error> {
        self.get(owner, id).await?;
        Ok(self.store.waveform(id).await?.unwrap_or_default())
    }

    /// The statuses a watcher of all the owner's sessions must know.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn statuses(&self, owner: &Owner) -> Result<Vec<Status>, Error> {
        Ok(self.store.statuses(owner, recent_cutoff()).await?)
    }

    /// Checks what is wished of a recording, before it is received.
    ///
    /// # Errors
    /// If the title, the language or the engine can't be, or the engine isn't available.
    pub fn plan(&self, wishes: &Wishes) -> Result<Plan, Error> {
        let said = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        let title = said(&wishes.title).map(|t| Title::new(&t)).transpose()?;
        let language = language(wishes.language.as_deref())?;
        let engine = match said(&wishes.engine) {
            Some(name) => match name.parse()? {
                EngineId::External => {
                    return Err(Error::BadRequest(
                        "A recording can't be sent to an outside worker; such a worker makes its own sessions."
                            .to_owned(),
                    ));
                }
                engine => engine,
            },
            None => self.engines.default_engine(),
        };
        let available = self.engines.get(engine).map_or_else(
            || Availability::Missing {
                reason: format!("The engine {engine} is not part of this build."),
                install: String::new(),
            },
            |engine| engine.availability(),
        );
        if let Availability::Missing { reason, install } = available {
            let install = (!install.is_empty()).then_some(install);
            return Err(Error::EngineUnavailable { reason, install });
        }
        Ok(Plan { title, language, engine })
    }

    /// Promises room for a recording of `size` bytes (if known), before any of it is read.
    ///
    /// # Errors
    /// If it is too large, or the disk too full.
    pub fn reserve(&self, size: Option<u64>) -> Result<UploadRoom, Error> {
        let limit = self.limits.max_upload_bytes;
        if size.is_some_and(|size| size > limit) {
            return Err(Error::TooLarge { size, limit });
        }
        Ok(self.media.reserve_upload(size)?)
    }

    /// Whether another recording of this owner, of `size` bytes if that is known, may be queued and kept; for those who
    /// want to know before they receive it.
    ///
    /// # Errors
    /// [`Error::QueueFull`] or [`Error::Quota`] if not.
    pub async fn check_share(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        size: Option<u64>,
    ) -> Result<(), Error> {
        let limits = &self.queue;
        if let Some(limit) = limits.bytes_per_owner {
            let used = self.store.kept_bytes(owner).await?;
            if used >= limit || used.saturating_add(size.unwrap_or(0)) > limit {
                return Err(Error::Quota { used, limit });
            }
        }
        let address = self.kept_address(owner, address).await;
        match self.store.queue_full(owner, address.as_deref(), limits, Timestamp::now()).await? {
            Some(full) => Err(full.into()),
            None => Ok(()),
        }
    }

    /// The hash of a newcomer's address, which its sessions in the queue count by; none for an owner with history.
    async fn kept_address(&self, owner: &Owner, address: Option<ClientAddress>) -> Option<String> {
        self.shares.kept_address(self.standing(owner, address).await)
    }

    /// Counts a recording that was refused.
    pub fn count_refusal(&self, error: &Error) {
        // What broke off or failed here was not refused.
        if !matches!(error, Error::BrokenUpload) && error.code() != "internal" {
            metrics::counter!("hark_uploads_refused_total", "reason" => error.code()).increment(1);
        }
    }

    /// Begins to receive a recording, in the room that was promised for it.
    ///
    /// # Errors
    /// If no file can be made.
    pub fn receive(&self, room: UploadRoom) -> Result<(SessionId, Upload), Error> {
        let id = SessionId(Uuid::now_v7());
        Ok((id, self.media.receive(id, room)?))
    }

    /// Makes a session of a received recording and queues it.
    ///
    /// # Errors
    /// If the recording can't be read as audio, is too long, can't be stored, or the queue or the owner's quota has
    /// filled up; it is removed then.
    pub async fn create(
        self: &Arc<Self>,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: SessionId,
        upload: Upload,
        file_name: &str,
        plan: Plan,
    ) -> Result<Session, Error> {
        let address = self.kept_address(owner, address).await;
        let (sessions, owner, file_name) = (Arc::clone(self), owner.clone(), file_name.to_owned());
        // In a task of its own: where the sender hangs up now, this still comes to one end or the other.
        let making = async move {
            let received = upload.finish().await?;
            let made = sessions.create_received(&owner, address, id, &received, &file_name, plan).await;
            if let Err((error, true)) = made {
                tokio::spawn(take_back(sessions, id, received));
                return Err(error);
            }
            made.map_err(|(error, _)| error)
        };
        tokio::spawn(making).await.unwrap_or_else(|e| Err(Error::Internal(format!("making a session broke off: {e}"))))
    }

    /// An error comes with whether the recording may be in the storage.
    async fn create_received(
        &self,
        owner: &Owner,
        address: Option<String>,
        id: SessionId,
        received: &Received,
        file_name: &str,
        plan: Plan,
    ) -> Result<Session, (Error, bool)> {
        let mut new = self.look_at(owner, id, received, file_name, plan).await.map_err(|e| (e, false))?;
        new.address = address;
        self.media.keep(id, received).await.map_err(|e| (e.into(), true))?;
        let added = self.store.enqueue(&new, &self.queue, Timestamp::now()).await;
        let (session, event) = added.map_err(|e| (e.into(), true))?;
        let bytes = received.bytes;
        metrics::counter!("hark_sessions_created_total").increment(1);
        metrics::counter!("hark_upload_bytes_total").increment(bytes);
        tracing::info!(session_id = %id, bytes, engine = %session.engine, "session {id} was received");
        self.bus.publish(&event);
        Ok(session)
    }

    async fn look_at(
        &self,
        owner: &Owner,
        id: SessionId,
        received: &Received,
        file_name: &str,
        plan: Plan,
    ) -> Result<NewSession, Error> {
        let limits = audio::Limits { max_duration: self.limits.max_duration };
        let info = self.decoders.probe(received.path(), limits).await?;
        let file_name: String = file_name.chars().filter(|c| !c.is_control()).take(255).collect();
        Ok(NewSession {
            id,
            owner: owner.clone(),
            title: plan.title.unwrap_or_else(|| Title::from_file_name(&file_name)),
            engine: plan.engine,
            language: plan.language,
            media: Media {
                file_name,
                bytes: received.bytes,
                format: info.format,
                codec: info.codec,
                sample_rate: info.sample_rate,
                channels: info.channels,
            },
            duration_total: info.duration,
            lease_until: None,
            address: None,
        })
    }

    /// Removes the recordings that an earlier run of this node had received and that never became sessions. Nobody waits
    /// for it.
    ///
    /// # Errors
    /// If the scratch folder can't be read.
    pub fn take_back_cut_off(self: &Arc<Self>) -> std::io::Result<()> {
        for (id, received) in self.media.interrupted()? {
            tracing::info!(session_id = %id, "an upload was cut off by the last stop");
            tokio::spawn(take_back(Arc::clone(self), id, received));
        }
        Ok(())
    }

    /// Makes a session of the bundled sample.
    ///
    /// # Errors
    /// As [`Sessions::plan`] and [`Sessions::create`].
    pub async fn create_sample(
        self: &Arc<Self>,
        owner: &Owner,
        address: Option<ClientAddress>,
    ) -> Result<Session, Error> {
        self.sample(owner, address).await.inspect_err(|error| self.count_refusal(error))
    }

    async fn sample(self: &Arc<Self>, owner: &Owner, address: Option<ClientAddress>) -> Result<Session, Error> {
        const SAMPLE: &[u8] = include_bytes!("../../public/sample.mp3");
        let plan = self.plan(&Wishes { title: Some("Sample recording".to_owned()), ..Wishes::default() })?;
        let room = self.reserve(Some(SAMPLE.len() as u64))?;
        self.check_share(owner, address, Some(SAMPLE.len() as u64)).await?;
        let (id, mut upload) = self.receive(room)?;
        upload.write(SAMPLE).await?;
        self.create(owner, address, id, upload, "sample.mp3", plan).await
    }

    /// Cancels a session. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn cancel(&self, owner: &Owner, id: SessionId) -> Result<Session, Error> {
        let _still = self.outside.hold_still(id).await?;
        let changed = self.store.cancel(owner, id, Timestamp::now()).await?;
        self.announce(owner, id, changed, "was cancelled").await
    }

    /// Queues a failed or cancelled session again. Any other stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner; [`Error::Conflict`] if its worker is outside Hark;
    /// [`Error::QueueFull`] if too many wait.
    pub async fn retry(&self, owner: &Owner, address: Option<ClientAddress>, id: SessionId) -> Result<Session, Error> {
        self.can_be_queued(owner, id).await?;
        self.queue_again(owner, address, id, Some(&self.queue)).await
    }

    async fn can_be_queued(&self, owner: &Owner, id: SessionId) -> Result<(), Error> {
        let session = self.get(owner, id).await?;
        // What is due is as good as gone: its recording may be removed at any moment.
        if retention::is_due(self.kept.keep_days, session.finished_at, Timestamp::now()) {
            return Err(Error::NotFound);
        }
        if session.engine == EngineId::External {
            let message = "A worker outside Hark made this session; start it there again.";
            return Err(Error::Conflict("outside", message.to_owned()));
        }
        Ok(())
    }

    async fn queue_again(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: SessionId,
        limits: Option<&QueueLimits>,
    ) -> Result<Session, Error> {
        let address = self.kept_address(owner, address).await;
        let changed = self.store.retry(owner, id, address.as_deref(), limits, Timestamp::now()).await?;
        self.announce(owner, id, changed, "was queued again").await
    }

    /// Stops a session that seems stuck, and queues it again; it goes on after its last segment. One that has ended
    /// is queued again as well.
    ///
    /// # Errors
    /// As [`Sessions::retry`].
    pub async fn restart(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: SessionId,
    ) -> Result<Session, Error> {
        self.can_be_queued(owner, id).await?;
        let stopped = self.store.cancel(owner, id, Timestamp::now()).await?;
        // One that waited or ran has been let in already, and doesn't lose its work to a full queue.
        let limits = if stopped.is_some() { None } else { Some(&self.queue) };
        self.announce(owner, id, stopped, "was cancelled").await?;
        self.queue_again(owner, address, id, limits).await
    }

    async fn announce(
        &self,
        owner: &Owner,
        id: SessionId,
        changed: Option<Event>,
        what: &str,
    ) -> Result<Session, Error> {
        if let Some(event) = &changed {
            self.bus.publish(event);
            tracing::info!(session_id = %id, "session {id} {what}");
        }
        self.get(owner, id).await
    }

    /// Gives a session another title.
    ///
    /// # Errors
    /// [`Error::InvalidTitle`], or [`Error::NotFound`] if there is none of this owner.
    pub async fn rename(&self, owner: &Owner, id: SessionId, title: &str) -> Result<Session, Error> {
        let title = Title::new(title)?;
        if !self.store.rename(owner, id, &title).await? {
            return Err(Error::NotFound);
        }
        self.get(owner, id).await
    }

    /// Removes a session with its recording and segments; a running one is cancelled first. Also on a full disk, where
    /// it is what makes room.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn delete(&self, owner: &Owner, id: SessionId) -> Result<(), Error> {
        let (store, disk) = (&self.store, &self.disk);
        let _still = disk.make_room(store, Error::is_full_disk, || self.outside.hold_still(id)).await?;
        let now = Timestamp::now();
        if let Some(event) = disk.make_room(store, store::is_full, || store.cancel(owner, id, now)).await? {
            self.bus.publish(&event);
        }
        self.get(owner, id).await?;
        // First, so that no recording stays behind a session that is gone: if this fails, one can try again.
        self.media.remove(id).await?;
        if !disk.make_room(store, store::is_full, || store.delete(owner, id)).await? {
            return Err(Error::NotFound);
        }
        self.bus.publish(&Event::deleted(owner.clone(), id));
        tracing::info!(session_id = %id, "session {id} was deleted");
        Ok(())
    }
}

/// Removes a recording that was received and maybe stored, unless it became a session after all. Goes on until that is
/// sure; what is left of the scratch file lets the next start go on.
async fn take_back(sessions: Arc<Sessions>, id: SessionId, received: Received) {
    received.empty();
    let mut pause = FIRST_PAUSE;
    loop {
        let done = match sessions.store.exists(id).await {
            Ok(true) => return,
            Ok(false) => sessions.media.remove(id).await.map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) => return,
            Err(error) => tracing::warn!(session_id = %id, %error, "a recording could not be taken back; trying again"),
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}
