//! The queue: its order, and how much of it everybody may have. Limits are checked within the transaction that adds a
//! session, so they hold whatever happens at once on however many nodes. Called by `sessions`.
//!
//! The order is round robin by owner, by start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996). A session that is
//! added gets the number of a turn: one more than the last of its owner that waits, runs or was served, but no less
//! than the turn that is being served. So each owner has one session in each turn, and an owner that comes later joins the
//! turn that is being served. Claims, positions and arrival times all go by the order (turn, queued_at, id). Owners without
//! history get their turns by address.

use super::{Db, Dialect, NewSession, Store, VERSION_GAP, rows::SessionRow, values};
use crate::{
    model::{Channels, Session, SessionId, Timestamp, Track, arrival_moved, queue_arrival, queue_wait},
    server::{event::Event, owner::Owner},
};
use serde_json::json;

/// How much may wait in a part of the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub sessions: u32,
    /// Seconds of audio.
    pub seconds: f64,
}

/// The limits of the queue for Hark's own workers, and of what an owner may keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueLimits {
    /// All owners together.
    pub all: Share,
    pub owner: Share,
    /// All newcomers at one address.
    pub address: Share,
    /// All newcomers together.
    pub newcomers: Share,
    /// Seconds of audio that a recording of unknown length counts as.
    pub unknown_secs: f64,
    /// Bytes of recordings that one owner may keep; none if that isn't limited.
    pub bytes_per_owner: Option<u64>,
}

/// The part of the queue that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitScope {
    All,
    Owner,
    /// The newcomers at the caller's address.
    Address,
    Newcomers,
}

/// Which limit of that part was reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReachedLimit {
    Sessions(u32),
    /// Seconds of audio.
    Seconds(f64),
}

/// Why nothing can be added to the queue now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueFull {
    pub scope: LimitScope,
    pub limit: ReachedLimit,
    /// How many sessions wait in that part, and how many seconds of audio.
    pub waiting: u32,
    pub waiting_secs: f64,
    /// Seconds until there should be room.
    pub wait_secs: f64,
    /// Whether `wait_secs` is based on a measured speed. Otherwise a worker is assumed to be as fast as the recording
    /// plays.
    pub measured: bool,
}

/// Why a session could not be queued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    #[error("the queue is full: {:?} of {:?}", .0.limit, .0.scope)]
    Full(QueueFull),
    /// Somebody else has finished or removed it meanwhile.
    #[error("the upload isn't open any more")]
    UploadClosed,
    #[error("the owner keeps {used} bytes of recordings and may keep {limit}")]
    Quota { used: u64, limit: u64 },
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// The seconds of audio that a session has still to be transcribed. `$unknown` is the length assumed for a recording of
/// unknown length: a parameter or a column.
macro_rules! remaining {
    ($unknown:literal) => {
        concat!(
            "CASE WHEN COALESCE(duration_total, ",
            $unknown,
            ") > duration_processed THEN COALESCE(duration_total, ",
            $unknown,
            ") - duration_processed ELSE 0.0 END"
        )
    };
}

/// Counts the waiting sessions and their seconds of audio: all of them, those of owner `$1`, those at address `$2`, and
/// those of newcomers.
const WAITING: &str = concat!(
    "SELECT COUNT(*), COALESCE(SUM(rest), 0.0), \
     COUNT(*) FILTER (WHERE owner = $1), COALESCE(SUM(rest) FILTER (WHERE owner = $1), 0.0), \
     COUNT(*) FILTER (WHERE address = $2), COALESCE(SUM(rest) FILTER (WHERE address = $2), 0.0), \
     COUNT(*) FILTER (WHERE address IS NOT NULL), COALESCE(SUM(rest) FILTER (WHERE address IS NOT NULL), 0.0) \
     FROM (SELECT owner, address, ",
    remaining!("$3"),
    " AS rest FROM sessions WHERE status = ",
    state!(queued),
    " AND engine <> ",
    engine!(external),
    ") AS line"
);

