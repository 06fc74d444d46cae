//! Workers outside Hark, which publish over HTTP or Redis: their reports are checked like any input, go to the watchers at
//! once, and reach the store at every change of stage and otherwise every few seconds; over a shared database at once,
//! for the next report may reach another node. Called by `http::outside`; [`listen`] takes what the bus hears.

mod unstored;

use super::{
    bus::{self, Foreign, Inbox, Rejection},
    error::Error,
    event::Event,
    owner::Owner,
    sessions::Sessions,
    state::AppState,
    store::{NewSession, Store},
    telemetry,
};
use crate::model::{
    EngineId, Failure, Media, Segment, Session, SessionId, Stage, State, Status, Timestamp, Title, Word,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time,
};
use tokio_util::sync::CancellationToken;
use unstored::{Unstored, Waiting};
use utoipa::ToSchema;
use uuid::Uuid;

/// How long a status that is only another step may wait to be stored, in seconds. The hub has it meanwhile.
const STORE_AFTER: f64 = 30.0;
/// A session that hasn't been reported on for this long is read from the store again, in seconds.
const FORGET_AFTER: f64 = 60.0;
/// The same for what is heard through the bus.
const STORE_HEARD: Duration = Duration::from_secs(1);
/// How often a report without a version is tried again when another node was faster.
const TRIES: u32 = 5;
/// How many statuses are stored in one go, so that other writers get their turn.
const BATCH: usize = 200;
/// Longest text of a segment or a message, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// What a new session of an outside worker is made of.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Announcement {
    /// 1 to 200 characters.
    title: Option<String>,
    /// Seconds of audio in all, if known.
    duration_total: Option<f64>,
    /// Whose session it is: the value that follows the signature in the owner's cookie. The caller's own if left out.
    owner: Option<String>,
    /// A BCP 47 tag such as `en`.
    language: Option<String>,
}

/// A status as an outside worker reports it. What is left out stays as it was, except `progress`, `estimated_completion`
/// and `processing_speed`, which become unknown.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Report {
    /// Above that of every report before; one more than the last if left out.
    version: Option<u64>,
    /// `processing` if left out.
    status: Option<State>,
    stage: Option<Stage>,
    /// 0 to 100; never falls; 100 only in `completed`; null where nothing honest can be said.
    progress: Option<f64>,
    message: Option<String>,
    duration_processed: Option<f64>,
    duration_total: Option<f64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    estimated_completion: Option<Timestamp>,
    processing_speed: Option<f64>,
    /// Why it failed; only in `failed`.
    error: Option<Failure>,
}

/// A segment as an outside worker sends it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NewSegment {
    /// The number of segments before it.
    index: u32,
    start: f64,
    end: f64,
    text: String,
    confidence: Option<f32>,
    #[serde(default)]
    words: Vec<Word>,
}

/// What this node knows of the sessions of outside workers that report to it.
#[derive(Debug)]
pub struct Outside {
    /// Whether other nodes may take in reports on the same sessions.
    shared: bool,
    sessions: Mutex<HashMap<SessionId, Arc<AsyncMutex<Live>>>>,
}

/// A session that is reported on.
#[derive(Debug)]
pub struct Live {
    owner: Owner,
    status: Status,
    /// When it was last stored, and whether it has changed since.
    stored: Timestamp,
    unsaved: bool,
    /// Taken out: read it from the store again.
    gone: bool,
}

