//! All SQL of Hark: sessions, their segments, and the queue, which is the sessions table itself; one file for each concern.
//! Every change of a status is one call that also returns the event to publish. Called by `sessions` and `jobs`.

/// How much any writer but the running worker adds to the version. The worker publishes progress that it stores only
/// once a second, so the stored version may be behind the published one. The gap keeps the other writer's version from
/// colliding with progress that was published but not stored.
const VERSION_GAP: i64 = 1000;

/// The same for the session of a worker outside Hark: what any writer adds to the stored version that can't know which
/// versions were announced. Such a worker may number its versions by microseconds, its progress is stored up to half a
/// minute late, and a crash loses what isn't stored.
pub const OUTSIDE_VERSION_GAP: u64 = 1 << 32;

/// Runs the same statement, or transaction, on whichever database is configured. Both accept `$1` and the types that Hark
/// stores. It is one query in the metrics, and a `Result` with [`sqlx::Error`]; a `?` or `return` within it leaves the query
/// and not the function around it.
macro_rules! on {
    ($store:expr, |$pool:ident| $work:expr) => {
        match &$store.db {
            Db::Sqlite($pool) => crate::server::store::measured::measured(async { $work }).await,
            Db::Postgres($pool) => crate::server::store::measured::measured(async { $work }).await,
        }
    };
}

// These modules stand below the macros that they use, and in an order in which each follows those whose macros it uses.
#[macro_use]
mod names;
mod fold;
mod measured;
mod outage;
mod page;
mod postgres;
mod schema;
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
mod admin;
mod alerts;
mod claims;
mod cluster;
mod copy;
mod figures;
mod identity;
mod list;
mod maintenance;
mod outside;
mod queue;
mod search;
#[macro_use]
mod stuck;
mod oversight;
mod uploads;

pub use super::folders::DATABASE_FILE;
use super::{event::Event, owner::Owner};
use crate::model::{Session, SessionId, Timestamp};
pub use admin::StoredPassword;
pub use alerts::{AlertMessage, AlertMessageRow, AlertRow};
pub use claims::{Claim, Ending, ReadyEngine};
pub use cluster::{ClusterRow, NodeEngine, NodeRow};
pub use copy::DatabaseCopy;
pub use figures::FiguresRow;
pub use list::{Cursor, InvalidCursor};
pub use maintenance::{EndedSession, SessionFilter};
use outage::Outage;
pub use outside::{KeptConnection, StoredReport};
pub use oversight::{OverseenSession, OversightFilter};
pub use page::{MAX_PAGE, PAGE, SEGMENT_PAGE, recent_cutoff, recent_cutoff_at};
pub use postgres::Connections;
pub use queue::{EnqueueError, LimitScope, QueueFull, QueueLimits, ReachedLimit, Share};
use rows::SessionRow;
pub use schema::{DatabaseOpenError, MigrateResult, Schema};
pub use search::TextQuery;
pub use sessions::NewSession;
use sqlx::{Connection, PgPool, SqliteConnection, SqlitePool, Transaction};
use std::{path::Path, sync::Arc, time::Duration};
pub use stuck::{ANY_IDLE_SECS, Resolution, STALLED_SECS, SessionHealth, StuckSession};
use tokio::{sync::Mutex, time};
use tokio_util::sync::CancellationToken;
pub use uploads::{AddUploadError, PartRow, UnfinishedLimits, UploadRow};

/// Sessions and segments in a database.
#[derive(Clone, Debug)]
pub struct Store {
    db: Db,
    /// Keeps an SQLite database open when the pool closes all of its connections. See `sqlite::open`.
    keeper: Arc<Mutex<Option<SqliteConnection>>>,
    /// Where PostgreSQL is, and whether it can be reached.
    server: Option<Arc<postgres::Server>>,
    outage: Arc<Outage>,
}

/// How long a request that is under way when the database is found to be away may still take.
const AWAY_GRACE: Duration = Duration::from_millis(300);

/// The operations in which the databases differ.
trait Dialect {
    type Database: sqlx::Database;

    /// Begins a transaction that will write.
    fn begin_write(&self) -> impl Future<Output = Result<Transaction<'static, Self::Database>, sqlx::Error>> + Send;

    /// Begins a transaction that may add to the queue. Only one runs at a time, over all nodes, so what it counts stays
    /// true until it ends.
    fn begin_enqueue(&self) -> impl Future<Output = Result<Transaction<'static, Self::Database>, sqlx::Error>> + Send;

