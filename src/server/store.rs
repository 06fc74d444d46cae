//! All SQL of Hark. Sessions, their segments, and the queue, which is the sessions table itself.
//! Every change of a status is one call that also returns the event to publish. Called by `sessions` and `jobs`.

mod fold;
mod page;
mod postgres;
mod rows;
mod sqlite;

use super::{event::Event, owner::Owner};
use crate::model::{
    EngineId, Failure, Media, Segment, Session, SessionId, StageLog, State, Status, Timestamp, Title, text::count,
};
use fold::fold;
use rows::{SegmentRow, SessionRow};
use sqlx::{Connection, PgPool, SqliteConnection, SqlitePool, Transaction};
use std::{collections::HashMap, path::Path, sync::Arc};
use tokio::sync::Mutex;

/// What a change made by anyone but the running worker adds to the version. The worker publishes ticks that it stores
/// only once a second, so the version in the store lags behind by a few; this leaps over them.
const LEAP: i64 = 1000;

/// The columns of a [`SessionRow`], from `sessions s`; its position in the queue is counted, or is the expression given.
macro_rules! session_columns {
    () => {
        session_columns!(
            "CASE WHEN s.status = 'queued' AND s.engine <> 'external' THEN (SELECT COUNT(*) FROM sessions q \
             WHERE q.status = 'queued' AND q.engine <> 'external' \
             AND (q.turn, q.queued_at, q.id) < (s.turn, s.queued_at, s.id)) END"
        )
    };
    ($position:literal) => {
        concat!(
            "s.id, s.owner, s.title, s.created_at, s.started_at, s.finished_at, s.updated_at, s.engine, s.model, \
             s.language, s.file_name, s.bytes, s.format, s.codec, s.sample_rate, s.channels, s.version, s.status, \
             s.stage, s.progress, s.message, s.duration_processed, s.duration_total, s.estimated_completion, \
             s.processing_speed, s.segments, s.attempt, s.crashes, s.error_code, s.error_message, s.needs_room, ",
            $position,
            " AS queue_position"
        )
    };
}

/// Runs the same statement on whichever database there is. Both know `$1`, and the types that Hark keeps.
macro_rules! on {
    ($store:expr, |$pool:ident| $work:expr) => {
        match &$store.db {
            Db::Sqlite($pool) => $work,
            Db::Postgres($pool) => $work,
        }
    };
}

/// Takes the session whose turn is next (see `queue`). `$lock` goes to the end of the look for it.
macro_rules! claim_sql {
    ($lock:literal) => {
        concat!(
            "UPDATE sessions SET status = 'processing', stage = 'decoding', progress = NULL, \
             message = 'Reading the recording', attempt = attempt + 1, version = version + $4, worker = $1, \
             needs_room = NULL, lease_until = $3, started_at = COALESCE(started_at, $2), updated_at = $2, estimated_completion = NULL, \
             processing_speed = NULL \
             WHERE status = 'queued' AND id = (SELECT id FROM sessions WHERE status = 'queued' AND engine <> 'external' \
             AND bytes <= $5 ORDER BY turn, queued_at, id LIMIT 1",
            $lock,
            ") RETURNING id"
        )
    };
}

/// Takes back sessions whose lease has run out, but for those in `$running`, a look at the list `$5`.
macro_rules! reap_sql {
    ($running:literal) => {
        concat!(
            "UPDATE sessions SET \
             status = CASE WHEN crashes + 1 >= $3 THEN 'failed' ELSE 'queued' END, \
             stage = CASE WHEN crashes + 1 >= $3 THEN stage ELSE NULL END, \
             finished_at = CASE WHEN crashes + 1 >= $3 THEN $1 ELSE NULL END, \
             error_code = CASE WHEN crashes + 1 >= $3 THEN 'worker_lost' ELSE NULL END, \
             progress = CASE WHEN crashes + 1 >= $3 THEN progress ELSE NULL END, \
             address = CASE WHEN crashes + 1 >= $3 THEN NULL ELSE address END, \
             crashes = crashes + 1, version = version + $4, updated_at = $1, worker = NULL, lease_until = NULL, \
             estimated_completion = NULL, processing_speed = NULL \
             WHERE status = 'processing' AND engine <> 'external' \
             AND ($2 OR lease_until IS NULL OR lease_until < $1) AND id NOT IN (",
            $running,
            ") RETURNING id, crashes"
        )
    };
}