impl Outside {
    /// Nothing is known yet. `shared`: whether other nodes may take in reports on the same sessions.
    #[must_use]
    pub fn new(shared: bool) -> Self {
        Self { shared, sessions: Mutex::default() }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<AsyncMutex<Live>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session to report on, locked: reports come one after another.
    async fn live(&self, store: &Store, id: SessionId) -> Result<OwnedMutexGuard<Live>, Error> {
        loop {
            let known = self.table().get(&id).cloned();
            let live = match known {
                Some(live) => live,
                None => {
                    let (session, owner) = store.any(id).await?.ok_or(Error::NotFound)?;
                    if session.engine != EngineId::External {
                        return Err(Error::Conflict(
                            "not_outside",
                            "Hark's own workers transcribe this session.".to_owned(),
                        ));
                    }
                    let stored = session.status.timestamp;
                    let live = Live { owner, status: session.status, stored, unsaved: false, gone: false };
                    Arc::clone(self.table().entry(id).or_insert_with(|| Arc::new(AsyncMutex::new(live))))
                }
            };
            let mut live = live.lock_owned().await;
            if live.gone {
                continue;
            }
            if self.shared {
                // Another node may have taken in more than this one knows.
                let (session, owner) = store.any(id).await?.ok_or(Error::NotFound)?;
                live.owner = owner;
                live.status = session.status;
            }
            return Ok(live);
        }
    }

    /// Stores what a session's worker reported last and holds back further reports until the guard is dropped; they
    /// then look into the store again. For changes that don't come from the worker.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn hold_still(&self, store: &Store, id: SessionId) -> Result<Option<OwnedMutexGuard<Live>>, Error> {
        let Some(live) = self.table().get(&id).cloned() else { return Ok(None) };
        let mut live = live.lock_owned().await;
        if live.unsaved {
            store.report(&live.status, live.stored.plus_seconds(FORGET_AFTER)).await?;
            live.unsaved = false;
        }
        live.gone = true;
        self.table().remove(&id);
        Ok(Some(live))
    }

    /// Stores what has waited long enough, or, with `all`, everything; forgets what is no longer reported on.
    ///
    /// # Errors
    /// If the database fails; what couldn't be stored is kept for the next time.
    pub async fn store_steps(&self, store: &Store, silence_secs: u32, all: bool) -> Result<(), sqlx::Error> {
        let now = Timestamp::now();
        // Storing a step also extends the lease, which must not run out before.
        let after = STORE_AFTER.min(f64::from(silence_secs) / 3.0);
        let sessions: Vec<(SessionId, Arc<AsyncMutex<Live>>)> =
            self.table().iter().map(|(id, live)| (*id, Arc::clone(live))).collect();
        let mut due = Vec::new();
        for (n, (id, live)) in sessions.into_iter().enumerate() {
            if n % 64 == 63 {
                tokio::task::yield_now().await; // reports go first
            }
            // One that is being reported on right now has its turn next time.
            let live = if all { Some(live.lock_owned().await) } else { live.try_lock_owned().ok() };
            let Some(mut live) = live else { continue };
            if live.unsaved && (all || now.seconds_since(live.stored) >= after) {
                due.push(live);
            } else if !live.unsaved && now.seconds_since(live.status.timestamp) >= FORGET_AFTER {
                live.gone = true;
                self.table().remove(&id);
            }
            if due.len() == BATCH {
                write(store, &mut due, now, silence_secs).await?;
            }
        }
        write(store, &mut due, now, silence_secs).await
    }
}

async fn write(
    store: &Store,
    due: &mut Vec<OwnedMutexGuard<Live>>,
    now: Timestamp,
    silence_secs: u32,
) -> Result<(), sqlx::Error> {
    if due.is_empty() {
        return Ok(());
    }
    let statuses: Vec<Status> = due.iter().map(|live| live.status.clone()).collect();
    store.report_steps(&statuses, now.plus_seconds(f64::from(silence_secs))).await?;
    for mut live in due.drain(..) {
        live.unsaved = false;
        live.stored = now;
    }
    Ok(())
}