    /// Returns the statement for SQLite or the one for PostgreSQL.
    fn pick(&self, sqlite: &'static str, postgres: &'static str) -> &'static str;
}

/// The supported databases.
#[derive(Clone, Debug)]
enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Store {
    /// Opens the SQLite database at `path`, creates it if it doesn't exist, and migrates its tables.
    ///
    /// # Errors
    /// If the file can't be opened or written, or was made by a newer Hark.
    pub async fn open(path: &Path) -> Result<Self, DatabaseOpenError> {
        let (pool, keeper) = sqlite::open(path).await?;
        let keeper = Arc::new(Mutex::new(Some(keeper)));
        let store = Self { db: Db::Sqlite(pool), keeper, server: None, outage: Arc::default() };
        outage::set_up(true);
        store.fold_titles().await?;
        Ok(store)
    }

    /// Opens the PostgreSQL database at `url`, such as `postgres://user:password@host/name`, and migrates its tables if
    /// they need it and the role may. Several nodes may do so at once.
    ///
    /// # Errors
    /// If the server can't be reached, the tables were made by a newer Hark, or the role may not migrate them.
    pub async fn connect(url: &str) -> Result<Self, DatabaseOpenError> {
        Self::connect_with(url, Connections::default()).await
    }

    /// The same with so many connections.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn connect_with(url: &str, connections: Connections) -> Result<Self, DatabaseOpenError> {
        let (pool, server) = postgres::open(url, connections).await?;
        let server = Some(Arc::new(server));
        let store = Self { db: Db::Postgres(pool), keeper: Arc::default(), server, outage: Arc::default() };
        outage::set_up(true);
        store.fold_titles().await?;
        Ok(store)
    }

    /// Makes or completes the tables of the PostgreSQL database at `url`. Changes nothing if they are complete.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn migrate(url: &str) -> Result<MigrateResult, DatabaseOpenError> {
        postgres::migrate_at(url).await
    }

    /// The same in the SQLite database at `path`, which is created if it doesn't exist.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn migrate_file(path: &Path) -> Result<MigrateResult, DatabaseOpenError> {
        sqlite::migrate_at(path).await
    }

    /// Checks that the PostgreSQL server at `url` can be used, and compares its tables with what this program needs.
    /// Changes nothing there.
    ///
    /// # Errors
    /// As [`Store::connect`].
    pub async fn examine(url: &str) -> Result<Schema, DatabaseOpenError> {
        postgres::examine(url).await
    }

    /// Compares the tables of the SQLite database at `path`, which exists, with what this program needs. Changes nothing
    /// there.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn examine_file(path: &Path) -> Result<Schema, DatabaseOpenError> {
        sqlite::examine(path).await
    }

    /// Watches whether PostgreSQL can be reached, until `stop`. Without it, nobody is told that it is away.
    pub async fn watch(&self, stop: &CancellationToken) {
        if let (Db::Postgres(pool), Some(server)) = (&self.db, &self.server) {
            stop.run_until_cancelled(server.watch(pool, &self.outage)).await;
        }
    }

    /// Why the database is away, as a sentence without its full stop; none if it answers.
    #[must_use]
    pub fn outage(&self) -> Option<Arc<str>> {
        self.outage.cause()
    }

    /// Runs `work`, but not much longer than until the database is known to be away. None then.
    pub async fn unless_away<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let away = async {
            self.outage.begins().await;
            // What needs no database, or has its answer already, gets the time for it.
            time::sleep(AWAY_GRACE).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = away => None,
        }
    }

    /// Checks that the PostgreSQL server at `url` accepts a connection, and returns its time and what its database knows
    /// about the cluster. Changes nothing there.
    ///
    /// # Errors
    /// If it doesn't within 10 seconds.
    pub async fn probe(url: &str) -> Result<(Timestamp, Option<ClusterRow>), sqlx::Error> {
        postgres::probe(url).await
    }

    /// Whether other nodes may use this database too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// What the database's clock says: the one clock of a cluster, by which leases are counted.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn now(&self) -> Result<Timestamp, sqlx::Error> {
        let (now,) = on!(self, |pool| sqlx::query_as(pool.pick(sqlite::NOW, postgres::NOW)).fetch_one(pool).await)?;
        Ok(Timestamp(now))
    }

    /// Checks that the database can be written, by writing a row of its own.
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

    /// On SQLite, copies the write-ahead log into the database, so that the log's file is used again from its start: a
    /// small write then needs no more room than the files already have. Changes nothing if that isn't possible now.
    pub async fn checkpoint(&self) {
        if let Db::Sqlite(pool) = &self.db
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(pool).await
        {
            tracing::debug!(%error, "the write-ahead log could not be copied into the database");
        }
    }

    /// Closes the database once running statements have finished.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite(pool) => pool.close().await,
            Db::Postgres(pool) => pool.close().await,
        }
        if let Some(keeper) = self.keeper.lock().await.take()
            && let Err(error) = keeper.close().await
        {
            tracing::debug!(%error, "the last connection to the database could not be closed properly");
        }
    }

    /// Reads a session that was just added, and the event that announces it.
    async fn read_back(&self, id: SessionId) -> Result<(Session, Event), sqlx::Error> {
        let (session, owner) = self.find(id).await?.ok_or(sqlx::Error::RowNotFound)?;
        let event = Event::status(owner, session.status.clone());
        Ok((session, event))
    }

    /// A session, whoever owns it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn find(&self, id: SessionId) -> Result<Option<(Session, Owner)>, sqlx::Error> {
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

    /// Returns the key that signs cookies on all nodes of this database. Stores `candidate` as the key if there is
    /// none.
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

    /// Reads the event of a session's new status, if a statement has `changed` it and it still exists.
    async fn event_if(&self, changed: bool, id: SessionId) -> Result<Option<Event>, sqlx::Error> {
        if !changed {
            return Ok(None);
        }
        let found = self.find(id).await?;
        Ok(found.map(|(session, owner)| Event::status(owner, session.status)))
    }

    /// Reads the events of the new statuses of sessions that a statement has changed, as far as they still exist: all at
    /// once, so that none is missing because another could not be read.
    async fn events(&self, ids: Vec<(String,)>) -> Result<Vec<Event>, sqlx::Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids = ids.iter().map(|(id,)| values::parse(id)).collect::<Result<Vec<SessionId>, _>>()?;
        let mut found = self.find_many(&ids).await?;
        found.sort_unstable_by_key(|(session, _)| session.id);
        Ok(found.into_iter().map(|(session, owner)| Event::status(owner, session.status)).collect())
    }
}