/// Adds a session that comes in this turn of the queue.
macro_rules! insert_session {
    ($executor:expr, $new:expr, $turn:expr, $now:expr) => {
        sqlx::query(
            "INSERT INTO sessions (id, owner, title, title_folded, created_at, queued_at, updated_at, engine, language, file_name, \
             bytes, format, codec, sample_rate, channels, version, status, message, duration_processed, \
             duration_total, segments, attempt, crashes, lease_until, turn, address) \
             VALUES ($1, $2, $3, $17, $4, $4, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1, 'queued', \
             'Waiting for its worker', 0, $13, 0, 0, 0, $14, $15, $16)",
        )
        .bind($new.id.to_string())
        .bind($new.owner.as_str())
        .bind($new.title.as_str())
        .bind($now.0)
        .bind($new.engine.as_str())
        .bind(&$new.language)
        .bind(&$new.media.file_name)
        .bind($new.media.bytes as i64)
        .bind(&$new.media.format)
        .bind(&$new.media.codec)
        .bind(i64::from($new.media.sample_rate))
        .bind(i64::from($new.media.channels))
        .bind($new.duration_total)
        .bind($new.lease_until.map(|t| t.0))
        .bind($turn)
        .bind(&$new.address)
        .bind($crate::server::store::fold($new.title.as_str()))
        .execute($executor)
        .await
        .map(drop)
    };
}

/// Adds a segment.
macro_rules! insert_segment {
    ($executor:expr, $id:expr, $segment:expr, $words:expr) => {
        sqlx::query(
            "INSERT INTO segments (session_id, idx, start_s, end_s, text, confidence, words) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind($id.to_string())
        .bind(i64::from($segment.index))
        .bind($segment.start)
        .bind($segment.end)
        .bind(&$segment.text)
        .bind($segment.confidence)
        .bind($words)
        .execute($executor)
        .await
    };
}

/// Writes what an outside worker reported, if the session still runs and the version rises; tells whether it did.
macro_rules! report_status {
    ($executor:expr, $status:expr, $lease_until:expr) => {
        sqlx::query(
            "UPDATE sessions SET version = $2, status = $3, stage = $4, progress = $5, message = $6, updated_at = $7, \
         duration_processed = $8, duration_total = $9, estimated_completion = $10, processing_speed = $11, \
         attempt = $12, error_code = $13, error_message = $14, \
         started_at = COALESCE(started_at, CASE WHEN $3 = 'queued' THEN NULL ELSE $7 END), \
         finished_at = $15, lease_until = $16 \
         WHERE id = $1 AND engine = 'external' AND status IN ('queued', 'processing') AND version < $2",
        )
        .bind($status.session_id.to_string())
        .bind($status.version as i64)
        .bind($status.state.as_str())
        .bind($status.stage.map(|s| s.as_str()))
        .bind($status.progress)
        .bind(&$status.message)
        .bind($status.timestamp.0)
        .bind($status.duration_processed)
        .bind($status.duration_total)
        .bind($status.estimated_completion.map(|t| t.0))
        .bind($status.processing_speed)
        .bind(i64::from($status.attempt))
        .bind($status.error.as_ref().map(|e| &e.code))
        .bind($status.error.as_ref().map(|e| &e.message))
        .bind($status.state.is_terminal().then_some($status.timestamp.0))
        .bind((!$status.state.is_terminal()).then_some($lease_until.0))
        .execute($executor)
        .await
        .map(|done| done.rows_affected() > 0)
    };
}

/// Writes every column of a claimed session's status, if the claim is still valid and the version doesn't fall; tells
/// whether it did.
macro_rules! save_status {
    ($executor:expr, $claim:expr, $status:expr) => {
        sqlx::query(
            "UPDATE sessions SET version = $3, status = $4, stage = $5, progress = $6, message = $7, updated_at = $8, \
         duration_processed = $9, duration_total = $10, estimated_completion = $11, processing_speed = $12, \
         segments = $13, error_code = $14, error_message = $15 \
         WHERE id = $1 AND attempt = $2 AND status = 'processing' AND version <= $3",
        )
        .bind($claim.session.id.to_string())
        .bind(i64::from($claim.session.status.attempt))
        .bind($status.version as i64)
        .bind($status.state.as_str())
        .bind($status.stage.map(|s| s.as_str()))
        .bind($status.progress)
        .bind(&$status.message)
        .bind($status.timestamp.0)
        .bind($status.duration_processed)
        .bind($status.duration_total)
        .bind($status.estimated_completion.map(|t| t.0))
        .bind($status.processing_speed)
        .bind(i64::from($status.segments))
        .bind($status.error.as_ref().map(|e| &e.code))
        .bind($status.error.as_ref().map(|e| &e.message))
        .execute($executor)
        .await
        .map(|done| done.rows_affected() > 0)
    };
}

// Below the macros, which they use.
mod identity;
mod kept;
mod queue;
mod stuck;

pub use kept::{Ended, Kept};
pub use page::{MAX_PAGE, PAGE, SEGMENT_PAGE, recently};
pub use queue::{Bound, EnqueueError, QueueFull, QueueLimits, Share, Whose};
pub use stuck::{Health, STALLED_SECS, Stuck, Way};

/// Sessions and segments in a database.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    /// Keeps an SQLite database open whatever becomes of the pool's connections. See `sqlite::open`.
    keeper: Arc<Mutex<Option<SqliteConnection>>>,
}

