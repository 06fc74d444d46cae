//! All SQL of Hark: sessions, their segments, and the queue, which is the sessions table itself; one file for each concern.
//! Every change of a status is one call that also returns the event to publish. Called by `sessions` and `jobs`.

/// What a change made by anyone but the running worker adds to the version. The worker publishes ticks that it stores
/// only once a second, so the version in the store lags behind by a few; this leaps over them.
const LEAP: i64 = 1000;

/// Runs the same statement on whichever database there is. Both know `$1`, and the types that Hark keeps.
macro_rules! on {
    ($store:expr, |$pool:ident| $work:expr) => {
        match &$store.db {
            Db::Sqlite($pool) => $work,
            Db::Postgres($pool) => $work,
        }
    };
}

// Below the macros that they use, and in the order in which they use each other's.
#[macro_use]
mod names;
mod fold;
mod page;
mod postgres;
mod sqlite;
mod values;
#[macro_use]
mod status;
#[macro_use]
mod rows;
#[macro_use]
mod segments;
#[macro_use]
mod sessions;
mod claims;
mod identity;
mod kept;
mod outside;
mod queue;
mod stuck;

use super::{event::Event, owner::Owner};
use crate::model::{Session, SessionId, Timestamp};
pub use claims::{Claim, Ending};
pub use kept::{Ended, Kept};
pub use page::{MAX_PAGE, PAGE, SEGMENT_PAGE, recently};
pub use queue::{Bound, EnqueueError, QueueFull, QueueLimits, Share, Whose};
use rows::SessionRow;
pub use sessions::NewSession;
use sqlx::{Connection, PgPool, SqliteConnection, SqlitePool, Transaction};
use std::{path::Path, sync::Arc};
pub use stuck::{Health, STALLED_SECS, Stuck, Way};
use tokio::sync::Mutex;

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

    async fn added(&self, id: SessionId) -> Result<(Session, Event), sqlx::Error> {
        let (session, owner) = self.any(id).await?.ok_or(sqlx::Error::RowNotFound)?;
        let event = Event::status(owner, session.status.clone());
        Ok((session, event))
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

/// A JSON array, which both databases take for a list of any length.
fn json_list(items: &(impl serde::Serialize + ?Sized)) -> Result<String, sqlx::Error> {
    serde_json::to_string(items).map_err(|e| sqlx::Error::Encode(e.into()))
}