/// How many seconds of audio are claimed before enough of a part of the queue has been claimed to make room for `$4`
/// seconds, or at least one session of it. The part is that of owner `$1`, that of address `$2`, that of newcomers if
/// `$3`, or else the whole queue.
const AHEAD: &str = concat!(
    "WITH line AS (SELECT owner, address, turn, queued_at, id, rest, \
     SUM(rest) OVER (ORDER BY turn, queued_at, id) - rest AS ahead FROM (SELECT owner, address, turn, queued_at, id, ",
    remaining!("$5"),
    " AS rest FROM sessions WHERE status = ",
    state!(queued),
    " AND engine <> ",
    engine!(external),
    ") AS waiting), \
     share AS (SELECT ahead, SUM(rest) OVER (ORDER BY turn, queued_at, id) AS through FROM line \
     WHERE ($1 = '' OR owner = $1) AND ($2 = '' OR address = $2) AND (NOT $3 OR address IS NOT NULL)) \
     SELECT COALESCE(MIN(ahead) FILTER (WHERE through >= $4), MAX(ahead)) FROM share"
);

/// The running sessions: their number, their remaining audio, their average speed, and when the first should be done.
/// If none of them has a settled speed, it is that of the last five that were completed.
const RUNNING: &str = concat!(
    "SELECT COUNT(*), COALESCE(SUM(",
    remaining!("$1"),
    "), 0.0), COALESCE(AVG(processing_speed), (SELECT AVG(last.speed) FROM (SELECT processing_speed AS speed \
     FROM sessions WHERE status = ",
    state!(completed),
    " AND engine <> ",
    engine!(external),
    " ORDER BY turn DESC, queued_at DESC, id DESC \
     LIMIT 5) AS last)), MIN(estimated_completion) FROM sessions WHERE status = ",
    state!(processing),
    " AND engine <> ",
    engine!(external)
);

/// The remaining audio of the running sessions, in seconds, and how many of them have an unknown length.
const RUNNING_REST: &str = concat!(
    "SELECT COALESCE(SUM(",
    remaining!("duration_processed"),
    "), 0.0), COUNT(*) - COUNT(duration_total) FROM sessions WHERE status = ",
    state!(processing),
    " AND engine <> ",
    engine!(external)
);

/// The queue in its order, as [`QueueEntry`] rows.
const QUEUE: &str = concat!(
    "SELECT id, CASE WHEN duration_total IS NOT NULL THEN ",
    remaining!("duration_processed"),
    " END AS rest, told_position, estimated_completion FROM sessions WHERE status = ",
    state!(queued),
    " AND engine <> ",
    engine!(external),
    " \
     ORDER BY turn, queued_at, id"
);

/// Writes the positions and arrival times in the JSON array `$1` of sessions that are still queued. On SQLite the plus
/// sign before `status` makes it look sessions up by their id.
const UPDATE_QUEUE: [&str; 2] = [
    concat!(
        "UPDATE sessions SET version = version + 1, updated_at = $2, told_position = new.value ->> 'position', \
     estimated_completion = new.value ->> 'completion' FROM json_each($1) AS new \
     WHERE sessions.id = new.value ->> 'id' AND +status = ",
        state!(queued),
        " RETURNING id"
    ),
    // Locked in one order, because another node may be updating the same sessions.
    concat!(
        "WITH new AS (SELECT * FROM jsonb_to_recordset(CAST(CAST($1 AS text) AS jsonb)) AS new (id text, position bigint, \
     completion bigint)), \
     locked AS MATERIALIZED (SELECT s.id FROM sessions s JOIN new ON s.id = new.id ORDER BY s.id FOR UPDATE OF s) \
     UPDATE sessions SET version = version + 1, updated_at = $2, told_position = new.position, \
     estimated_completion = new.completion FROM new JOIN locked ON locked.id = new.id \
     WHERE sessions.id = new.id AND status = ",
        state!(queued),
        " RETURNING sessions.id"
    ),
];