impl Sessions<'_> {
    fn silence(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(f64::from(self.state.outside_config.worker_silence_secs))
    }

    /// Makes a session that an outside worker will report on.
    ///
    /// # Errors
    /// If the title, the length, the language or the owner can't be.
    pub async fn announce_outside(&self, caller: &Owner, new: Announcement) -> Result<Session, Error> {
        let owner = match new.owner.as_deref().map(str::trim) {
            None | Some("") => caller.clone(),
            Some(id) if id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) => {
                Owner::from_store(id.to_owned())
            }
            Some(_) => {
                return Err(Error::BadRequest(
                    "The owner must be 1 to 64 letters, digits, hyphens, dots or underscores.".to_owned(),
                ));
            }
        };
        if let Some(seconds) = new.duration_total {
            duration("duration_total", seconds)?;
        }
        let title = match new.title.as_deref().map(str::trim).filter(|t| !t.is_empty()) {
            Some(title) => Title::new(title)?,
            None => Title::from_file_name("Recording"),
        };
        let language = super::sessions::language(new.language.as_deref())?;
        let now = Timestamp::now();
        let new = NewSession {
            id: SessionId(Uuid::now_v7()),
            owner,
            title,
            engine: EngineId::External,
            language,
            media: Media::default(),
            duration_total: new.duration_total,
            lease_until: Some(self.silence(now)),
            address: None,
        };
        let (session, event) = self.state.store.insert(&new, now).await?;
        if self.state.bus.is_connected().is_some() {
            // Its worker may go on over Redis: somebody must listen before there are watchers.
            self.state.hub.hold(session.id);
            self.state.hub.learn(&event.owner, &session.status);
        }
        metrics::counter!("hark_sessions_created_total").increment(1);
        tracing::debug!(session_id = %session.id, "session {} was announced by an outside worker", session.id);
        self.state.bus.publish(&event);
        Ok(session)
    }

    /// Takes in the status that an outside worker reports, and tells the watchers. Returns the version it got.
    ///
    /// # Errors
    /// If the report can't be true, is out of date, or the session has ended.
    pub async fn report(&self, id: SessionId, report: Report) -> Result<u64, Error> {
        let tries = if report.version.is_none() { TRIES } else { 1 };
        for _ in 1..tries {
            match self.report_once(id, report.clone()).await {
                // Another node was faster; the next version is another now.
                Err(Error::Conflict("changed", _)) => {}
                done => return done,
            }
        }
        self.report_once(id, report).await
    }

    async fn report_once(&self, id: SessionId, report: Report) -> Result<u64, Error> {
        let outside = &self.state.outside;
        let mut live = outside.live(&self.state.store, id).await?;
        let now = Timestamp::now();
        let status = reported(&live.status, report, now)?;
        let known = &live.status;
        if outside.shared || status.changes(known) {
            if !self.state.store.report(&status, self.silence(now)).await? {
                live.gone = true;
                outside.table().remove(&id);
                return Err(Error::Conflict(
                    "changed",
                    "The session was changed elsewhere; look at it again.".to_owned(),
                ));
            }
            live.stored = now;
            live.unsaved = false;
        } else {
            live.unsaved = true;
        }
        live.status = status;
        let version = live.status.version;
        self.state.bus.publish(&Event::status(live.owner.clone(), live.status.clone()));
        if live.status.state.is_terminal() {
            live.gone = true;
            outside.table().remove(&id);
        }
        Ok(version)
    }

    /// Takes in segments that an outside worker sends, and tells the watchers. Those that are there already are
    /// ignored. Returns how many there are now.
    ///
    /// # Errors
    /// If the segments can't be true, leave a hole, or the session has ended.
    pub async fn report_segments(&self, id: SessionId, segments: Vec<NewSegment>) -> Result<u32, Error> {
        let mut live = self.state.outside.live(&self.state.store, id).await?;
        not_ended(&live.status)?;
        let known = live.status.segments;
        let mut fresh = Vec::new();
        for segment in segments {
            let expected = known + fresh.len() as u32;
            if segment.index < expected {
                continue; // sent again, perhaps because the answer got lost
            }
            if segment.index > expected {
                return Err(Error::Conflict(
                    "segment_hole",
                    format!(
                        "The next segment has index {expected}, not {}. Send those before it first.",
                        segment.index
                    ),
                ));
            }
            fresh.push(checked(segment)?);
        }
        if fresh.is_empty() {
            return Ok(known);
        }
        let now = Timestamp::now();
        if !self.state.store.report_segments(id, known, &fresh, self.silence(now)).await? {
            live.gone = true;
            self.state.outside.table().remove(&id);
            return Err(Error::Conflict("changed", "The session was changed elsewhere; look at it again.".to_owned()));
        }
        live.status.segments += fresh.len() as u32;
        for segment in &fresh {
            self.state.bus.publish(&Event::bare_segment(live.owner.clone(), id, segment));
        }
        Ok(live.status.segments)
    }
}

