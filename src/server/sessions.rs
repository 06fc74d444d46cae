//! The use cases of sessions, for the JSON API and the pages alike. Each checks the owner, changes the store, and
//! publishes the event that the store returned.

use super::{
    address::ClientAddress,
    audio::{self, AudioError, Decoders},
    bus::Bus,
    cluster::Cluster,
    config::{KeepConfig, LimitConfig},
    copies::Copies,
    disk::DiskWatch,
    error::Error,
    event::Event,
    hours::Hours,
    language::language,
    media::{CopyName, MediaError, Received, Recordings, StoredCopy, Upload, UploadRoom},
    outside::Outside,
    owner::Owner,
    registry::{self, Registry},
    retention,
    shares::{Shares, Standing},
    speech::{Engines, languages},
    store::{self, NewSession, QueueLimits, SEGMENT_PAGE, Store, recent_cutoff},
    telemetry::{
        catalogue::{self, UPLOAD_REFUSALS},
        lines,
        traces::Step,
    },
    turns::Caller,
};
use crate::model::{
    AnotherChoice, Channels, EngineId, EngineInfo, Media, Session, SessionDetail, SessionId, Status, Timestamp, Title,
    Track, Transcript,
    page::ModelsInfo,
    playback::{CopyForm, CopyState},
    upload::UploadId,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time;
use tracing::Instrument;
use uuid::Uuid;

/// The first and the longest pause between tries to remove a recording that never became a session, while the storage
/// or the store fails.
const MIN_RETRY_PAUSE: Duration = Duration::from_secs(1);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);

/// The sessions of a node: the use cases and the parts that they need. Routes, pages and workers share one.
pub struct Sessions {
    pub store: Store,
    pub media: Recordings,
    pub bus: Bus,
    pub engines: Engines,
    pub decoders: Decoders,
    /// Copies of recordings that browsers can't play.
    pub copies: Copies,
    pub disk: DiskWatch,
    /// The cluster that this node belongs to, with the place of its recordings.
    pub cluster: Arc<Cluster>,
    /// The nodes that are running.
    pub registry: Registry,
    /// What this node counts for the figures.
    pub hours: Hours,
    /// The sessions that workers outside Hark report on.
    pub outside: Arc<Outside>,
    /// Decides how callers count towards shared limits.
    pub shares: Shares,
    pub limits: LimitConfig,
    pub queue: QueueLimits,
    pub kept: KeepConfig,
}

/// The options that come with a recording, as they were sent.
#[derive(Clone, Debug, Default)]
pub struct UploadOptions {
    pub title: Option<String>,
    pub language: Option<String>,
    pub engine: Option<String>,
    pub vocabulary: Option<String>,
    pub channels: Option<String>,
    pub track: Option<String>,
}

/// A recording that was received whole, and what is known of it.
pub struct Incoming {
    /// The id of the session that it will become.
    pub id: SessionId,
    pub upload: Upload,
    pub file_name: String,
    /// The upload in parts that ends with this, if it came in parts.
    pub parts: Option<UploadId>,
}

/// Upload options that were checked.
#[derive(Clone, Debug)]
pub struct CheckedOptions {
    title: Option<Title>,
    language: Option<String>,
    engine: EngineId,
    vocabulary: Option<String>,
    channels: Channels,
    track: Option<Track>,
}

/// The longest vocabulary, in characters. Whisper reads at most 224 tokens of it, which are fewer.
const MAX_VOCABULARY: usize = 1000;

/// Checks names and terms for an engine: line breaks become commas.
fn vocabulary(text: &str) -> Result<String, Error> {
    let terms = text.split(['\n', ',']).map(|term| term.split_whitespace().collect::<Vec<_>>().join(" "));
    let text = terms.filter(|term| !term.is_empty()).collect::<Vec<_>>().join(", ");
    match text.chars().count() {
        n if n > MAX_VOCABULARY => Err(Error::BadRequest(format!(
            "The names and terms have {n} characters, at most {MAX_VOCABULARY} are possible; leave some out."
        ))),
        _ => Ok(text.replace(char::is_control, "")),
    }
}