/// The queued sessions whose ids are in the JSON array `$1`, with the position that was written. `$ids` is the subquery
/// that reads the array.
macro_rules! updated_sql {
    ($ids:literal) => {
        concat!(
            "SELECT ",
            session_columns!("s.told_position"),
            " FROM sessions s WHERE s.status = ",
            state!(queued),
            " AND s.id IN (",
            $ids,
            ") ORDER BY s.turn, s.queued_at, s.id"
        )
    };
}

/// The turn of a session that is added for owner `$1` and, if that is a newcomer, address `$2`.
const NEXT_TURN: &str = concat!(
    "SELECT COALESCE(MAX(turn), 0) FROM (SELECT MAX(turn) AS turn FROM turns \
     UNION ALL SELECT MAX(turn) + 1 FROM turns WHERE who IN ($1, $2) \
     UNION ALL SELECT MAX(turn) + 1 FROM sessions WHERE status IN ",
    state!(active),
    " AND engine <> ",
    engine!(external),
    " \
     AND (owner = $1 OR address = $2)) AS bounds"
);

/// Deletes the records of who was served in turns that are over. On PostgreSQL it skips rows that a claim is just
/// updating.
const OLD_TURNS: [&str; 2] = [
    "DELETE FROM turns WHERE turn < (SELECT MAX(turn) FROM turns)",
    "DELETE FROM turns WHERE who IN (SELECT who FROM turns WHERE turn < (SELECT MAX(turn) FROM turns) \
     FOR UPDATE SKIP LOCKED)",
];

/// Finds a part of the queue that has no room for `seconds` more, and how many seconds over its limit it would be.
fn full_share(
    counts: &[(i64, f64); 4],
    newcomer: bool,
    limits: &QueueLimits,
    seconds: f64,
) -> Option<(LimitScope, ReachedLimit, (i64, f64), f64)> {
    let [all, owner, address, newcomers] = *counts;
    let shares = [
        (LimitScope::Owner, owner, limits.owner, true),
        (LimitScope::Address, address, limits.address, newcomer),
        (LimitScope::All, all, limits.all, true),
        (LimitScope::Newcomers, newcomers, limits.newcomers, newcomer),
    ];
    shares.into_iter().filter(|(.., counts)| *counts).find_map(|(scope, (n, waiting), share, _)| {
        let excess = waiting + seconds - share.seconds;
        if n >= i64::from(share.sessions) {
            return Some((scope, ReachedLimit::Sessions(share.sessions), (n, waiting), excess.max(0.0)));
        }
        // A recording longer than the whole limit is accepted when nothing else of that part waits. It could never be
        // queued otherwise.
        (n > 0 && (excess > 0.0 || waiting >= share.seconds)).then_some((
            scope,
            ReachedLimit::Seconds(share.seconds),
            (n, waiting),
            excess,
        ))
    })
}

/// Why the queue can't take one more session of `$owner` with `$seconds` of audio; none if it can.
macro_rules! queue_full {
    ($executor:expr, $owner:expr, $address:expr, $limits:expr, $seconds:expr, $now:expr) => {{
        let (owner, address, limits): (&Owner, Option<&str>, &QueueLimits) = ($owner, $address, $limits);
        let unknown = limits.unknown_secs;
        let counted: (i64, f64, i64, f64, i64, f64, i64, f64) =
            sqlx::query_as(WAITING).bind(owner.as_str()).bind(address).bind(unknown).fetch_one($executor).await?;
        let (all, all_secs, own, own_secs, near, near_secs, new, new_secs) = counted;
        let counts = [(all, all_secs), (own, own_secs), (near, near_secs), (new, new_secs)];
        match full_share(&counts, address.is_some(), limits, $seconds) {
            None => None,
            Some((scope, limit, (waiting, waiting_secs), excess)) => {
                let (ahead,): (Option<f64>,) = sqlx::query_as(AHEAD)
                    .bind(if scope == LimitScope::Owner { owner.as_str() } else { "" })
                    .bind(address.filter(|_| scope == LimitScope::Address).unwrap_or_default())
                    .bind(scope == LimitScope::Newcomers)
                    .bind(excess)
                    .bind(unknown)
                    .fetch_one($executor)
                    .await?;
                let (running, left, speed, first): (i64, f64, Option<f64>, Option<i64>) =
                    sqlx::query_as(RUNNING).bind(unknown).fetch_one($executor).await?;
                let ahead = ahead.unwrap_or(0.0);
                let now: Timestamp = $now;
                let wait_secs = match first {
                    // Room is made as soon as the first running session ends.
                    Some(first) if ahead <= 0.0 => Timestamp(first).seconds_since(now).max(0.0),
                    _ => queue_wait(ahead + left, speed, values::to_u32(running)),
                };
                let (waiting, measured) = (values::to_u32(waiting), speed.is_some() || first.is_some());
                Some(QueueFull { scope, limit, waiting, waiting_secs, wait_secs, measured })
            }
        }
    }};
}

