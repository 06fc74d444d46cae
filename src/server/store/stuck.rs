//! Sessions that are being processed without progress: how many, which, and how an operator resolves them. Called by
//! `http::health` and by `hark sessions`.

use super::{Db, OUTSIDE_VERSION_GAP, Store, VERSION_GAP, values};
use crate::{
    model::{EngineId, SessionId, Stage, Timestamp},
    server::event::Event,
};

/// Seconds without a change after which a session that is being processed counts as stalled. The status of a running
/// one changes about every second; that of an outside worker is stored twice a minute.
pub const STALLED_SECS: f64 = 60.0;

/// As the time without a change: one that every session has that is being processed, whatever the clocks say.
pub const ANY_IDLE_SECS: f64 = -1e9;

/// Whether session `s` is stalled at `$1`: nothing has changed for `$2` milliseconds, or its lease has run out.
macro_rules! stalled {
    () => {
        concat!("(s.status = ", state!(processing), " AND ($1 - s.updated_at > $2 OR s.lease_until < $1))")
    };
}

/// For how many milliseconds the attempt at session `s`, which begins with the stage `decoding`, has taken at `$1`.
macro_rules! attempt_millis {
    () => {
        "$1 - COALESCE((SELECT MAX(b.at) FROM stages b WHERE b.session_id = s.id \
         AND b.stage = 'decoding'), s.started_at, s.updated_at)"
    };
}

/// How many milliseconds an attempt at session `s` should take at the most: ten minutes and three times the length of the
/// recording, as far as that is known.
macro_rules! expected_millis {
    () => {
        "600000 + 3000 * COALESCE(s.duration_total, s.duration_processed)"
    };
}

/// Whether session `s` has run too long at `$1`.
macro_rules! long_running {
    () => {
        concat!("(s.status = ", state!(processing), " AND ", attempt_millis!(), " > ", expected_millis!(), ")")
    };
}

/// Whether session `s` is stalled or has run too long.
macro_rules! stuck {
    () => {
        concat!("(", stalled!(), " OR ", long_running!(), ")")
    };
}

/// The state of the sessions of all owners together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SessionHealth {
    /// Sessions whose attempt has taken more than ten minutes and three times the length of their recording.
    pub long_running: u64,
    /// Sessions that are being processed without a change for too long, or with a lease that has run out.
    pub stalled: u64,
    /// Queued sessions that no worker can take at the moment.
    pub waiting: u64,
    /// Since when the session has been queued that has waited longest.
    pub oldest_queued: Option<Timestamp>,
    /// Sessions that are stalled or have run too long, each counted once.
    pub hanging: u64,
    /// For how many seconds the one of them that hangs longest has: since it last changed if it is stalled, or since it
    /// should have ended.
    pub longest_hanging_secs: Option<f64>,
}

/// A session that is stalled or has run for too long.
#[derive(Clone, Debug, PartialEq)]
pub struct StuckSession {
    pub id: SessionId,
    pub engine: EngineId,
    pub stage: Option<Stage>,
    pub progress: Option<f64>,
    pub attempt: u32,
    /// The worker that has the lease; an outside worker has no name.
    pub worker: Option<String>,
    /// When it last changed.
    pub updated_at: Timestamp,
    pub lease_until: Option<Timestamp>,
    pub stalled: bool,
    pub long_running: bool,
}

/// How an operator resolves a stuck session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Put back into the queue; the next attempt continues after the last segment. Counts no crash.
    Requeue,
    /// Fail it with this reason, which its owner reads.
    Fail(String),
}

#[derive(sqlx::FromRow)]
struct StuckRow {
    id: String,
    engine: String,
    stage: Option<String>,
    progress: Option<f64>,
    attempt: i64,
    worker: Option<String>,
    updated_at: i64,
    lease_until: Option<i64>,
    stalled: i64,
    long_running: i64,
}

