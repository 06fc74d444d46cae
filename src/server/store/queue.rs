//! The queue: in which order it is taken, and how much of it everybody may have. Limits are checked within the
//! transaction that adds to it, so they hold whatever happens at once on however many nodes. Called by `sessions`.
//!
//! The order is round robin by owner, as start-time fair queueing does it (Goyal, Vin, Cheng: SIGCOMM 1996): what is
//! added gets the number of a turn, one more than the last of its owner that waits, runs or was served, but no less than
//! the turn that is being served. So an owner has one session in each turn, and whoever comes later joins the turn that
//! is being served. Sessions are taken by (turn, queued_at, id); place, arrival times and the claim all go by that.
//! Owners without history have their turns by address.

use super::{Db, Dialect, LEAP, NewSession, Store, rows::SessionRow, values};
use crate::{
    model::{Session, SessionId, Timestamp, arrival_moved, queue_arrival, queue_wait},
    server::{event::Event, owner::Owner},
};
use serde_json::json;

/// How much may wait for Hark's own workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    pub sessions: u32,
    /// Of audio.
    pub seconds: f64,
}

/// What may wait for Hark's own workers, and what may be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueLimits {
    /// Of all owners together.
    pub all: Share,
    pub owner: Share,
    /// Of the owners without history at one address.
    pub address: Share,
    /// Of all owners without history.
    pub newcomers: Share,
    /// What a recording of unknown length counts for, in seconds.
    pub unknown_secs: f64,
    /// Bytes of recordings that one owner may keep, if that is limited.
    pub bytes_per_owner: Option<u64>,
}

/// Whose share of the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    All,
    Owner,
    /// The newcomers at the caller's address.
    Address,
    Newcomers,
}

/// Which limit of a share was reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    Sessions(u32),
    /// Of audio.
    Seconds(f64),
}

/// Why nothing can be added to the queue now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueFull {
    pub whose: Whose,
    pub bound: Bound,
    /// How many sessions of that share wait, and how much audio that is, in seconds.
    pub waiting: u32,
    pub waiting_secs: f64,
    /// Seconds until there should be room.
    pub wait_secs: f64,
    /// Whether those follow from a measured speed. Without one, work is taken to go as fast as the recording.
    pub measured: bool,
}