/// Takes in what outside workers publish over Redis: shows it to this node's watchers at once, and stores it. Other nodes
/// that listen do the same, and the store takes each version and each segment once. Runs until `stop`.
pub async fn listen(state: AppState, heard: Arc<Inbox>, stop: CancellationToken) {
    let unstored = Unstored::default();
    let take = async {
        loop {
            let message = heard.take().await;
            match state.sessions().take_heard(&message, &unstored).await {
                Ok(true) => bus::count(Ok(())),
                Ok(false) => {}
                Err(rejection) => bus::count(Err(rejection)),
            }
            // However much comes, storing and `stop` get their turn.
            tokio::task::consume_budget().await;
        }
    };
    // Beside it, so that nobody who watches waits for the database.
    let store = async {
        let mut looks = time::interval(STORE_HEARD);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = unstored.urged() => store_heard(&state, &unstored, false).await,
                _ = looks.tick() => store_heard(&state, &unstored, true).await,
            }
        }
    };
    stop.run_until_cancelled(async { tokio::join!(take, store) }).await;
    store_heard(&state, &unstored, true).await;
}

/// Stores what was heard: all of it, or only what mustn't wait. What can't be stored stays for the next time.
async fn store_heard(state: &AppState, unstored: &Unstored, all: bool) {
    let until = state.sessions().silence(Timestamp::now());
    let (changes, steps): (Vec<Waiting>, Vec<Waiting>) = unstored.due(all).into_iter().partition(|w| w.urgent);
    let stored = async {
        for Waiting { status, .. } in changes {
            if state.store.report(&status, until).await? && status.state.is_terminal() {
                telemetry::count_ended(status.state);
            }
            unstored.done(&status);
        }
        let steps: Vec<Status> = steps.into_iter().map(|step| step.status).collect();
        for batch in steps.chunks(BATCH) {
            state.store.report_steps(batch, until).await?;
            batch.iter().for_each(|status| unstored.done(status));
        }
        Ok::<(), sqlx::Error>(())
    };
    if let Err(error) = stored.await {
        tracing::error!(%error, "what outside workers published could not be stored; trying again");
    }
}

/// The part of a message that tells which kind it is.
#[derive(Deserialize)]
struct Heard {
    index: Option<u32>,
    timestamp: Option<Timestamp>,
    attempt: Option<u32>,
}