/// What the databases do differently.
trait Dialect {
    type Database: sqlx::Database;

    /// Begins a transaction that will write.
    fn begin_write(&self) -> impl Future<Output = Result<Transaction<'static, Self::Database>, sqlx::Error>> + Send;

    /// Begins a transaction that may add to the queue. There is one at a time, over all nodes, so what it counts stays
    /// true until its end.
    fn begin_enqueue(&self) -> impl Future<Output = Result<Transaction<'static, Self::Database>, sqlx::Error>> + Send;

    /// The statement for SQLite or that for PostgreSQL.
    fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str;
}

/// The databases that Hark knows.
#[derive(Clone, Debug)]
enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What a new session is made of.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub owner: Owner,
    pub title: Title,
    pub engine: EngineId,
    pub language: Option<String>,
    pub media: Media,
    /// Seconds, as the recording's container declares it.
    pub duration_total: Option<f64>,
    /// When a session of an outside worker fails unless the worker has said something.
    pub lease_until: Option<Timestamp>,
    /// A keyed hash of the address it comes from, if its owner is a newcomer and counts by that.
    pub address: Option<String>,
}

/// The right to work on a session, until the lease runs out or someone takes it away. Writes made with a claim that
/// is no longer valid change nothing: the attempt fences them.
#[derive(Clone, Debug)]
pub struct Claim {
    pub session: Session,
    pub owner: Owner,
    /// Attempts that crashed before this one.
    pub crashes: u32,
}

/// How a claimed session ends, or goes back to the queue.
#[derive(Clone, Debug)]
pub enum Ending {
    Completed,
    Failed(Failure),
    /// Back to the queue without blame: the worker is shutting down.
    HandedBack,
}