/// How channels are heard together with a track: as `asked`, or `otherwise` if that isn't said.
fn combine(track: Option<Track>, asked: Option<Channels>, otherwise: Channels) -> Result<Channels, Error> {
    match (track, asked) {
        (Some(Track::Mix), Some(Channels::Split)) => Err(Error::BadRequest(
            "Tracks that are mixed can't be transcribed channel by channel. Choose one track by its number, or leave \
             'channels' out."
                .to_owned(),
        )),
        (Some(Track::Mix), _) => Ok(Channels::Mix),
        (_, asked) => Ok(asked.unwrap_or(otherwise)),
    }
}

impl Sessions {
    /// Whether the owner, coming from this address, counts as a newcomer.
    pub async fn standing(&self, owner: &Owner, address: Option<ClientAddress>) -> Standing {
        self.shares.standing(&self.store, owner, ClientAddress::or_unknown(address)).await
    }

    /// The same as of some seconds ago, which is enough for a stream.
    pub async fn stream_standing(&self, owner: &Owner, address: Option<ClientAddress>) -> Standing {
        self.shares.stream_standing(&self.store, owner, ClientAddress::or_unknown(address)).await
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
        let lines = session.status.lines();
        let mut segments = Vec::with_capacity(lines as usize);
        // Reads only the segments that the status counts, so that both agree while more are being added.
        while let wanted @ 1.. = lines - segments.len() as u32 {
            let from = session.status.first_segment + segments.len() as u32;
            let page = self.store.segments(id, from, wanted.min(SEGMENT_PAGE)).await?;
            if page.is_empty() {
                break;
            }
            segments.extend(page);
        }
        Ok(Transcript { session, segments })
    }