/// Why a session could not be queued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    #[error("the queue is full: {:?} of {:?}", .0.bound, .0.whose)]
    Full(QueueFull),
    #[error("the owner keeps {used} bytes of recordings and may keep {limit}")]
    Quota { used: u64, limit: u64 },
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// The seconds of audio that a session still takes. `$unknown` is the parameter that a recording of unknown length
/// counts for.
macro_rules! rest {
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

/// How many wait and how much audio that is: in all, of owner `$1`, at address `$2`, and of newcomers.
const WAITING: &str = concat!(
    "SELECT COUNT(*), COALESCE(SUM(rest), 0.0), \
     COUNT(*) FILTER (WHERE owner = $1), COALESCE(SUM(rest) FILTER (WHERE owner = $1), 0.0), \
     COUNT(*) FILTER (WHERE address = $2), COALESCE(SUM(rest) FILTER (WHERE address = $2), 0.0), \
     COUNT(*) FILTER (WHERE address IS NOT NULL), COALESCE(SUM(rest) FILTER (WHERE address IS NOT NULL), 0.0) \
     FROM (SELECT owner, address, ",
    rest!("$3"),
    " AS rest FROM sessions WHERE status = ",
    state!(queued),
    " AND engine <> ",
    engine!(external),
    ") AS line"
);

/// How much audio is taken before enough of a share has been taken up to make room for `$4` seconds; at least one
/// session of it. The share is that of owner `$1`, of address `$2`, of newcomers if `$3`, or else all of the queue.
const AHEAD: &str = concat!(
    "WITH line AS (SELECT owner, address, turn, queued_at, id, rest, \
     SUM(rest) OVER (ORDER BY turn, queued_at, id) - rest AS ahead FROM (SELECT owner, address, turn, queued_at, id, ",
    rest!("$5"),
    " AS rest FROM sessions WHERE status = ",
    state!(queued),
    " AND engine <> ",
    engine!(external),
    ") AS waiting), \
     share AS (SELECT ahead, SUM(rest) OVER (ORDER BY turn, queued_at, id) AS through FROM line \
     WHERE ($1 = '' OR owner = $1) AND ($2 = '' OR address = $2) AND (NOT $3 OR address IS NOT NULL)) \
     SELECT COALESCE(MIN(ahead) FILTER (WHERE through >= $4), MAX(ahead)) FROM share"
);

/// What runs: how many, how much audio is left of it, how fast it goes, and when the first should be done. The speed is
/// that of the last few that were completed while none of those that run has settled.
const RUNNING: &str = concat!(
    "SELECT COUNT(*), COALESCE(SUM(",
    rest!("$1"),
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

/// The audio that is left of what runs, in seconds, and of how many sessions that isn't known.
const RUNNING_REST: &str = concat!(
    "SELECT COALESCE(SUM(",
    rest!("duration_processed"),
    "), 0.0), COUNT(*) - COUNT(duration_total) FROM sessions WHERE status = ",
    state!(processing),
    " AND engine <> ",
    engine!(external)
);

/// The queue in its order, as [`Waiting`].
const LINE: &str = concat!(
    "SELECT id, CASE WHEN duration_total IS NOT NULL THEN ",
    rest!("duration_processed"),
    " END AS rest, told_position, estimated_completion FROM sessions WHERE status = ",
    state!(queued),
    " AND engine <> ",
    engine!(external),
    " \
     ORDER BY turn, queued_at, id"
);

/// Writes what sessions are told, `$1`, of those that still wait. On SQLite the plus sign makes it look them up by id.
const TELL_QUEUE: [&str; 2] = [
    concat!(
        "UPDATE sessions SET version = version + 1, updated_at = $2, told_position = new.value ->> 'position', \
     estimated_completion = new.value ->> 'completion' FROM json_each($1) AS new \
     WHERE sessions.id = new.value ->> 'id' AND +status = ",
        state!(queued),
        " RETURNING id"
    ),
    // Locked in one order: another node may be telling the same sessions.
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

/// The queued sessions of the list `$1`, with the position that they were told. `$ids` looks at the list.
macro_rules! told_sql {
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

/// The turn of what is added for owner `$1` and, if it is a newcomer, address `$2`.
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

/// Forgets who was served in turns that are over. PostgreSQL's steps over those who are just being served again.
const OLD_TURNS: [&str; 2] = [
    "DELETE FROM turns WHERE turn < (SELECT MAX(turn) FROM turns)",
    "DELETE FROM turns WHERE who IN (SELECT who FROM turns WHERE turn < (SELECT MAX(turn) FROM turns) \
     FOR UPDATE SKIP LOCKED)",
];

/// Which share doesn't hold `seconds` more, if one doesn't, and how many seconds too many it would have.
fn full(
    counts: &[(i64, f64); 4],
    newcomer: bool,
    limits: &QueueLimits,
    seconds: f64,
) -> Option<(Whose, Bound, (i64, f64), f64)> {
    let [all, owner, address, newcomers] = *counts;
    let shares = [
        (Whose::Owner, owner, limits.owner, true),
        (Whose::Address, address, limits.address, newcomer),
        (Whose::All, all, limits.all, true),
        (Whose::Newcomers, newcomers, limits.newcomers, newcomer),
    ];
    shares.into_iter().filter(|(.., counts)| *counts).find_map(|(whose, (n, waiting), share, _)| {
        let over = waiting + seconds - share.seconds;
        if n >= i64::from(share.sessions) {
            return Some((whose, Bound::Sessions(share.sessions), (n, waiting), over.max(0.0)));
        }
        // Alone, a recording may be longer than the share: it would never get in otherwise.
        (n > 0 && (over > 0.0 || waiting >= share.seconds)).then_some((
            whose,
            Bound::Seconds(share.seconds),
            (n, waiting),
            over,
        ))
    })
}

/// Why the queue doesn't take one more session of `$owner`, with `$seconds` of audio, if it doesn't.
macro_rules! queue_full {
    ($executor:expr, $owner:expr, $address:expr, $limits:expr, $seconds:expr, $now:expr) => {{
        let (owner, address, limits): (&Owner, Option<&str>, &QueueLimits) = ($owner, $address, $limits);
        let unknown = limits.unknown_secs;
        let counted: (i64, f64, i64, f64, i64, f64, i64, f64) =
            sqlx::query_as(WAITING).bind(owner.as_str()).bind(address).bind(unknown).fetch_one($executor).await?;
        let (all, all_secs, own, own_secs, near, near_secs, new, new_secs) = counted;
        let counts = [(all, all_secs), (own, own_secs), (near, near_secs), (new, new_secs)];
        match full(&counts, address.is_some(), limits, $seconds) {
            None => None,
            Some((whose, bound, (waiting, waiting_secs), over)) => {
                let (ahead,): (Option<f64>,) = sqlx::query_as(AHEAD)
                    .bind(if whose == Whose::Owner { owner.as_str() } else { "" })
                    .bind(address.filter(|_| whose == Whose::Address).unwrap_or_default())
                    .bind(whose == Whose::Newcomers)
                    .bind(over)
                    .bind(unknown)
                    .fetch_one($executor)
                    .await?;
                let (running, left, speed, first): (i64, f64, Option<f64>, Option<i64>) =
                    sqlx::query_as(RUNNING).bind(unknown).fetch_one($executor).await?;
                let ahead = ahead.unwrap_or(0.0);
                let now: Timestamp = $now;
                let wait_secs = match first {
                    // The next to end makes room at once.
                    Some(first) if ahead <= 0.0 => Timestamp(first).seconds_since(now).max(0.0),
                    _ => queue_wait(ahead + left, speed, values::small(running)),
                };
                let (waiting, measured) = (values::small(waiting), speed.is_some() || first.is_some());
                Some(QueueFull { whose, bound, waiting, waiting_secs, wait_secs, measured })
            }
        }
    }};
}

/// The turn of what is added now for this owner, or this address.
macro_rules! next_turn {
    ($executor:expr, $pool:expr, $owner:expr, $address:expr) => {{
        let [sqlite, postgres] = OLD_TURNS;
        sqlx::query($pool.pick(sqlite, postgres)).execute($executor).await?;
        let (turn,): (i64,) =
            sqlx::query_as(NEXT_TURN).bind($owner.as_str()).bind::<Option<&str>>($address).fetch_one($executor).await?;
        turn
    }};
}

/// The bytes of an owner's recordings.
const KEPT_BYTES: &str = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM sessions WHERE owner = $1";

impl Store {
    /// Why no session of `owner` could be added to the queue just now, if so; `address` if it counts by that. For those
    /// who want to know beforehand.
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
        Ok(on!(self, |pool| queue_full!(pool, owner, address, limits, 0.0, now)))
    }

    /// The bytes of an owner's recordings.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept_bytes(&self, owner: &Owner) -> Result<u64, sqlx::Error> {
        let (bytes,): (i64,) = on!(self, |pool| sqlx::query_as(KEPT_BYTES).bind(owner.as_str()).fetch_one(pool).await)?;
        Ok(bytes as u64)
    }

    /// Whether an owner has history: a session of theirs was completed before `before`, or made by a worker outside
    /// Hark, which has shown its token.
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

    /// Adds a session to the queue.
    ///
    /// # Errors
    /// If the queue is full or the owner keeps too much, or the database fails; then nothing is added.
    pub async fn enqueue(
        &self,
        new: &NewSession,
        limits: &QueueLimits,
        now: Timestamp,
    ) -> Result<(Session, Event), EnqueueError> {
        let address = new.address.as_deref();
        on!(self, |pool| {
            let mut tx = pool.begin_enqueue().await?;
            if let Some(limit) = limits.bytes_per_owner {
                let (used,): (i64,) = sqlx::query_as(KEPT_BYTES).bind(new.owner.as_str()).fetch_one(&mut *tx).await?;
                let used = used as u64;
                if used.saturating_add(new.media.bytes) > limit {
                    return Err(EnqueueError::Quota { used, limit });
                }
            }
            let seconds = new.duration_total.unwrap_or(limits.unknown_secs);
            if let Some(full) = queue_full!(&mut *tx, &new.owner, address, limits, seconds, now) {
                return Err(EnqueueError::Full(full));
            }
            let turn = next_turn!(&mut *tx, pool, new.owner, address);
            insert_session!(&mut *tx, new, turn, now)?;
            tx.commit().await?;
        });
        Ok(self.added(new.id).await?)
    }

    /// Queues a failed or cancelled session of this owner again, keeping its segments; `address` if the owner counts by
    /// that. None if it is neither. Without `limits` for one that had its place just now.
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
            let Some((total, processed)) = found else { return Ok(None) };
            if let Some(limits) = limits {
                let seconds = (total.unwrap_or(limits.unknown_secs) - processed).max(0.0);
                if let Some(full) = queue_full!(&mut *tx, owner, address, limits, seconds, now) {
                    return Err(EnqueueError::Full(full));
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
            .bind(LEAP)
            .bind(turn)
            .bind(address)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            tx.commit().await?;
            done
        });
        Ok(self.event_if(changed > 0, id).await?)
    }
}

impl Store {
    /// Tells queued sessions their position and, with the `speed` of this node (audio seconds per second) and its number of
    /// `workers`, when they should be done: those whose position is another than they were told, or whose arrival time
    /// has moved.
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
        let line: Vec<Waiting> = on!(self, |pool| sqlx::query_as(LINE).fetch_all(pool).await)?;
        let ahead = (unknown == 0).then_some(running);
        let moved = moved(&line, ahead, now, speed, workers);
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        let [sqlite, postgres] = TELL_QUEUE;
        let told: Vec<(String,)> = on!(self, |pool| sqlx::query_as(pool.pick(sqlite, postgres))
            .bind(serde_json::Value::from(moved).to_string())
            .bind(now.0)
            .fetch_all(pool)
            .await)?;
        let told: Vec<String> = told.into_iter().map(|(id,)| id).collect();
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(pool.pick(
            told_sql!("SELECT value FROM json_each($1)"),
            told_sql!("SELECT jsonb_array_elements_text(CAST($1 AS jsonb))"),
        ))
        .bind(super::json_list(&told)?)
        .fetch_all(pool)
        .await)?;
        let event = |row: SessionRow| row.into_session().map(|(session, owner)| Event::status(owner, session.status));
        rows.into_iter().map(event).collect()
    }
}