impl Sessions<'_> {
    /// Whether it was news. Rejects what can't be.
    async fn take_heard(&self, message: &Foreign, unstored: &Unstored) -> Result<bool, Rejection> {
        fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Rejection> {
            serde_json::from_slice(payload).map_err(|_| Rejection::Malformed)
        }
        let id = message.id;
        let head: Heard = read(&message.payload)?;
        let (owner, mut known) = match self.state.bus.newest(id) {
            Some(known) => known,
            None => self.stored(id).await?,
        };
        if let Some(newer) = unstored.newest(id).filter(|newer| newer.version > known.version) {
            known = Status { segments: known.segments, ..newer };
        }
        if head.index.is_some() {
            return self.take_segment(owner, &known, read(&message.payload)?).await;
        }
        let report: Report = read(&message.payload)?;
        let version = report.version.ok_or(Rejection::Malformed)?;
        if version == known.version {
            return Ok(false); // what this node, or one that stored it before, has shown already
        }
        let now = Timestamp::now();
        let mut status = reported(&known, report, now).map_err(|error| rejection(&error))?;
        // Also what another node of Hark says of it comes this way, and must look alike on all.
        status.timestamp = head.timestamp.unwrap_or(now);
        status.attempt = head.attempt.unwrap_or(status.attempt);
        self.state.bus.tell_watchers_here(&Event::status(owner, status.clone()));
        let changes = status.changes(&known);
        unstored.put(status, changes);
        Ok(true)
    }

    async fn take_segment(&self, owner: Owner, known: &Status, segment: NewSegment) -> Result<bool, Rejection> {
        let id = known.session_id;
        let segment = checked(segment).map_err(|error| rejection(&error))?;
        if segment.index < known.segments {
            return Ok(false);
        }
        not_ended(known).map_err(|error| rejection(&error))?;
        let until = self.silence(Timestamp::now());
        let added = self.state.store.report_segments(id, segment.index, std::slice::from_ref(&segment), until).await;
        match added {
            Ok(true) => {}
            // Another node was faster, or it leaves a hole.
            Ok(false) if self.stored(id).await?.1.segments > segment.index => {}
            Ok(false) => return Err(Rejection::Stale),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "a segment of session {id} could not be stored");
                return Ok(false); // nothing is shown that could get lost
            }
        }
        self.state.bus.tell_watchers_here(&Event::bare_segment(owner, id, &segment));
        Ok(true)
    }

    async fn stored(&self, id: SessionId) -> Result<(Owner, Status), Rejection> {
        match self.state.store.any(id).await {
            Ok(Some((session, owner))) => Ok((owner, session.status)),
            Ok(None) => Err(Rejection::Foreign),
            Err(error) => {
                tracing::error!(session_id = %id, %error, "session {id} could not be read");
                Err(Rejection::Foreign)
            }
        }
    }
}

fn rejection(error: &Error) -> Rejection {
    if matches!(error, Error::Conflict(..)) { Rejection::Stale } else { Rejection::Malformed }
}

fn not_ended(known: &Status) -> Result<(), Error> {
    if known.state.is_terminal() {
        return Err(Error::Conflict("ended", format!("The session is {}: nothing more can be reported.", known.state)));
    }
    Ok(())
}