    /// Everything that the session's page shows. The times of words are left out, because they would be most of the
    /// bytes.
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
        let language_name = transcript.session.language.as_deref().and_then(languages::name).map(str::to_owned);
        Ok(SessionDetail { transcript, language_name, waveform, stages })
    }

    /// The shape of a session's recording; empty until it has been decoded.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn waveform(&self, owner: &Owner, id: SessionId) -> Result<Vec<u8>, Error> {
        self.get(owner, id).await?;
        Ok(self.store.waveform(id).await?.unwrap_or_default())
    }

    /// Begins to make a copy of a session's recording that browsers can play, unless it is there. Returns how far it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such session of this owner; otherwise if no copy can be made.
    pub async fn make_copy(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: SessionId,
        form: CopyForm,
    ) -> Result<CopyState, Error> {
        let session = self.with_recording(owner, id).await?;
        if self.copies.find(&session, form).await?.is_some() {
            return Ok(CopyState::Ready);
        }
        let caller = self.standing(owner, address).await.caller(owner);
        self.copies.ask(owner, caller, &session, form)
    }

    /// Returns a copy of a session's recording that browsers can play, once it is made, and the session.
    ///
    /// # Errors
    /// As [`Self::make_copy`], and [`Error::CopyUnderWay`] if it takes long.
    pub async fn copy(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: SessionId,
        form: CopyForm,
    ) -> Result<(Session, StoredCopy), Error> {
        let session = self.with_recording(owner, id).await?;
        if let Some(copy) = self.copies.find(&session, form).await? {
            return Ok((session, copy));
        }
        let caller = self.standing(owner, address).await.caller(owner);
        let copy = self.copies.wait(owner, caller, &session, form).await?;
        Ok((session, copy))
    }

    async fn with_recording(&self, owner: &Owner, id: SessionId) -> Result<Session, Error> {
        let session = self.get(owner, id).await?;
        if session.media.bytes == 0 { Err(Error::NoRecording) } else { Ok(session) }
    }

    /// The statuses that a watcher of all the owner's sessions needs.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn statuses(&self, owner: &Owner) -> Result<Vec<Status>, Error> {
        Ok(self.store.statuses(owner, recent_cutoff()).await?)
    }

    /// Lists the engines that uploads may choose, with the reason for each that isn't available.
    #[must_use]
    pub fn engine_list(&self) -> Vec<EngineInfo> {
        self.registry.engines(registry::engines_of(&self.engines))
    }

    /// Whisper's models on this node.
    ///
    /// # Errors
    /// If reading their folder panicked.
    pub async fn models(self: &Arc<Self>) -> Result<ModelsInfo, Error> {
        let sessions = Arc::clone(self);
        let models = tokio::task::spawn_blocking(move || sessions.engines.models()).await;
        models.map_err(|e| Error::Internal(e.to_string()))
    }

    /// Checks the options of an upload before the recording is received.
    ///
    /// # Errors
    /// If the title, the language, the track, the channels or the engine isn't valid, the engine isn't available or doesn't
    /// know the language.
    pub fn check_options(&self, options: &UploadOptions) -> Result<CheckedOptions, Error> {
        let non_empty =
            |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        let title = non_empty(&options.title).map(|t| Title::new(&t)).transpose()?;
        let language = language(options.language.as_deref())?;
        let engine = match non_empty(&options.engine) {
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
        let engines = self.engine_list();
        let chosen = engines.iter().find(|info| info.id == engine).ok_or_else(|| Error::EngineUnavailable {
            reason: format!("The engine {engine} is not part of this build."),
            install: None,
        })?;
        if !chosen.available {
            let (reason, install) = (chosen.reason.clone().unwrap_or_default(), chosen.install.clone());
            return Err(Error::EngineUnavailable { reason, install });
        }
        if let Some(language) = &language {
            check_language(chosen, &engines, language)?;
        }
        let vocabulary = non_empty(&options.vocabulary)
            .map(|text| vocabulary(&text))
            .transpose()?
            .or_else(|| self.engines.default_vocabulary().map(str::to_owned));
        let channels = non_empty(&options.channels).map(|name| name.parse()).transpose()?;
        let track = non_empty(&options.track).map(|name| name.parse()).transpose()?;
        let channels = combine(track, channels, self.engines.default_channels())?;
        Ok(CheckedOptions { title, language, engine, vocabulary, channels, track })
    }

    /// Checks the options that came before the recording; others may follow it.
    ///
    /// # Errors
    /// As [`Sessions::check_options`].
    pub fn check_options_so_far(&self, options: &UploadOptions) -> Result<(), Error> {
        let mut options = options.clone();
        if options.engine.is_none() {
            // Which engine must know the language isn't certain yet.
            language(options.language.take().as_deref())?;
        }
        self.check_options(&options).map(drop)
    }

    /// Checks that recordings can be stored, before one is received. Asks the storage only if it failed when it was asked
    /// last.
    ///
    /// # Errors
    /// [`Error::Storage`] if they can't.
    pub async fn check_location(&self) -> Result<(), Error> {
        if self.cluster.problem().is_none() {
            return Ok(());
        }
        self.cluster.check(&self.media).await.map_or(Ok(()), |problem| Err(Error::Storage(problem)))
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

    /// Checks whether another recording of this owner, of `size` bytes if that is known, may be queued and kept. Called
    /// before the recording is received; [`Sessions::create`] checks again.
    ///
    /// # Errors
    /// [`Error::QueueFull`] or [`Error::Quota`] if not.
    pub async fn check_share(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        size: Option<u64>,
    ) -> Result<(), Error> {
        let checked = self.store.unless_away(self.check_limits(owner, address, size)).await;
        checked.unwrap_or(Err(Error::DatabaseAway))
    }

    async fn check_limits(
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
        let address = self.address_hash(owner, address).await;
        match self.store.queue_full(owner, address.as_deref(), limits, Timestamp::now()).await? {
            Some(full) => Err(full.into()),
            None => Ok(()),
        }
    }

    /// The hash of a newcomer's address, by which its sessions in the queue are counted; none for an owner with
    /// history.
    async fn address_hash(&self, owner: &Owner, address: Option<ClientAddress>) -> Option<String> {
        self.shares.address_hash(self.standing(owner, address).await)
    }

    /// Counts a recording that was refused, and logs it.
    pub fn count_refusal(&self, owner: &Owner, error: &Error) {
        // An upload that broke off, or failed by an error of the server, wasn't refused.
        if matches!(error, Error::BrokenUpload) || error.code() == "internal" {
            return;
        }
        let reason = catalogue::listed(UPLOAD_REFUSALS, error.code());
        metrics::counter!("hark_uploads_refused_total", "reason" => reason).increment(1);
        if lines::REFUSED_UPLOADS.admit() {
            // Not the message, which may hold what the client has sent.
            let (code, owner) = (error.code(), owner.pseudonym());
            tracing::info!(code, owner, "a recording was refused ({code})");
        }
    }

    /// Creates the scratch file for a recording, in the room that was promised for it.
    ///
    /// # Errors
    /// If the file can't be created.
    pub fn receive(&self, room: UploadRoom) -> Result<(SessionId, Upload), Error> {
        let id = SessionId(Uuid::now_v7());
        Ok((id, self.media.receive(id, room)?))
    }

    /// Creates a session for a received recording and queues it.
    ///
    /// # Errors
    /// If the recording can't be read as audio, is too long, can't be stored, or the queue or the owner's quota has
    /// filled up; it is removed then.
    pub async fn create(
        self: &Arc<Self>,
        owner: &Owner,
        address: Option<ClientAddress>,
        incoming: Incoming,
        options: CheckedOptions,
    ) -> Result<Session, Error> {
        let standing = self.standing(owner, address).await;
        let (address, caller) = (self.shares.address_hash(standing), standing.caller(owner));
        let (sessions, owner) = (Arc::clone(self), owner.clone());
        let Incoming { id, upload, file_name, parts } = incoming;
        // Runs in a task of its own, so that it ends with a session or with nothing, also if a page stops waiting for it because
        // the database is away.
        let creating = async move {
            let received = upload.finish().await?;
            let probed = sessions.probe(&owner, caller, id, &received, &file_name, options).await?;
            let new = NewSession { address, upload: parts, ..probed };
            let created = sessions.create_received(&new, &received).await;
            if let Err((error, true)) = created {
                tokio::spawn(remove_orphan(sessions, id, received));
                return Err(error);
            }
            created.map_err(|(error, _)| error)
        };
        tokio::spawn(creating.in_current_span())
            .await
            .unwrap_or_else(|e| Err(Error::Internal(format!("the task that creates a session failed: {e}"))))
    }

    /// An error comes with a flag that says whether the recording may be in the storage.
    async fn create_received(&self, new: &NewSession, received: &Received) -> Result<Session, (Error, bool)> {
        let id = new.id;
        // Where nothing is mounted, the recording would be stored where no other node finds it.
        if let Some(problem) = self.cluster.check(&self.media).await {
            return Err((Error::Storage(problem), false));
        }
        let mut step = Step::begin(id, "keep");
        self.media.keep(id, received).await.map_err(|e| (e.into(), true))?;
        step.end();
        let adding = self.store.enqueue(new, &self.queue, Timestamp::now());
        let added = self.store.unless_away(adding).await.ok_or((Error::DatabaseAway, true))?;
        let (session, event) = added.map_err(|e| (e.into(), true))?;
        let bytes = received.bytes;
        metrics::counter!("hark_sessions_created_total").increment(1);
        metrics::counter!("hark_upload_bytes_total").increment(bytes);
        tracing::info!(session_id = %id, bytes, engine = %session.engine, "session {id} was received");
        self.bus.publish(&event);
        Ok(session)
    }

    async fn probe(
        &self,
        owner: &Owner,
        caller: Caller,
        id: SessionId,
        received: &Received,
        file_name: &str,
        options: CheckedOptions,
    ) -> Result<NewSession, Error> {
        let mut step = Step::begin(id, "probe");
        let limits = audio::Limits { max_duration: self.limits.max_duration };
        let info = self.decoders.probe(received.path(), limits, caller).await?;
        if let Some(Track::Number(wanted)) = options.track.filter(|track| track.missing(info.tracks).is_some()) {
            return Err(AudioError::NoSuchTrack { wanted, tracks: info.tracks }.into());
        }
        step.end();
        // A line break becomes a space; other control characters would only harm whoever prints the name.
        let file_name = file_name.replace("\r\n", " ").replace(['\r', '\n', '\t'], " ");
        let file_name: String = file_name.chars().filter(|c| !c.is_control()).take(255).collect();
        Ok(NewSession {
            id,
            owner: owner.clone(),
            title: options.title.unwrap_or_else(|| Title::from_file_name(&file_name)),
            engine: options.engine,
            language: options.language,
            vocabulary: options.vocabulary,
            channels: options.channels,
            track: options.track,
            media: Media {
                file_name,
                bytes: received.bytes,
                format: info.format,
                codec: info.codec,
                sample_rate: info.sample_rate,
                channels: info.channels,
                tracks: info.tracks,
            },
            duration_total: info.duration,
            lease_until: None,
            address: None,
            recording_hash: received.hash.clone(),
            upload: None,
        })
    }

    /// Removes the recordings that an earlier run of this node received and that never became sessions, in the
    /// background.
    ///
    /// # Errors
    /// If the scratch folder can't be read.
    pub fn remove_interrupted_uploads(self: &Arc<Self>) -> std::io::Result<()> {
        for (id, received) in self.media.interrupted()? {
            tracing::info!(session_id = %id, "the upload of session {id} was interrupted by the last stop; removing what is left of it");
            tokio::spawn(remove_orphan(Arc::clone(self), id, received));
        }
        Ok(())
    }

    /// Creates a session for the bundled sample.
    ///
    /// # Errors
    /// As [`Sessions::check_options`] and [`Sessions::create`].
    pub async fn create_sample(
        self: &Arc<Self>,
        owner: &Owner,
        address: Option<ClientAddress>,
    ) -> Result<Session, Error> {
        let began = Instant::now();
        let created = self.enqueue_sample(owner, address).await;
        match &created {
            Ok(session) => Step::first(session.id, "upload", began).number("hark.bytes", session.media.bytes),
            Err(error) => self.count_refusal(owner, error),
        }
        created
    }

    async fn enqueue_sample(self: &Arc<Self>, owner: &Owner, address: Option<ClientAddress>) -> Result<Session, Error> {
        const SAMPLE: &[u8] = include_bytes!("../../public/sample.mp3");
        let options = self
            .check_options(&UploadOptions { title: Some("Sample recording".to_owned()), ..UploadOptions::default() })?;
        let room = self.reserve(Some(SAMPLE.len() as u64))?;
        self.check_share(owner, address, Some(SAMPLE.len() as u64)).await?;
        let (id, mut upload) = self.receive(room)?;
        upload.write(SAMPLE).await?;
        let incoming = Incoming { id, upload, file_name: "sample.mp3".to_owned(), parts: None };
        self.create(owner, address, incoming, options).await
    }

    /// Cancels a session. One that has ended stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn cancel(&self, owner: &Owner, id: SessionId) -> Result<Session, Error> {
        let _paused = self.outside.pause_reports(id).await?;
        let changed = self.store.cancel(owner, id, Timestamp::now()).await?;
        self.announce(owner, id, changed, "was cancelled").await
    }

    /// Queues a failed or cancelled session again. Any other stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner; [`Error::Conflict`] if its worker is outside Hark, or if its
    /// recording is the reason why it failed; [`Error::QueueFull`] if too many wait.
    pub async fn retry(&self, owner: &Owner, address: Option<ClientAddress>, id: SessionId) -> Result<Session, Error> {
        self.check_can_be_queued(owner, id).await?;
        if let Some(failure) = self.get(owner, id).await?.status.error.filter(|failure| !failure.may_retry()) {
            let message = format!("Another attempt would end in the same way. {}", failure.message);
            return Err(Error::Conflict("final_failure", message));
        }
        self.queue_again(owner, address, id, Some(&self.queue)).await
    }

    async fn check_can_be_queued(&self, owner: &Owner, id: SessionId) -> Result<(), Error> {
        let session = self.get(owner, id).await?;
        // A session that is due to be deleted counts as deleted: its recording may be removed at any moment.
        if retention::is_due(self.kept.keep_days, session.finished_at, Timestamp::now()) {
            return Err(Error::NotFound);
        }
        if !session.is_own() {
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
        let address = self.address_hash(owner, address).await;
        let changed = self.store.retry(owner, id, address.as_deref(), limits, Timestamp::now()).await?;
        self.announce(owner, id, changed, "was queued again").await
    }

    /// Stops a session that seems stuck, and queues it again; it continues after its last segment. One that has ended
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
        self.check_can_be_queued(owner, id).await?;
        let stopped = self.store.cancel(owner, id, Timestamp::now()).await?;
        // A session that waited or ran was admitted before, so it doesn't lose its work to a full queue.
        let limits = if stopped.is_some() { None } else { Some(&self.queue) };
        self.announce(owner, id, stopped, "was cancelled").await?;
        self.queue_again(owner, address, id, limits).await
    }

    /// Transcribes a session's recording anew with another choice. A running one is stopped first. The transcript that is
    /// there is deleted.
    ///
    /// # Errors
    /// As [`Sessions::retry`], and if the recording doesn't have the track, or the choice contradicts itself.
    pub async fn transcribe_again(
        &self,
        owner: &Owner,
        address: Option<ClientAddress>,
        id: SessionId,
        choice: &AnotherChoice,
    ) -> Result<Session, Error> {
        self.check_can_be_queued(owner, id).await?;
        let session = self.get(owner, id).await?;
        let track = choice.track.or(session.track);
        // A choice of the track is newer than that of the channels, unless both are made now.
        let channels = combine(track, choice.channels, session.channels)?;
        let tracks = session.media.tracks;
        if let Some(Track::Number(wanted)) = track.filter(|track| track.missing(tracks).is_some()) {
            return Err(AudioError::NoSuchTrack { wanted, tracks }.into());
        }
        let stopped = self.store.cancel(owner, id, Timestamp::now()).await?;
        let limits = if stopped.is_some() { None } else { Some(&self.queue) };
        self.announce(owner, id, stopped, "was cancelled").await?;
        let address = self.address_hash(owner, address).await;
        let choice = (track, channels);
        let changed = self.store.replace(owner, id, choice, address.as_deref(), limits, Timestamp::now()).await?;
        let is_replaced = changed.is_some();
        let announced = self.announce(owner, id, changed, "is transcribed anew").await;
        if is_replaced && track != session.track {
            // One may be stored later. Whoever stores it then finds that another track is chosen.
            let copies = CopyForm::ALL.map(|form| CopyName::of(&session, form));
            self.warn_of_copies(id, self.media.remove_copies(&copies).await);
        }
        announced
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
        self.bus.publish(&Event::renamed(owner.clone(), id, title));
        self.get(owner, id).await
    }

    /// Deletes a session with its recording and segments; a running one is cancelled first. Works on a full disk too,
    /// because deleting is what makes room.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none of this owner.
    pub async fn delete(&self, owner: &Owner, id: SessionId) -> Result<(), Error> {
        let (store, disk) = (&self.store, &self.disk);
        let _paused = disk.make_room(store, Error::is_full_disk, || self.outside.pause_reports(id)).await?;
        let now = Timestamp::now();
        if let Some(event) = disk.make_room(store, store::is_full, || store.cancel(owner, id, now)).await? {
            self.bus.publish(&event);
        }
        let session = self.get(owner, id).await?;
        let copies = CopyName::all(id, session.track, session.media.tracks);
        // The recording is removed first, so that none is left without a session: if this fails, the user can try
        // again.
        self.media.remove(id, &copies).await?;
        if !disk.make_room(store, store::is_full, || store.delete(owner, id)).await? {
            return Err(Error::NotFound);
        }
        // One may have been stored since. Whoever stores one later finds that the session is gone.
        self.warn_of_copies(id, self.media.remove_copies(&copies).await);
        self.bus.publish(&Event::deleted(owner.clone(), id));
        tracing::info!(session_id = %id, "session {id} was deleted");
        Ok(())
    }

    /// Copies that could not be removed are no reason to fail: they are removed when they are old.
    fn warn_of_copies(&self, id: SessionId, removed: Result<(), MediaError>) {
        if let Err(error) = removed {
            tracing::warn!(session_id = %id, %error, "a playable copy of session {id} may be left behind");
        }
    }
}