impl Store {
    /// Opens the SQLite database at `path`, makes it if there is none, and brings its tables up to date.
    ///
    /// # Errors
    /// If the file can't be opened or written, or was made by a newer Hark.
    pub async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let (pool, keeper) = sqlite::open(path).await?;
        let store = Self { db: Db::Sqlite(pool), keeper: Arc::new(Mutex::new(Some(keeper))) };
        store.fold_titles().await?;
        Ok(store)
    }

    /// Opens the PostgreSQL database at `url`, such as `postgres://user:password@host/name`, and brings its tables up to
    /// date. Several nodes may do so at once.
    ///
    /// # Errors
    /// If the server can't be reached, or the tables were made by a newer Hark.
    pub async fn connect(url: &str) -> Result<Self, sqlx::Error> {
        let store = Self { db: Db::Postgres(postgres::open(url).await?), keeper: Arc::default() };
        store.fold_titles().await?;
        Ok(store)
    }

    /// Folds the titles of sessions that were added before titles were kept folded, as databases can't do it.
    async fn fold_titles(&self) -> Result<(), sqlx::Error> {
        const BATCH: i64 = 1000;
        let mut after = String::new();
        loop {
            let rows: Vec<(String, String)> = on!(self, |pool| sqlx::query_as(
                "SELECT id, title FROM sessions WHERE title_folded = '' AND id > $1 ORDER BY id LIMIT $2"
            )
            .bind(&after)
            .bind(BATCH)
            .fetch_all(pool)
            .await)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after.clone_from(last);
            on!(self, |pool| {
                let mut tx = pool.begin_write().await?;
                for (id, title) in rows {
                    // The title again: another node may be renaming it.
                    sqlx::query("UPDATE sessions SET title_folded = $3 WHERE id = $1 AND title = $2")
                        .bind(id)
                        .bind(&title)
                        .bind(fold(&title))
                        .execute(&mut *tx)
                        .await?;
                }
                tx.commit().await?;
            });
        }
    }

    /// Whether the PostgreSQL server at `url` lets Hark in. Changes nothing there.
    ///
    /// # Errors
    /// If it doesn't, within 10 seconds.
    pub async fn probe(url: &str) -> Result<(), sqlx::Error> {
        postgres::probe(url).await
    }

    /// Whether other nodes may use this database too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// Whether the database can be written: writes a row of its own.
    ///
    /// # Errors
    /// If it can't.
    pub async fn try_write(&self, now: Timestamp) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query(
            "INSERT INTO write_probe (id, at) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET at = $1"
        )
        .bind(now.0)
        .execute(pool)
        .await
        .map(drop))
    }

    /// On SQLite, carries the write-ahead log over into the database, so that its room is used again from the start: a
    /// small write then needs no more than the files hold already. Where that isn't possible now, nothing changes.
    pub async fn reuse_log(&self) {
        if let Db::Sqlite(pool) = &self.db
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(pool).await
        {
            tracing::debug!(%error, "the write-ahead log could not be carried over");
        }
    }

    /// Closes the database after what is under way.
    pub async fn close(&self) {
        on!(self, |pool| pool.close().await);
        if let Some(keeper) = self.keeper.lock().await.take()
            && let Err(error) = keeper.close().await
        {
            tracing::debug!(%error, "the last connection to the database could not be closed in order");
        }
    }

    // Sessions, for their owner

    /// Adds a session that an outside worker reports on. Those for Hark's own workers go through [`Store::enqueue`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<(Session, Event), sqlx::Error> {
        on!(self, |pool| insert_session!(pool, new, 0_i64, now))?;
        self.added(new.id).await
    }

    async fn added(&self, id: SessionId) -> Result<(Session, Event), sqlx::Error> {
        let (session, owner) = self.any(id).await?.ok_or(sqlx::Error::RowNotFound)?;
        let event = Event::status(owner, session.status.clone());
        Ok((session, event))
    }

    /// A session of this owner.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session(&self, owner: &Owner, id: SessionId) -> Result<Option<Session>, sqlx::Error> {
        let found = self.any(id).await?;
        Ok(found.and_then(|(session, whose)| (whose == *owner).then_some(session)))
    }

    /// A session, whoever owns it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn any(&self, id: SessionId) -> Result<Option<(Session, Owner)>, sqlx::Error> {
        let row: Option<SessionRow> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE s.id = $1"
        ))
        .bind(id.to_string())
        .fetch_optional(pool)
        .await)?;
        row.map(SessionRow::into_session).transpose()
    }

    /// The owner's sessions, newest first, whose title contains `query` (see `fold` for what is taken for the same), older
    /// than `before`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn list(
        &self,
        owner: &Owner,
        query: &str,
        before: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<Session>, sqlx::Error> {
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE s.owner = $1 AND ($2 = '' OR s.title_folded LIKE $3 ESCAPE '\\') \
             AND ($4 = '' OR s.id < $4) ORDER BY s.id DESC LIMIT $5"
        ))
        .bind(owner.as_str())
        .bind(query)
        .bind(like_pattern(query))
        .bind(before.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|row| row.into_session().map(|(session, _)| session)).collect()
    }

    /// The statuses that an owner's watcher must know: of every session that hasn't ended, or changed after `since`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn statuses(&self, owner: &Owner, since: Timestamp) -> Result<Vec<Status>, sqlx::Error> {
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE s.owner = $1 AND (s.status IN ('queued', 'processing') OR s.updated_at >= $2) \
             ORDER BY s.id"
        ))
        .bind(owner.as_str())
        .bind(since.0)
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|row| row.into_session().map(|(session, _)| session.status)).collect()
    }

    /// Segments of a session from index `from`, in order, at most `limit`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn segments(&self, id: SessionId, from: u32, limit: u32) -> Result<Vec<Segment>, sqlx::Error> {
        let rows: Vec<SegmentRow> = on!(self, |pool| sqlx::query_as(
            "SELECT idx, start_s, end_s, text, confidence, words FROM segments \
             WHERE session_id = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        )
        .bind(id.to_string())
        .bind(i64::from(from))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(SegmentRow::into_segment).collect()
    }

    /// Changes the title of a session of this owner. False if there is none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn rename(&self, owner: &Owner, id: SessionId, title: &Title) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query(
            "UPDATE sessions SET title = $3, title_folded = $4 WHERE id = $1 AND owner = $2"
        )
        .bind(id.to_string())
        .bind(owner.as_str())
        .bind(title.as_str())
        .bind(fold(title.as_str()))
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Cancels a session of this owner that is queued or processing. None if it is neither.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel(&self, owner: &Owner, id: SessionId, now: Timestamp) -> Result<Option<Event>, sqlx::Error> {
        let changed = on!(self, |pool| {
            // Alone, as those who add to the queue are: two that closed up the same line would wait for each other.
            let mut tx = pool.begin_enqueue().await?;
            // If it waits, the owner's others move up into its turn.
            sqlx::query(
                "UPDATE sessions SET turn = turn - 1 WHERE owner = $2 AND status = 'queued' AND engine <> 'external' \
                 AND turn > (SELECT q.turn FROM sessions q WHERE q.id = $1 AND q.owner = $2 AND q.status = 'queued' \
                 AND q.engine <> 'external')",
            )
            .bind(id.to_string())
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await?;
            let done = sqlx::query(
                "UPDATE sessions SET status = 'cancelled', message = 'Cancelled', version = version + $4, \
                 updated_at = $3, finished_at = $3, estimated_completion = NULL, processing_speed = NULL, \
                 worker = NULL, lease_until = NULL, address = NULL \
                 WHERE id = $1 AND owner = $2 AND status IN ('queued', 'processing')",
            )
            .bind(id.to_string())
            .bind(owner.as_str())
            .bind(now.0)
            .bind(LEAP)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            tx.commit().await?;
            done
        });
        self.event_if(changed > 0, id).await
    }

    /// Removes a session of this owner with its segments. False if there is none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete(&self, owner: &Owner, id: SessionId) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query("DELETE FROM sessions WHERE id = $1 AND owner = $2")
            .bind(id.to_string())
            .bind(owner.as_str())
            .execute(pool)
            .await
            .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Sessions with these ids, those that there are, whoever owns them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn many(&self, ids: &[SessionId]) -> Result<Vec<(Session, Owner)>, sqlx::Error> {
        let ids = json_list(ids)?;
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(pool.pick(
            concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.id IN (SELECT value FROM json_each($1))"),
            concat!(
                "SELECT ",
                session_columns!(),
                " FROM sessions s WHERE s.id IN (SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))"
            ),
        ))
        .bind(ids)
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(SessionRow::into_session).collect()
    }

    /// Version and number of segments of those of these sessions that there are.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn versions(&self, ids: &[SessionId]) -> Result<HashMap<SessionId, (u64, u32)>, sqlx::Error> {
        let ids = json_list(ids)?;
        let rows: Vec<(String, i64, i64)> = on!(self, |pool| sqlx::query_as(pool.pick(
            "SELECT id, version, segments FROM sessions WHERE id IN (SELECT value FROM json_each($1))",
            "SELECT id, version, segments FROM sessions \
             WHERE id IN (SELECT jsonb_array_elements_text(CAST($1 AS jsonb)))",
        ))
        .bind(ids)
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|(id, version, n)| Ok((rows::parse(&id)?, (version as u64, rows::small(n))))).collect()
    }

    /// Gives a session a version above `known`, which watchers were told and the database doesn't have. False for one that
    /// is being processed: its worker's next write goes beyond by itself.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn raise_version(&self, id: SessionId, known: u64) -> Result<bool, sqlx::Error> {
        let raised = on!(self, |pool| sqlx::query(
            "UPDATE sessions SET version = $2 WHERE id = $1 AND version < $2 AND status <> 'processing'"
        )
        .bind(id.to_string())
        .bind((known as i64).saturating_add(LEAP))
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(raised > 0)
    }

    /// The versions of what [`Store::statuses`] tells, for several owners.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn versions_of_owners(
        &self,
        owners: &[Owner],
        since: Timestamp,
    ) -> Result<Vec<(SessionId, Owner, u64)>, sqlx::Error> {
        let owners = json_list(&owners.iter().map(Owner::as_str).collect::<Vec<_>>())?;
        let rows: Vec<(String, String, i64)> = on!(self, |pool| sqlx::query_as(pool.pick(
            "SELECT id, owner, version FROM sessions WHERE owner IN (SELECT value FROM json_each($1)) \
             AND (status IN ('queued', 'processing') OR updated_at >= $2)",
            "SELECT id, owner, version FROM sessions \
             WHERE owner IN (SELECT jsonb_array_elements_text(CAST($1 AS jsonb))) \
             AND (status IN ('queued', 'processing') OR updated_at >= $2)",
        ))
        .bind(owners)
        .bind(since.0)
        .fetch_all(pool)
        .await)?;
        let rows = rows.into_iter();
        rows.map(|(id, owner, version)| Ok((rows::parse(&id)?, Owner::from_store(owner), version as u64))).collect()
    }

    /// Whether a session exists, whoever owns it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn exists(&self, id: SessionId) -> Result<bool, sqlx::Error> {
        let (found,): (i64,) = on!(self, |pool| sqlx::query_as("SELECT COUNT(*) FROM sessions WHERE id = $1")
            .bind(id.to_string())
            .fetch_one(pool)
            .await)?;
        Ok(found > 0)
    }

    /// How many sessions there are by status, over all owners.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn counts(&self) -> Result<Vec<(State, u64)>, sqlx::Error> {
        let rows: Vec<(String, i64)> =
            on!(self, |pool| sqlx::query_as("SELECT status, COUNT(*) FROM sessions GROUP BY status")
                .fetch_all(pool)
                .await)?;
        rows.into_iter().map(|(name, n)| Ok((rows::parse(&name)?, n as u64))).collect()
    }

    /// The waveform of a session's recording, once it has been decoded.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn waveform(&self, id: SessionId) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let row: Option<(Vec<u8>,)> =
            on!(self, |pool| sqlx::query_as("SELECT peaks FROM waveforms WHERE session_id = $1")
                .bind(id.to_string())
                .fetch_optional(pool)
                .await)?;
        Ok(row.map(|(peaks,)| peaks))
    }

    /// When a session entered which stage.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn stages(&self, id: SessionId) -> Result<StageLog, sqlx::Error> {
        let rows: Vec<(i64, Option<String>)> =
            on!(self, |pool| sqlx::query_as("SELECT at, stage FROM stages WHERE session_id = $1 ORDER BY seq")
                .bind(id.to_string())
                .fetch_all(pool)
                .await)?;
        let entries =
            rows.into_iter().map(|(at, stage)| Ok((Timestamp(at), stage.as_deref().map(rows::parse).transpose()?)));
        entries.collect::<Result<_, sqlx::Error>>().map(StageLog)
    }

    /// The key that signs cookies on all nodes of this database: `candidate` if there was none.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cookie_key(&self, candidate: &[u8]) -> Result<Vec<u8>, sqlx::Error> {
        on!(self, |pool| {
            sqlx::query("INSERT INTO keys (name, value) VALUES ('cookie', $1) ON CONFLICT (name) DO NOTHING")
                .bind(candidate)
                .execute(pool)
                .await?;
            let (key,) = sqlx::query_as("SELECT value FROM keys WHERE name = 'cookie'").fetch_one(pool).await?;
            Ok(key)
        })
    }

    // The queue, for workers

    /// Takes the session whose turn is next of those whose recordings are no larger than `room` bytes, if any, and
    /// leases it to `worker` until `lease_until`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn claim(
        &self,
        worker: &str,
        now: Timestamp,
        lease_until: Timestamp,
        room: u64,
    ) -> Result<Option<(Claim, Event)>, sqlx::Error> {
        // One statement, so no other worker comes between the look and the taking. PostgreSQL's workers step over rows
        // that another is about to take.
        let taken: Option<(String,)> =
            on!(self, |pool| sqlx::query_as(pool.pick(claim_sql!(""), claim_sql!(" FOR UPDATE SKIP LOCKED")))
                .bind(worker)
                .bind(now.0)
                .bind(lease_until.0)
                .bind(LEAP)
                .bind(i64::try_from(room).unwrap_or(i64::MAX))
                .fetch_optional(pool)
                .await)?;
        let Some((id,)) = taken else { return Ok(None) };
        let row: SessionRow = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE s.id = $1"
        ))
        .bind(id)
        .fetch_one(pool)
        .await)?;
        let crashes = row.crashes();
        let (session, owner) = row.into_session()?;
        let event = Event::status(owner.clone(), session.status.clone());
        Ok(Some((Claim { session, owner, crashes }, event)))
    }

    /// Notes of queued sessions whether their recordings are larger than `room`, the bytes that a free worker has for
    /// one, so that their pages say what they wait for.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn note_room(&self, room: u64, now: Timestamp) -> Result<Vec<Event>, sqlx::Error> {
        let ids: Vec<(String,)> = on!(self, |pool| {
            sqlx::query_as(
            "UPDATE sessions SET needs_room = CASE WHEN bytes > $1 THEN bytes END, version = version + 1, updated_at = $2 \
             WHERE status = 'queued' AND engine <> 'external' AND (bytes > $1) <> (needs_room IS NOT NULL) RETURNING id",
        )
        .bind(i64::try_from(room).unwrap_or(i64::MAX))
        .bind(now.0)
        .fetch_all(pool)
        .await
        })?;
        let mut events = Vec::with_capacity(ids.len());
        for (id,) in ids {
            events.extend(self.event_if(true, rows::parse(&id)?).await?);
        }
        Ok(events)
    }

    /// Extends the lease of a claim. False if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn renew(&self, claim: &Claim, lease_until: Timestamp) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query(
            "UPDATE sessions SET lease_until = $3 WHERE id = $1 AND attempt = $2 AND status = 'processing'",
        )
        .bind(claim.session.id.to_string())
        .bind(i64::from(claim.session.status.attempt))
        .bind(lease_until.0)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Writes the status of a claimed session. None if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save(&self, claim: &Claim, status: &Status) -> Result<Option<Event>, sqlx::Error> {
        let saved = on!(self, |pool| save_status!(pool, claim, status))?;
        Ok(saved.then(|| Event::status(claim.owner.clone(), status.clone())))
    }

    /// Adds a segment and writes the status that counts it, both or neither. The event carries that status if its
    /// version is `new`; otherwise the next status tells of it. None if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails, or the segment's index is taken.
    pub async fn append(
        &self,
        claim: &Claim,
        segment: &Segment,
        status: &Status,
        new: bool,
    ) -> Result<Option<Event>, sqlx::Error> {
        let words = words(segment)?;
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            if !save_status!(&mut *tx, claim, status)? {
                return Ok(None);
            }
            insert_segment!(&mut *tx, claim.session.id, segment, &words)?;
            tx.commit().await?;
        });
        let owner = claim.owner.clone();
        Ok(Some(if new {
            Event::segment(owner, segment, status.clone())
        } else {
            Event::bare_segment(owner, status.session_id, segment)
        }))
    }

    /// Notes which model works on a claimed session.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn save_model(&self, claim: &Claim, model: &str) -> Result<(), sqlx::Error> {
        on!(self, |pool| sqlx::query("UPDATE sessions SET model = $3 WHERE id = $1 AND attempt = $2")
            .bind(claim.session.id.to_string())
            .bind(i64::from(claim.session.status.attempt))
            .bind(model)
            .execute(pool)
            .await
            .map(drop))
    }

    /// Keeps the waveform of a session's recording.
    ///
    /// # Errors
    /// If the database fails, or the session is gone.
    pub async fn save_waveform(&self, id: SessionId, peaks: &[u8]) -> Result<(), sqlx::Error> {
        on!(self, |pool| {
            sqlx::query("INSERT INTO waveforms (session_id, peaks) VALUES ($1, $2) ON CONFLICT (session_id) DO UPDATE SET peaks = $2")
            .bind(id.to_string())
            .bind(peaks)
            .execute(pool)
            .await.map(drop)
        })
    }

    /// Ends a claimed session with `status` as the last word of its worker. None if the claim is no longer valid.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn end(&self, claim: &Claim, mut status: Status, ending: Ending) -> Result<Option<Event>, sqlx::Error> {
        let now = status.timestamp;
        status.estimated_completion = None;
        let finished_at = match ending {
            Ending::Completed => {
                status.state = State::Completed;
                status.progress = Some(100.0);
                Some(now.0)
            }
            Ending::Failed(failure) => {
                status.state = State::Failed;
                status.message = failure.message.clone();
                status.error = Some(failure);
                Some(now.0)
            }
            Ending::HandedBack => {
                status.state = State::Queued;
                status.stage = None;
                status.progress = None;
                status.processing_speed = None;
                None
            }
        };
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            if !save_status!(&mut *tx, claim, status)? {
                return Ok(None);
            }
            sqlx::query(
                "UPDATE sessions SET finished_at = $2, worker = NULL, lease_until = NULL, \
                 address = CASE WHEN status = 'queued' THEN address END WHERE id = $1",
            )
            .bind(claim.session.id.to_string())
            .bind(finished_at)
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
        });
        // Read back, because a queued session's place in the queue is part of its status.
        self.event_if(true, claim.session.id).await
    }

    /// Takes back every session whose lease ran out before `now`, or, with `all`, every session that is being
    /// processed (for a start, when no other worker can be there), but none of `running`, which are those that the
    /// caller works on itself: it knows so without a clock. One that crashed `max_attempts` times fails.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reap(
        &self,
        now: Timestamp,
        all: bool,
        running: &[SessionId],
        max_attempts: u32,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let running = json_list(running)?;
        let ids: Vec<(String, i64)> = on!(self, |pool| sqlx::query_as(pool.pick(
            reap_sql!("SELECT value FROM json_each($5)"),
            reap_sql!("SELECT jsonb_array_elements_text(CAST($5 AS jsonb))"),
        ))
        .bind(now.0)
        .bind(all)
        .bind(i64::from(max_attempts))
        .bind(LEAP)
        .bind(&running)
        .fetch_all(pool)
        .await)?;
        let mut events = Vec::with_capacity(ids.len());
        for (id, crashes) in ids {
            if crashes >= i64::from(max_attempts) {
                let message = format!(
                    "The worker stopped {} while working on this recording, so Hark gave up. \
                     What was transcribed is kept; Retry goes on from there.",
                    count(crashes as usize, "time")
                );
                on!(self, |pool| sqlx::query("UPDATE sessions SET message = $2, error_message = $2 WHERE id = $1")
                    .bind(&id)
                    .bind(message)
                    .execute(pool)
                    .await
                    .map(drop))?;
            }
            events.extend(self.event_if(true, rows::parse(&id)?).await?);
        }
        Ok(events)
    }

    /// Puts a claimed session back into the queue after its engine crashed, counting the crash.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn requeue_crashed(&self, claim: &Claim, now: Timestamp) -> Result<Option<Event>, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query(
            "UPDATE sessions SET status = 'queued', stage = NULL, progress = NULL, crashes = crashes + 1, \
             version = version + $3, updated_at = $4, worker = NULL, lease_until = NULL, estimated_completion = NULL, \
             processing_speed = NULL WHERE id = $1 AND attempt = $2 AND status = 'processing'",
        )
        .bind(claim.session.id.to_string())
        .bind(i64::from(claim.session.status.attempt))
        .bind(LEAP)
        .bind(now.0)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        self.event_if(changed > 0, claim.session.id).await
    }

    // Sessions of workers outside Hark

    /// Writes the status that an outside worker reported and extends its lease. False if the session has ended, is
    /// gone, or has a newer version.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn report(&self, status: &Status, lease_until: Timestamp) -> Result<bool, sqlx::Error> {
        on!(self, |pool| report_status!(pool, status, lease_until))
    }

    /// Writes several reported statuses, none of which changes the state or the stage, in one statement. Those that are
    /// no longer newer are left out.
    ///
    /// # Errors
    /// If the database fails; then none is written.
    pub async fn report_steps(&self, statuses: &[Status], lease_until: Timestamp) -> Result<(), sqlx::Error> {
        match &self.db {
            Db::Sqlite(pool) => sqlite::report_steps(pool, statuses, lease_until).await,
            Db::Postgres(pool) => postgres::report_steps(pool, statuses, lease_until).await,
        }
    }

    /// Adds segments that an outside worker sent, the first of which must have index `from`. False if the session has
    /// ended, is gone, or has more or fewer segments than that.
    ///
    /// # Errors
    /// If the database fails; then none is added.
    pub async fn report_segments(
        &self,
        id: SessionId,
        from: u32,
        segments: &[Segment],
        lease_until: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        let words = segments.iter().map(words).collect::<Result<Vec<_>, _>>()?;
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            let done = sqlx::query(
                "UPDATE sessions SET segments = $3, lease_until = $4 \
                 WHERE id = $1 AND segments = $2 AND engine = 'external' AND status IN ('queued', 'processing')",
            )
            .bind(id.to_string())
            .bind(i64::from(from))
            .bind(i64::from(from) + segments.len() as i64)
            .bind(lease_until.0)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            for (segment, words) in segments.iter().zip(&words) {
                insert_segment!(&mut *tx, id, segment, words)?;
            }
            tx.commit().await?;
        });
        Ok(true)
    }

    /// Fails every session whose outside worker has been silent beyond its lease.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reap_outside(&self, now: Timestamp) -> Result<Vec<Event>, sqlx::Error> {
        let ids: Vec<(String,)> = on!(self, |pool| sqlx::query_as(
            "UPDATE sessions SET status = 'failed', finished_at = $1, error_code = 'worker_lost', message = $2, \
             error_message = $2, version = version + $3, updated_at = $1, lease_until = NULL, \
             estimated_completion = NULL, processing_speed = NULL \
             WHERE engine = 'external' AND status IN ('queued', 'processing') AND lease_until < $1 RETURNING id",
        )
        .bind(now.0)
        .bind("The worker that transcribes this recording went silent. What it sent is kept.")
        .bind(LEAP)
        .fetch_all(pool)
        .await)?;
        let mut events = Vec::with_capacity(ids.len());
        for (id,) in ids {
            events.extend(self.event_if(true, rows::parse(&id)?).await?);
        }
        Ok(events)
    }

    async fn event_if(&self, changed: bool, id: SessionId) -> Result<Option<Event>, sqlx::Error> {
        if !changed {
            return Ok(None);
        }
        let found = self.any(id).await?;
        Ok(found.map(|(session, owner)| Event::status(owner, session.status)))
    }
}