impl Store {
    /// Counts the sessions that are stalled or have run too long at `now`. Those without a change for `idle_secs` count
    /// as stalled.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn health(&self, now: Timestamp, idle_secs: f64) -> Result<SessionHealth, sqlx::Error> {
        // A session that was put back into the queue waits since then; the log of stages has the time.
        let counts: (i64, i64, i64, Option<i64>, i64, Option<i64>, Option<i64>) =
            on!(self, |pool| sqlx::query_as(concat!(
                "SELECT COUNT(CASE WHEN ",
                long_running!(),
                " THEN 1 END), COUNT(CASE WHEN ",
                stalled!(),
                " THEN 1 END), COUNT(CASE WHEN s.status = ",
                state!(queued),
                " AND s.needs_model IS NOT NULL THEN 1 END), MIN(CASE WHEN s.status = ",
                state!(queued),
                " AND s.engine <> ",
                engine!(external),
                " THEN COALESCE( \
             (SELECT MAX(l.at) FROM stages l WHERE l.session_id = s.id AND l.stage IS NULL AND l.at > s.queued_at), \
             s.queued_at) END), COUNT(CASE WHEN ",
                stuck!(),
                " THEN 1 END), MAX(CASE WHEN ",
                stalled!(),
                " THEN $1 - s.updated_at END), CAST(MAX(CASE WHEN ",
                long_running!(),
                " THEN ",
                attempt_millis!(),
                " - (",
                expected_millis!(),
                ") END) AS BIGINT) FROM sessions s WHERE s.status IN ",
                state!(active)
            ))
            .bind(now.0)
            .bind(millis(idle_secs))
            .fetch_one(pool)
            .await)?;
        let (long_running, stalled, waiting, oldest, hanging, unchanged, overdue) = counts;
        Ok(SessionHealth {
            long_running: long_running as u64,
            stalled: stalled as u64,
            waiting: waiting as u64,
            oldest_queued: oldest.map(Timestamp),
            hanging: hanging as u64,
            longest_hanging_secs: unchanged.max(overdue).map(|millis| millis.max(0) as f64 / 1000.0),
        })
    }

    /// Lists the sessions that are stalled or have run too long at `now`, beginning with the one that has been
    /// unchanged for longest.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stuck(&self, now: Timestamp, idle_secs: f64) -> Result<Vec<StuckSession>, sqlx::Error> {
        let rows: Vec<StuckRow> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT s.id, s.engine, s.stage, s.progress, s.attempt, s.worker, s.updated_at, s.lease_until, \
             CAST(CASE WHEN ",
            stalled!(),
            " THEN 1 ELSE 0 END AS BIGINT) AS stalled, CAST(CASE WHEN ",
            long_running!(),
            " THEN 1 ELSE 0 END AS BIGINT) AS long_running FROM sessions s WHERE s.status = ",
            state!(processing),
            " AND ",
            stuck!(),
            " ORDER BY s.updated_at, s.id"
        ))
        .bind(now.0)
        .bind(millis(idle_secs))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(StuckRow::into_stuck).collect()
    }

    /// Resolves a stuck session as an operator wants, if it is still stuck in the same attempt. Its worker, should one
    /// still run, can write nothing from then on. Returns none if the session has moved on meanwhile, or if it should
    /// be requeued and its worker is outside Hark.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn release(
        &self,
        stuck: &StuckSession,
        resolution: &Resolution,
        now: Timestamp,
        idle_secs: f64,
    ) -> Result<Option<Event>, sqlx::Error> {
        self.take_from_worker(stuck.id, stuck.attempt, resolution, now, idle_secs).await
    }

    /// The same for a session by its id and attempt; with [`ANY_IDLE_SECS`] whether or not it is stuck, if it is being
    /// processed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_from_worker(
        &self,
        id: SessionId,
        attempt: u32,
        resolution: &Resolution,
        now: Timestamp,
        idle_secs: f64,
    ) -> Result<Option<Event>, sqlx::Error> {
        let (statement, reason) = match resolution {
            Resolution::Requeue => (
                concat!(
                    "UPDATE sessions AS s SET status = ",
                    state!(queued),
                    ", stage = NULL, progress = NULL, message = $6, \
                     version = version + $5, updated_at = $1, worker = NULL, lease_until = NULL, \
                     estimated_completion = NULL, processing_speed = NULL \
                     WHERE s.id = $3 AND s.attempt = $4 AND s.engine <> ",
                    engine!(external),
                    " AND ",
                    stuck!(),
                ),
                "",
            ),
            Resolution::Fail(reason) => (
                concat!(
                    "UPDATE sessions AS s SET status = ",
                    state!(failed),
                    ", finished_at = $1, error_code = 'stuck', \
                     error_message = $6, message = $6, version = version + CASE WHEN engine = ",
                    engine!(external),
                    " THEN $7 ELSE $5 END, updated_at = $1, worker = NULL, \
                     lease_until = NULL, estimated_completion = NULL, processing_speed = NULL, address = NULL \
                     WHERE s.id = $3 AND s.attempt = $4 AND ",
                    stuck!(),
                ),
                reason.as_str(),
            ),
        };
        let changed = on!(self, |pool| sqlx::query(statement)
            .bind(now.0)
            .bind(millis(idle_secs))
            .bind(id.to_string())
            .bind(i64::from(attempt))
            .bind(VERSION_GAP)
            .bind(reason)
            .bind(OUTSIDE_VERSION_GAP as i64)
            .execute(pool)
            .await
            .map(|done| done.rows_affected()))?;
        self.event_if(changed > 0, id).await
    }
}

impl StuckRow {
    fn into_stuck(self) -> Result<StuckSession, sqlx::Error> {
        Ok(StuckSession {
            id: values::parse(&self.id)?,
            engine: values::parse(&self.engine)?,
            stage: self.stage.as_deref().map(values::parse).transpose()?,
            progress: self.progress,
            attempt: values::to_u32(self.attempt),
            worker: self.worker,
            updated_at: Timestamp(self.updated_at),
            lease_until: self.lease_until.map(Timestamp),
            stalled: self.stalled != 0,
            long_running: self.long_running != 0,
        })
    }
}

pub(super) fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}