/// Removes a recording that was received and maybe stored, unless it became a session after all. Tries until it
/// succeeds; the emptied scratch file stays meanwhile, so that the next start of the node continues.
async fn remove_orphan(sessions: Arc<Sessions>, id: SessionId, received: Received) {
    received.empty();
    let mut pause = MIN_RETRY_PAUSE;
    loop {
        let done = match sessions.store.exists(id).await {
            Ok(true) => return,
            Ok(false) => sessions.media.remove(id, &[]).await.map_err(Error::from),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(session_id = %id, %error, "the recording of session {id}, which was never created, could not be removed; trying again")
            }
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY_PAUSE);
    }
}
/// Checks whether an engine, which is one of `engines`, knows a language.
fn check_language(chosen: &EngineInfo, engines: &[EngineInfo], tag: &str) -> Result<(), Error> {
    if chosen.languages.is_none() {
        return Ok(());
    }
    let (Some(base), Some(name)) = (languages::base(tag), languages::name(tag)) else {
        return Err(Error::UnknownLanguage(format!(
            "{} doesn't know the language '{tag}'. Leave it out, so that the engine decides, or choose another engine.",
            chosen.name
        )));
    };
    match chosen.unknown_language(engines, base, name) {
        Some(message) => Err(Error::UnknownLanguage(message)),
        None => Ok(()),
    }
}