/// Whether an error says that the database is away for now, not that it refuses: the same statement may work soon.
#[must_use]
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => true,
        // PostgreSQL's classes 08 (connection), 57P (the server is stopped or starts) and a transaction that was idle for too
        // long (25P03), and SQLite's busy.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || code.starts_with("57P") || ["25P03", "5", "517"].contains(&&*code)
        }),
        _ => false,
    }
}

/// Whether an error says that the database's disk is full: the same statement works as soon as there is room.
#[must_use]
pub fn is_full(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            sqlite::is_full(&**error) || error.code().is_some_and(|code| code == postgres::DISK_FULL)
        }
        _ => false,
    }
}

/// Whether an error says that the database may only be read, as on a standby server.
#[must_use]
pub fn is_read_only(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            sqlite::is_read_only(&**error) || error.code().is_some_and(|code| code == postgres::READ_ONLY)
        }
        _ => false,
    }
}

/// The words of a segment as JSON, as the table has them.
fn words(segment: &Segment) -> Result<String, sqlx::Error> {
    serde_json::to_string(&segment.words).map_err(|e| sqlx::Error::Encode(e.into()))
}

/// A JSON array, which both databases take for a list of any length.
fn json_list(items: &(impl serde::Serialize + ?Sized)) -> Result<String, sqlx::Error> {
    serde_json::to_string(items).map_err(|e| sqlx::Error::Encode(e.into()))
}

/// A LIKE pattern that finds `query` anywhere in a folded title, its wildcards taken literally.
fn like_pattern(query: &str) -> String {
    let mut pattern = String::from("%");
    for c in fold(query).chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