/// Whether an error is transient: the database can't be reached for now, and the same statement may work soon.
#[must_use]
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => true,
        // PostgreSQL's classes 08 (connection) and 57P (the server stops or starts), its code 25P03 (a transaction was
        // idle for too long), and SQLite's "busy".
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || code.starts_with("57P") || ["25P03", "5", "517"].contains(&&*code)
        }),
        _ => false,
    }
}

/// Whether an error says that there is no connection to PostgreSQL, whose cause the log has already.
#[must_use]
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.len() == 5 && postgres::is_connection_code(&code))
        }
        _ => false,
    }
}

/// Whether an error says that somebody else has locked the SQLite database for longer than a statement waits.
#[must_use]
pub fn is_busy(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if sqlite::is_busy(&**error))
}

/// Whether an error says that the database's disk is full. The same statement works as soon as there is room.
#[must_use]
pub fn is_full(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            sqlite::is_full(&**error) || error.code().is_some_and(|code| code == postgres::DISK_FULL)
        }
        _ => false,
    }
}

/// Whether an SQLite database couldn't be opened for lack of room. Some errors say only that a file failed; then it is what
/// `disk_is_full` says.
#[must_use]
pub fn opening_lacks_room(error: &DatabaseOpenError, disk_is_full: impl FnOnce() -> bool) -> bool {
    sqlite::opening_lacks_room(error, disk_is_full)
}

/// Whether an error says that the database is read-only, as on a standby server.
#[must_use]
pub fn is_read_only(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            sqlite::is_read_only(&**error) || error.code().is_some_and(|code| code == postgres::READ_ONLY)
        }
        _ => false,
    }
}

/// Encodes a list as a JSON array, which both databases accept as one parameter, however long the list is.
fn json_list(items: &(impl serde::Serialize + ?Sized)) -> Result<String, sqlx::Error> {
    serde_json::to_string(items).map_err(|e| sqlx::Error::Encode(e.into()))
}