/// The status that a report makes of the one before.
fn reported(known: &Status, report: Report, now: Timestamp) -> Result<Status, Error> {
    let invalid = |message: String| Err(Error::InvalidReport(message));
    not_ended(known)?;
    let version = report.version.unwrap_or(known.version + 1);
    if version <= known.version {
        return Err(Error::Conflict(
            "stale_version",
            format!("The version must be above {}, which is known already; {version} isn't.", known.version),
        ));
    }
    if version > Status::MAX_VERSION {
        let most = Status::MAX_VERSION;
        return invalid(format!("The version must be at most {most}, so that browsers read it exactly."));
    }
    let state = report.status.unwrap_or(State::Processing);
    if state == State::Queued && known.state != State::Queued {
        return invalid("A session that is being processed can't go back to 'queued'.".to_owned());
    }
    let progress = match report.progress {
        Some(p) if !(0.0..=100.0).contains(&p) => {
            return invalid(format!("The progress must be from 0 to 100, or null where it isn't known; {p} isn't."));
        }
        Some(p) if p == 100.0 && state != State::Completed => {
            return invalid("The progress is 100 only when the status is 'completed'.".to_owned());
        }
        Some(p) if state == State::Completed && p < 100.0 => {
            return invalid(format!("A completed session's progress is 100, not {p}."));
        }
        Some(p) if known.progress.is_some_and(|before| p < before) => {
            let before = known.progress.unwrap_or_default();
            return invalid(format!("The progress never falls: it was {before}, and {p} is less."));
        }
        None if state == State::Completed => Some(100.0),
        // The furthest it got stays on view when it failed or was cancelled.
        None if state.is_terminal() => known.progress,
        p => p,
    };
    if let Some(seconds) = report.duration_total {
        duration("duration_total", seconds)?;
    }
    if let Some(seconds) = report.duration_processed {
        duration("duration_processed", seconds)?;
    }
    if let Some(speed) = report.processing_speed
        && !(speed.is_finite() && speed > 0.0)
    {
        return invalid(format!("The processing_speed must be above 0, or null; {speed} isn't."));
    }
    if report.message.as_ref().is_some_and(|m| m.len() > MAX_TEXT) {
        return invalid(format!("The message is longer than {MAX_TEXT} bytes."));
    }
    if let Some(message) = &report.message {
        storable("message", message)?;
    }
    if let Some(error) = &report.error {
        storable("error's code", &error.code)?;
        storable("error's message", &error.message)?;
    }
    let error = match (state, report.error) {
        (State::Failed, Some(error)) => Some(error),
        (State::Failed, None) => {
            let message = report.message.clone().filter(|m| !m.is_empty());
            let message = message.unwrap_or_else(|| "The worker reported a failure.".to_owned());
            Some(Failure { code: "worker_failed".to_owned(), message })
        }
        (_, Some(_)) => return invalid("Only a failed session has an error.".to_owned()),
        (_, None) => None,
    };
    let stage = if state == State::Queued { None } else { report.stage.or(known.stage) };
    let message = report.message.unwrap_or_else(|| match (state, stage) {
        (State::Completed, _) => "Finished".to_owned(),
        (State::Cancelled, _) => "Cancelled".to_owned(),
        (State::Failed, _) => error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        (_, Some(stage)) => stage.label().to_owned(),
        (_, None) => known.message.clone(),
    });
    let duration_total = report.duration_total.or(known.duration_total);
    let duration_processed = match (state, duration_total) {
        (State::Completed, Some(total)) => report.duration_processed.unwrap_or(total),
        _ => report.duration_processed.unwrap_or(known.duration_processed),
    };
    Ok(Status {
        session_id: known.session_id,
        version,
        state,
        stage,
        progress,
        message,
        timestamp: now,
        duration_processed,
        duration_total,
        estimated_completion: report.estimated_completion.filter(|_| !state.is_terminal()),
        processing_speed: report.processing_speed,
        segments: known.segments,
        queue_position: None,
        attempt: known.attempt.max(u32::from(state != State::Queued)),
        error,
    })
}

fn duration(name: &str, seconds: f64) -> Result<(), Error> {
    if seconds.is_finite() && seconds >= 0.0 {
        return Ok(());
    }
    Err(Error::InvalidReport(format!("The {name} must be a number of seconds from 0 on; {seconds} isn't.")))
}

/// PostgreSQL has no place for the character 0, and what was heard over Redis would wait for it forever.
fn storable(name: &str, text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(Error::InvalidReport(format!("The {name} contains the character 0; leave it out.")));
    }
    Ok(())
}

fn checked(segment: NewSegment) -> Result<Segment, Error> {
    let index = segment.index;
    if !(segment.start.is_finite() && segment.end.is_finite() && 0.0 <= segment.start && segment.start <= segment.end) {
        return Err(Error::InvalidReport(format!(
            "Segment {index} must start at 0 s or later and not end before it starts."
        )));
    }
    if segment.text.len() > MAX_TEXT {
        return Err(Error::InvalidReport(format!(
            "The text of segment {index} is longer than {MAX_TEXT} bytes; send it as several segments."
        )));
    }
    storable(&format!("text of segment {index}"), &segment.text)?;
    if segment.confidence.is_some_and(|c| !(0.0..=1.0).contains(&c)) {
        return Err(Error::InvalidReport(format!("The confidence of segment {index} must be from 0 to 1.")));
    }
    Ok(Segment {
        index,
        start: segment.start,
        end: segment.end,
        text: segment.text,
        confidence: segment.confidence,
        words: segment.words,
    })
}
