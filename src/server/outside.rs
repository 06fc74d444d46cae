//! Workers outside Hark, which publish over HTTP or Redis: their reports are checked like any input, go to the watchers at
//! once, and reach the store at every change of stage and otherwise every few seconds; over a shared database at once,
//! for the next report may reach another node. Called by `http::outside` and `sessions`; [`listen`] takes what the bus
//! hears, and `jobs` looks after those that went silent.

mod heard;
mod live;
mod pending;
mod report;

use super::{
    bus::Bus,
    config::OutsideConfig,
    error::Error,
    event::Event,
    language::language,
    owner::Owner,
    store::{NewSession, Store},
    stream::Hub,
};
use crate::model::{EngineId, Media, Session, SessionId, Timestamp, Title};
pub use heard::listen;
pub use live::Live;
use live::LiveSessions;
pub use report::{Announcement, NewSegment, Report};
use std::{sync::Arc, time::Duration};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

/// How often a report without a version is tried again when another node was faster.
const TRIES: u32 = 5;

/// The sessions of workers outside Hark.
pub struct Outside {
    store: Store,
    bus: Bus,
    hub: Arc<Hub>,
    silence_secs: u32,
    live: LiveSessions,
}

impl Outside {
    /// Nothing has been reported yet.
    #[must_use]
    pub fn new(store: Store, bus: Bus, hub: Arc<Hub>, config: &OutsideConfig) -> Self {
        let live = LiveSessions::new(store.is_shared());
        Self { store, bus, hub, silence_secs: config.worker_silence_secs, live }
    }

    /// When a session fails of which nothing is reported from now on.
    fn silence(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(f64::from(self.silence_secs))
    }

    /// How often to call [`Outside::store_steps`] and [`Outside::fail_silent`]: as often as the store's lag and the leases
    /// need it, no more, for there may be thousands of sessions to go through.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        Duration::from_secs(u64::from(self.silence_secs / 10).clamp(1, 10))
    }

    /// Stores what a session's worker reported last and holds back further reports until the guard is dropped; they
    /// then look into the store again. For changes that don't come from the worker.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn hold_still(&self, id: SessionId) -> Result<Option<OwnedMutexGuard<Live>>, Error> {
        self.live.hold_still(&self.store, id).await
    }

    /// Stores what has waited long enough, or, with `all`, everything; forgets what is no longer reported on.
    ///
    /// # Errors
    /// If the database fails; what couldn't be stored is kept for the next time.
    pub async fn store_steps(&self, all: bool) -> Result<(), sqlx::Error> {
        self.live.store_steps(&self.store, self.silence_secs, all).await
    }

    /// Fails the sessions whose workers went silent.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn fail_silent(&self) -> Result<(), sqlx::Error> {
        let events = self.store.reap_outside(Timestamp::now()).await?;
        for status in events.iter().filter_map(|e| e.new_status()) {
            let id = status.session_id;
            tracing::warn!(session_id = %id, "the outside worker of session {id} went silent");
        }
        self.bus.publish_all(&events);
        Ok(())
    }

    /// Makes a session that an outside worker will report on.
    ///
    /// # Errors
    /// If the title, the length, the language or the owner can't be.
    pub async fn announce(&self, caller: &Owner, new: Announcement) -> Result<Session, Error> {
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
            report::duration("duration_total", seconds)?;
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
            media: Media::default(),
            duration_total: new.duration_total,
            lease_until: Some(self.silence(now)),
            address: None,
        };
        let (session, event) = self.store.insert(&new, now).await?;
        if self.bus.is_connected().is_some() {
            // Its worker may go on over Redis: somebody must listen before there are watchers.
            self.hub.hold(session.id);
            self.hub.learn(&event.owner, &session.status);
        }
        metrics::counter!("hark_sessions_created_total").increment(1);
        tracing::debug!(session_id = %session.id, "session {} was announced by an outside worker", session.id);
        self.bus.publish(&event);
        Ok(session)
    }

    /// Takes in the status that an outside worker reports, and tells the watchers. Returns the version it got.
    ///
    /// # Errors
    /// If the report can't be true, is out of date, or the session has ended.
    pub async fn report(&self, id: SessionId, reported: Report) -> Result<u64, Error> {
        let tries = if reported.version.is_none() { TRIES } else { 1 };
        for _ in 1..tries {
            match self.report_once(id, reported.clone()).await {
                // Another node was faster; the next version is another now.
                Err(Error::Conflict("changed", _)) => {}
                done => return done,
            }
        }
        self.report_once(id, reported).await
    }

    async fn report_once(&self, id: SessionId, reported: Report) -> Result<u64, Error> {
        let mut live = self.live.live(&self.store, id).await?;
        let now = Timestamp::now();
        let status = report::status_after(&live.status, reported, now)?;
        let known = &live.status;
        if self.live.shared || status.changes(known) {
            if !self.store.report(&status, self.silence(now)).await? {
                self.live.forget(&mut live);
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
        self.bus.publish(&Event::status(live.owner.clone(), live.status.clone()));
        if live.status.state.is_terminal() {
            self.live.forget(&mut live);
        }
        Ok(version)
    }

    /// Takes in segments that an outside worker sends, and tells the watchers. Those that are there already are
    /// ignored. Returns how many there are now.
    ///
    /// # Errors
    /// If the segments can't be true, leave a hole, or the session has ended.
    pub async fn report_segments(&self, id: SessionId, segments: Vec<NewSegment>) -> Result<u32, Error> {
        let mut live = self.live.live(&self.store, id).await?;
        report::not_ended(&live.status)?;
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
            fresh.push(report::segment(segment)?);
        }
        if fresh.is_empty() {
            return Ok(known);
        }
        let now = Timestamp::now();
        if !self.store.report_segments(id, known, &fresh, self.silence(now)).await? {
            self.live.forget(&mut live);
            return Err(Error::Conflict("changed", "The session was changed elsewhere; look at it again.".to_owned()));
        }
        live.status.segments += fresh.len() as u32;
        for segment in &fresh {
            self.bus.publish(&Event::bare_segment(live.owner.clone(), id, segment));
        }
        Ok(live.status.segments)
    }
}