/// The turn of a session that is added now for this owner, or this address.
macro_rules! next_turn {
    ($executor:expr, $pool:expr, $owner:expr, $address:expr) => {{
        let [sqlite, postgres] = OLD_TURNS;
        sqlx::query($pool.pick(sqlite, postgres)).execute($executor).await?;
        let (turn,): (i64,) =
            sqlx::query_as(NEXT_TURN).bind($owner.as_str()).bind::<Option<&str>>($address).fetch_one($executor).await?;
        turn
    }};
}

/// The bytes of an owner's recordings, those of unfinished uploads as a whole.
pub(super) const KEPT_BYTES: &str = "SELECT CAST(COALESCE((SELECT SUM(bytes) FROM sessions WHERE owner = $1), 0) \
     + COALESCE((SELECT SUM(length) FROM uploads WHERE owner = $1 AND session_id IS NULL), 0) AS BIGINT)";

/// Makes the upload `$1` the session `$2`, unless it is one already or has expired at `$3`.
const FINISH_UPLOAD: &str = "UPDATE uploads SET session_id = $2, received = length, address = NULL \
     WHERE id = $1 AND session_id IS NULL AND expires_at > $3";

impl Store {
    /// Returns why no session of `owner` could be added to the queue now; none if one could. `address` is set if the
    /// owner counts by address. For those who want to know before they upload.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn queue_full(
        &self,
        owner: &Owner,
        address: Option<&str>,
        limits: &QueueLimits,
        now: Timestamp,
    ) -> Result<Option<QueueFull>, sqlx::Error> {
        on!(self, |pool| Ok(queue_full!(pool, owner, address, limits, 0.0, now)))
    }

    /// The bytes of an owner's recordings, and of uploads that have begun.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept_bytes(&self, owner: &Owner) -> Result<u64, sqlx::Error> {
        let (bytes,): (i64,) = on!(self, |pool| sqlx::query_as(KEPT_BYTES).bind(owner.as_str()).fetch_one(pool).await)?;
        Ok(bytes as u64)
    }

    /// Whether an owner has history: a session of theirs was completed before `before`, or belongs to an outside
    /// worker, which has proved its token.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_history(&self, owner: &Owner, before: Timestamp) -> Result<bool, sqlx::Error> {
        let found: Option<(i64,)> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT CAST(1 AS BIGINT) AS found FROM sessions WHERE owner = $1 \
             AND (engine = ",
            engine!(external),
            " OR (status = ",
            state!(completed),
            " AND finished_at <= $2)) LIMIT 1"
        ),)
        .bind(owner.as_str())
        .bind(before.0)
        .fetch_optional(pool)
        .await)?;
        Ok(found.is_some())
    }

    /// Adds a session to the queue. The upload in parts that it comes from, if any, is then finished.
    ///
    /// # Errors
    /// If the upload isn't open any more, the queue is full, the owner keeps too many bytes, or the database fails; then nothing is added.
    pub async fn enqueue(
        &self,
        new: &NewSession,
        limits: &QueueLimits,
        now: Timestamp,
    ) -> Result<(Session, Event), EnqueueError> {
        let address = new.address.as_deref();
        on!(self, |pool| {
            let mut tx = pool.begin_enqueue().await?;
            if let Some(upload) = new.upload {
                // First, so that its bytes aren't counted twice.
                let finished = sqlx::query(FINISH_UPLOAD)
                    .bind(upload.to_string())
                    .bind(new.id.to_string())
                    .bind(now.0)
                    .execute(&mut *tx)
                    .await?;
                if finished.rows_affected() == 0 {
                    return Ok(Err(EnqueueError::UploadClosed));
                }
            }
            if let Some(limit) = limits.bytes_per_owner {
                let (used,): (i64,) = sqlx::query_as(KEPT_BYTES).bind(new.owner.as_str()).fetch_one(&mut *tx).await?;
                let used = used as u64;
                if used.saturating_add(new.media.bytes) > limit {
                    return Ok(Err(EnqueueError::Quota { used, limit }));
                }
            }
            let seconds = new.duration_total.unwrap_or(limits.unknown_secs);
            if let Some(full) = queue_full!(&mut *tx, &new.owner, address, limits, seconds, now) {
                return Ok(Err(EnqueueError::Full(full)));
            }
            let turn = next_turn!(&mut *tx, pool, new.owner, address);
            insert_session!(&mut *tx, new, turn, now)?;
            tx.commit().await?;
            Ok(Ok(()))
        })??;
        Ok(self.read_back(new.id).await?)
    }

    /// Puts a failed or cancelled session of this owner back into the queue and keeps its segments. `address` is set if
    /// the owner counts by address. Returns none if the session is neither failed nor cancelled. Without `limits` it
    /// doesn't check them: for a session that was in the queue just before.
    ///
    /// # Errors
    /// If the queue is full, or the database fails; then the session stays as it is.
    pub async fn retry(
        &self,
        owner: &Owner,
        id: SessionId,
        address: Option<&str>,
        limits: Option<&QueueLimits>,
        now: Timestamp,
    ) -> Result<Option<Event>, EnqueueError> {
        let changed = on!(self, |pool| {
            let mut tx = pool.begin_enqueue().await?;
            let found: Option<(Option<f64>, f64)> = sqlx::query_as(concat!(
                "SELECT duration_total, duration_processed FROM sessions \
                 WHERE id = $1 AND owner = $2 AND status IN ",
                state!(stopped),
                " AND engine <> ",
                engine!(external)
            ))
            .bind(id.to_string())
            .bind(owner.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            let Some((total, processed)) = found else { return Ok(Ok(0)) };
            if let Some(limits) = limits {
                let seconds = (total.unwrap_or(limits.unknown_secs) - processed).max(0.0);
                if let Some(full) = queue_full!(&mut *tx, owner, address, limits, seconds, now) {
                    return Ok(Err(EnqueueError::Full(full)));
                }
            }
            let turn = next_turn!(&mut *tx, pool, owner, address);
            let done = sqlx::query(concat!(
                "UPDATE sessions SET status = ",
                state!(queued),
                ", stage = NULL, progress = NULL, message = '', \
                 version = version + $4, updated_at = $3, queued_at = $3, finished_at = NULL, crashes = 0, \
                 error_code = NULL, error_message = NULL, turn = $5, address = $6 \
                 WHERE id = $1 AND owner = $2 AND status IN ",
                state!(stopped)
            ))
            .bind(id.to_string())
            .bind(owner.as_str())
            .bind(now.0)
            .bind(VERSION_GAP)
            .bind(turn)
            .bind(address)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            tx.commit().await?;
            Ok(Ok(done))
        })??;
        Ok(self.event_if(changed > 0, id).await?)
    }

    /// Puts a session of this owner that has ended back into the queue, to be transcribed anew with another choice: its
    /// segments are deleted, and the numbers of the new ones continue theirs, so that whoever has seen them can tell both
    /// apart. Returns none if the session hasn't ended. `address` and `limits` are as in [`Store::retry`].
    ///
    /// # Errors
    /// If the queue is full, or the database fails; then the session stays as it is.
    pub async fn replace(
        &self,
        owner: &Owner,
        id: SessionId,
        (track, channels): (Option<Track>, Channels),
        address: Option<&str>,
        limits: Option<&QueueLimits>,
        now: Timestamp,
    ) -> Result<Option<Event>, EnqueueError> {
        let changed = on!(self, |pool| {
            let mut tx = pool.begin_enqueue().await?;
            let found: Option<(Option<f64>,)> = sqlx::query_as(concat!(
                "SELECT duration_total FROM sessions WHERE id = $1 AND owner = $2 AND status IN ",
                state!(ended),
                " AND engine <> ",
                engine!(external)
            ))
            .bind(id.to_string())
            .bind(owner.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            let Some((total,)) = found else { return Ok(Ok(0)) };
            if let Some(limits) = limits {
                let seconds = total.unwrap_or(limits.unknown_secs);
                if let Some(full) = queue_full!(&mut *tx, owner, address, limits, seconds, now) {
                    return Ok(Err(EnqueueError::Full(full)));
                }
            }
            let turn = next_turn!(&mut *tx, pool, owner, address);
            let done = sqlx::query(concat!(
                "UPDATE sessions SET status = ",
                state!(queued),
                ", stage = NULL, progress = NULL, message = '', version = version + $4, updated_at = $3, queued_at = $3, \
                 started_at = NULL, finished_at = NULL, crashes = 0, error_code = NULL, error_message = NULL, \
                 duration_processed = 0, estimated_completion = NULL, processing_speed = NULL, remarks = '', \
                 detected_language = NULL, detected_probability = NULL, first_segment = segments, track = $7, \
                 channel_choice = $8, turn = $5, address = $6 WHERE id = $1 AND owner = $2 AND status IN ",
                state!(ended)
            ))
            .bind(id.to_string())
            .bind(owner.as_str())
            .bind(now.0)
            .bind(VERSION_GAP)
            .bind(turn)
            .bind(address)
            .bind(track.map(String::from))
            .bind(channels.as_str())
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if done == 0 {
                return Ok(Ok(0));
            }
            for delete in ["DELETE FROM segments WHERE session_id = $1", "DELETE FROM waveforms WHERE session_id = $1"]
            {
                sqlx::query(delete).bind(id.to_string()).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            Ok(Ok(done))
        })??;
        Ok(self.event_if(changed > 0, id).await?)
    }
}

impl Store {
    /// Updates the position of queued sessions and, from the `speed` of this node (audio seconds per second) and its
    /// number of `workers`, their arrival time. Writes only sessions whose position differs from the one written last,
    /// or whose arrival time has moved.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn refresh_queue(
        &self,
        now: Timestamp,
        speed: Option<f64>,
        workers: u32,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let (running, unknown): (f64, i64) = on!(self, |pool| sqlx::query_as(RUNNING_REST).fetch_one(pool).await)?;
        let line: Vec<QueueEntry> = on!(self, |pool| sqlx::query_as(QUEUE).fetch_all(pool).await)?;
        let ahead = (unknown == 0).then_some(running);
        let changed = changed_entries(&line, ahead, now, speed, workers);
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let [sqlite, postgres] = UPDATE_QUEUE;
        let updated: Vec<(String,)> = on!(self, |pool| sqlx::query_as(pool.pick(sqlite, postgres))
            .bind(serde_json::Value::from(changed).to_string())
            .bind(now.0)
            .fetch_all(pool)
            .await)?;
        let updated: Vec<String> = updated.into_iter().map(|(id,)| id).collect();
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(pool.pick(
            updated_sql!("SELECT value FROM json_each($1)"),
            updated_sql!("SELECT jsonb_array_elements_text(CAST($1 AS jsonb))"),
        ))
        .bind(super::json_list(&updated)?)
        .fetch_all(pool)
        .await)?;
        let event = |row: SessionRow| row.into_session().map(|(session, owner)| Event::status(owner, session.status));
        rows.into_iter().map(event).collect()
    }
}