/// A queued session, and what it was told last.
#[derive(sqlx::FromRow)]
struct Waiting {
    id: String,
    /// Seconds of audio that it still takes, if its length is known.
    rest: Option<f64>,
    told_position: Option<i64>,
    estimated_completion: Option<i64>,
}

/// Which of those that wait must be told something new, as rows for [`TELL_QUEUE`]. `ahead` is the audio that is left of what
/// runs, in seconds, if that is known.
fn moved(
    line: &[Waiting],
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
        // One recording of unknown length hides when those behind it will be done.
        ahead = ahead.zip(waiting.rest).map(|(ahead, rest)| ahead + rest);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [(i64, f64); 4] = [(0, 0.0); 4];

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

    fn whose(counts: [(i64, f64); 4], newcomer: bool, seconds: f64) -> Option<(Whose, Bound)> {
        full(&counts, newcomer, &limits(), seconds).map(|(whose, bound, ..)| (whose, bound))
    }

    #[test]
    fn each_share_has_its_own_limits() {
        assert_eq!(whose(NOBODY, true, 100.0), None);
        let all = |n, secs| [(n, secs), (0, 0.0), (0, 0.0), (0, 0.0)];
        assert_eq!(whose(all(9, 90.0), false, 10.0), None);
        assert_eq!(whose(all(10, 90.0), false, 10.0), Some((Whose::All, Bound::Sessions(10))));
        assert_eq!(whose(all(3, 950.0), false, 51.0), Some((Whose::All, Bound::Seconds(1000.0))));
        // Newcomers' shares are theirs alone.
        let near = [(2, 20.0), (0, 0.0), (2, 20.0), (2, 20.0)];
        assert_eq!(whose(near, false, 10.0), None);
        assert_eq!(whose(near, true, 10.0), Some((Whose::Address, Bound::Sessions(2))));
        let far = [(4, 40.0), (0, 0.0), (0, 0.0), (4, 40.0)];
        assert_eq!(whose(far, true, 10.0), Some((Whose::Newcomers, Bound::Sessions(4))));
        let own = [(1, 500.0), (1, 500.0), (0, 0.0), (0, 0.0)];
        assert_eq!(whose(own, false, 0.0), Some((Whose::Owner, Bound::Seconds(500.0))));
    }

    #[test]
    fn a_recording_longer_than_its_share_gets_in_when_nothing_of_it_waits() {
        assert_eq!(whose(NOBODY, true, 5000.0), None);
        let one = [(1, 10.0), (0, 0.0), (1, 10.0), (1, 10.0)];
        assert_eq!(whose(one, true, 5000.0), Some((Whose::Address, Bound::Seconds(200.0))));
    }
}
