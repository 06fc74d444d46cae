//! Sessions of workers outside Hark, which publish over HTTP or Redis. Their reports are checked like any input and go
//! to the watchers at once. Changes of state and stage are stored before the worker gets its answer, progress every half
//! minute; in a shared database all are stored before watchers learn of them, because the next report may reach another
//! node. Called by `http::outside` and `sessions`;
//! [`listen`] processes what the bus receives, and `jobs` fails the sessions of silent workers.

mod batch;
mod lenient;
mod live;
mod pending;
mod redis_reports;
mod report;
mod writer;

use super::{
    bus::{Bus, Refusal, RefusalLog, Rejection},
    config::OutsideConfig,
    error::Error,
    event::Event,
    language::language,
    owner::Owner,
    store::{NewSession, Store},
    stream::Hub,
    telemetry::traces::Step,
};
use crate::model::{Channels, EngineId, Media, Session, SessionId, Timestamp, Title};
pub use batch::LineResult;
pub use live::Live;
use live::LiveSessions;
pub use redis_reports::listen;
pub use report::{Announcement, NewSegment, Report, ReportError, read, read_report, read_segments};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;
use writer::ReportWriter;

/// How often a report without a version, or of an end, is tried when another node takes the version first.
const MAX_TRIES: u32 = 5;

/// The sessions of workers outside Hark.
pub struct Outside {
    store: Store,
    bus: Bus,
    hub: Arc<Hub>,
    silence_secs: u32,
    live: LiveSessions,
    writer: ReportWriter,
    refusals: RefusalLog,
}