/// A queued session, with the position and arrival time that were written last.
#[derive(sqlx::FromRow)]
struct QueueEntry {
    id: String,
    /// Remaining seconds of audio, if its length is known.
    rest: Option<f64>,
    told_position: Option<i64>,
    estimated_completion: Option<i64>,
}

/// Selects the entries whose position or arrival time has changed, as rows for [`UPDATE_QUEUE`]. `ahead` is the audio
/// that the running sessions have left, in seconds, if that is known.
fn changed_entries(
    line: &[QueueEntry],
    mut ahead: Option<f64>,
    now: Timestamp,
    speed: Option<f64>,
    workers: u32,
) -> Vec<serde_json::Value> {
    let mut rows = Vec::new();
    for (position, waiting) in (0_i64..).zip(line) {
        let arrival = ahead.and_then(|ahead| queue_arrival(now, ahead, waiting.rest, speed, workers));
        if waiting.told_position != Some(position)
            || arrival_moved(waiting.estimated_completion.map(Timestamp), arrival, now)
        {
            rows.push(json!({"id": waiting.id, "position": position, "completion": arrival.map(|at| at.0)}));
        }
        // Behind a recording of unknown length no arrival time can be computed.
        ahead = ahead.zip(waiting.rest).map(|(ahead, rest)| ahead + rest);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [(i64, f64); 4] = [(0, 0.0); 4];

    fn limits() -> QueueLimits {
        let share = |sessions, seconds| Share { sessions, seconds };
        QueueLimits {
            all: share(10, 1000.0),
            owner: share(5, 500.0),
            address: share(2, 200.0),
            newcomers: share(4, 400.0),
            unknown_secs: 100.0,
            bytes_per_owner: None,
        }
    }

    fn reached(counts: [(i64, f64); 4], newcomer: bool, seconds: f64) -> Option<(LimitScope, ReachedLimit)> {
        full_share(&counts, newcomer, &limits(), seconds).map(|(scope, limit, ..)| (scope, limit))
    }

    #[test]
    fn each_part_of_the_queue_has_its_own_limits() {
        assert_eq!(reached(EMPTY, true, 100.0), None);
        let all = |n, secs| [(n, secs), (0, 0.0), (0, 0.0), (0, 0.0)];
        assert_eq!(reached(all(9, 90.0), false, 10.0), None);
        assert_eq!(reached(all(10, 90.0), false, 10.0), Some((LimitScope::All, ReachedLimit::Sessions(10))));
        assert_eq!(reached(all(3, 950.0), false, 51.0), Some((LimitScope::All, ReachedLimit::Seconds(1000.0))));
        // The limits of newcomers apply to newcomers only.
        let near = [(2, 20.0), (0, 0.0), (2, 20.0), (2, 20.0)];
        assert_eq!(reached(near, false, 10.0), None);
        assert_eq!(reached(near, true, 10.0), Some((LimitScope::Address, ReachedLimit::Sessions(2))));
        let far = [(4, 40.0), (0, 0.0), (0, 0.0), (4, 40.0)];
        assert_eq!(reached(far, true, 10.0), Some((LimitScope::Newcomers, ReachedLimit::Sessions(4))));
        let own = [(1, 500.0), (1, 500.0), (0, 0.0), (0, 0.0)];
        assert_eq!(reached(own, false, 0.0), Some((LimitScope::Owner, ReachedLimit::Seconds(500.0))));
    }

    #[test]
    fn a_recording_longer_than_the_limit_is_accepted_when_nothing_else_waits() {
        assert_eq!(reached(EMPTY, true, 5000.0), None);
        let one = [(1, 10.0), (0, 0.0), (1, 10.0), (1, 10.0)];
        assert_eq!(reached(one, true, 5000.0), Some((LimitScope::Address, ReachedLimit::Seconds(200.0))));
    }
}