impl Outside {
    /// Starts without any reports. To be called in a runtime, which writes the reports.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn new(store: Store, bus: Bus, hub: Arc<Hub>, config: &OutsideConfig) -> Result<Self, sqlx::Error> {
        let live = LiveSessions::open(&store).await?;
        let silence_secs = config.worker_silence_secs;
        let writer = ReportWriter::start(store.clone(), silence_secs);
        Ok(Self { store, bus, hub, silence_secs, live, writer, refusals: RefusalLog::new("HTTP") })
    }

    /// Says in the log why a report over HTTP was refused. The worker is told too, but whoever runs it may not look.
    pub fn log_refused(&self, id: SessionId, error: &Error) {
        let code = match error {
            Error::InvalidReport(_) => "invalid_report",
            Error::BadRequest(_) => "not_json",
            Error::NotFound => "not_found",
            Error::Conflict(code, _) => code,
            _ => return,
        };
        self.refusals.refused(id, &Refusal::new(Rejection::Malformed, code, error.to_string()));
    }

    /// When a session fails if nothing more is reported on it.
    fn lease_until(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(f64::from(self.silence_secs))
    }

    /// How often to call [`Outside::store_steps`] and [`Outside::fail_silent`]: no more often than the store's lag and
    /// the leases require, because each call may go through thousands of sessions.
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.silence_secs / 10).clamp(1, 10))
    }

    /// Stores the last report on a session and makes further reports wait until the guard is dropped; they then read
    /// the session from the store again. For changes that don't come from the worker.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn pause_reports(&self, id: SessionId) -> Result<Option<OwnedMutexGuard<Live>>, Error> {
        self.live.pause_reports(&self.store, id).await
    }

    /// Stores the statuses that have waited long enough, or all with `all`; drops sessions that aren't reported on any
    /// more.
    ///
    /// # Errors
    /// If the database fails; what couldn't be stored is kept for the next call.
    pub async fn store_steps(&self, all: bool) -> Result<(), sqlx::Error> {
        self.live.store_steps(&self.store, self.silence_secs, all).await
    }

    /// Fails the sessions on which nothing was reported for `HARK_WORKER_SILENCE_SECS`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn fail_silent(&self) -> Result<(), sqlx::Error> {
        let events = self.store.reap_outside(self.store.now().await?).await?;
        for status in events.iter().filter_map(|e| e.new_status()) {
            let id = status.session_id;
            tracing::warn!(session_id = %id, "session {id} failed: its outside worker sent nothing for too long");
        }
        self.bus.publish_all(&events);
        Ok(())
    }

    /// Creates a session that an outside worker will report on.
    ///
    /// # Errors
    /// If the title, the length, the language or the owner isn't valid.
    pub async fn announce(&self, caller: &Owner, new: Announcement) -> Result<Session, Error> {
        let began = Instant::now();
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
            report::check_duration("duration_total", seconds)?;
        }
        let title = match new.title.as_deref().map(str::trim).filter(|t| !t.is_empty()) {
            Some(title) => Title::new(title)?,
            None => Title::from_file_name("Recording"),
        };
        let language = language(new.language.as_deref())?;
        let now = Timestamp::now();
        let new = NewSession {
            id: SessionId(Uuid::now_v7()),
            owner,
            title,
            engine: EngineId::External,
            language,
            vocabulary: None,
            channels: Channels::Mix,
            track: None,
            media: Media::default(),
            duration_total: new.duration_total,
            lease_until: Some(self.lease_until(now)),
            address: None,
            recording_hash: None,
            upload: None,
        };
        let (session, event) = self.store.insert(&new, now).await?;
        if self.bus.is_connected().is_some() {
            // Its worker may continue over Redis, so this node must subscribe before there are watchers.
            self.hub.hold(session.id);
            self.hub.learn(&event.owner, &session.status);
        }
        metrics::counter!("hark_sessions_created_total").increment(1);
        tracing::debug!(session_id = %session.id, "session {} was created by an outside worker", session.id);
        self.bus.publish(&event);
        Step::first(session.id, "announce", began).end();
        // Its worker will report soon.
        self.live.insert(Live::new(session.clone(), event.owner.clone())?);
        Ok(session)
    }

    /// Takes in a status from an outside worker and publishes it. Returns its version, when a change of state or stage is
    /// stored.
    ///
    /// # Errors
    /// If the report isn't valid or is out of date, or the session has ended.
    pub async fn report(&self, id: SessionId, reported: Report) -> Result<u64, Error> {
        for _ in 1..MAX_TRIES {
            match self.report_once(id, reported.clone()).await {
                // It was changed elsewhere. What is known now may allow the report, or say why not.
                Err(Error::Conflict("changed", _)) => {}
                done => return done,
            }
        }
        self.report_once(id, reported).await
    }

    async fn report_once(&self, id: SessionId, reported: Report) -> Result<u64, Error> {
        let mut live = self.live.live(&self.store, id).await?;
        // Sent again because it could not be stored.
        if live.unstored_step && reported.version == Some(live.status.version) {
            self.store_published(&mut live).await?;
            return Ok(live.status.version);
        }
        let now = Timestamp::now();
        let mut status = report::status_after(&live.status, live.floor, reported, now)?;
        let is_step = status.changes(&live.status);
        if self.live.shared || status.state.is_terminal() || live.is_far_ahead(&status) {
            // Another node may have a newer status, an end must be certain, and no crash may lose a version that is far
            // above the stored one. So watchers wait for the store.
            let _step = if is_step { Step::begin(id, "store") } else { Step::default() };
            let after = if self.live.shared { live.status.version } else { status.version - 1 };
            let Some(stored) = self.writer.store(after, status.clone()).await? else {
                return Err(self.changed_elsewhere(&mut live));
            };
            status.segments = stored.segments;
            live.owner = stored.owner;
            live.mark_stored(status.version, now);
        } else {
            // Progress alone is no step: it may come many times a second.
            live.dirty = true;
            live.unstored_step |= is_step;
        }
        live.floor.note(&status);
        live.status = status;
        {
            let _step = if is_step { Step::begin(id, "publish") } else { Step::default() };
            self.bus.publish(&Event::status(live.owner.clone(), live.status.clone()));
        }
        self.refusals.taken(id);
        if live.status.state.is_terminal() {
            self.live.forget(&mut live);
        } else if live.unstored_step {
            self.store_published(&mut live).await?;
        }
        Ok(live.status.version)
    }

    /// Stores a change of state or stage that watchers know already.
    async fn store_published(&self, live: &mut Live) -> Result<(), Error> {
        let _step = Step::begin(live.status.session_id, "store");
        let now = Timestamp::now();
        if self.writer.store(live.status.version - 1, live.status.clone()).await?.is_none() {
            return Err(self.changed_elsewhere(live));
        }
        live.mark_stored(live.status.version, now);
        Ok(())
    }

    /// The error for a session of which the store knows something newer.
    fn changed_elsewhere(&self, live: &mut Live) -> Error {
        self.live.forget(live);
        Error::Conflict("changed", "The session was changed elsewhere; look at it again.".to_owned())
    }

    /// Takes in segments from an outside worker and publishes them. Known ones are ignored. Returns how many the
    /// session has now.
    ///
    /// # Errors
    /// If the segments aren't valid or leave a gap, or the session has ended.
    pub async fn report_segments(&self, id: SessionId, segments: Vec<NewSegment>) -> Result<u32, Error> {
        let mut live = self.live.newest(&self.store, id).await?;
        report::check_not_ended(&live.status)?;
        let known = live.status.segments;
        let mut new_segments = Vec::new();
        for segment in segments {
            let expected = known + new_segments.len() as u32;
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
            new_segments.push(report::check_segment(segment)?);
        }
        if new_segments.is_empty() {
            return Ok(known);
        }
        let now = Timestamp::now();
        let mut step = Step::begin(id, "store");
        step.number("hark.segments", new_segments.len() as u64);
        if !self.store.report_segments(id, known, &new_segments, self.lease_until(now)).await? {
            return Err(self.changed_elsewhere(&mut live));
        }
        step.end();
        live.status.segments += new_segments.len() as u32;
        let _step = Step::begin(id, "publish");
        for segment in &new_segments {
            self.bus.publish(&Event::bare_segment(live.owner.clone(), id, segment));
        }
        Ok(live.status.segments)
    }
}
