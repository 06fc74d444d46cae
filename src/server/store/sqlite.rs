//! SQLite: opening a database with the settings that Hark needs (write-ahead log, foreign keys) and migrating it, and
//! keeping faulty connections out of the pool.

use super::{
    Dialect,
    schema::{Applied, DatabaseOpenError, MigrateResult, Schema, Tables},
};
use rustix::{
    fs::{Access, access},
    io::Errno,
    process::{Pid, geteuid, getpriority_process, setpriority_process},
};
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    error::DatabaseError,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The tables as this program needs them.
static MIGRATOR: Migrator = sqlx::migrate!("src/server/store/migrations/sqlite");

/// SQLite allows one writer at a time; with several connections readers go on meanwhile. Each takes up to a megabyte, which it
/// reaches only after hours, and most statements take a fraction of a millisecond.
const CONNECTIONS: u32 = 4;
/// How much of the file each connection keeps in memory: 512 KiB, which SQLite takes as a negative number. Another connection's
/// write makes all of it useless, and the kernel has the file in memory too, so that more would hardly help.
const CACHE: &str = "-512";
/// How long a statement waits for another connection's write to end.
const BUSY: Duration = Duration::from_secs(10);

/// The names of the threads that run statements begin with this, and this is added to their niceness.
const THREAD_NAME: &str = "sqlite";
const NICENESS: i32 = 5;

/// SQLite's primary result codes for a database or a table that another connection has locked for too long.
const BUSY_CODE: u32 = 5;
const LOCKED: u32 = 6;
/// Reads SQLite's clock, which is this machine's, in milliseconds since the Unix epoch.
pub(super) const NOW: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// SQLite's primary result codes after which a connection isn't used again: reading or writing a file failed, so what
/// the connection has cached of it may be wrong.
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const NOTADB: u32 = 26;
/// An extended code of `IOERR`: the index of the write-ahead log could not be made larger.
const IOERR_SHMSIZE: u32 = IOERR | 19 << 8;

/// Opens the pool, and one connection beside it that nobody uses. As long as that one is open, closing a connection of
/// the pool never closes the last one to the database, which would remove the write-ahead log; and making it again
/// needs room on the disk.
pub(super) async fn open(path: &Path) -> Result<(SqlitePool, SqliteConnection), DatabaseOpenError> {
    check_access(path)?;
    let options = options(path);
    let keeper = options.connect().await?;
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        // A file needs no new connections from time to time, as a server may. Each new one would fill its cache again.
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|_, _| {
            lower_priority();
            Box::pin(async { Ok(()) })
        })
        .after_release(|connection, _| Box::pin(is_sound(connection)))
        .connect_with(options)
        .await?;
    migrate(&pool).await?;
    if let Err(error) = refresh_statistics(&pool).await {
        tracing::debug!(%error, "the database's statistics could not be refreshed; queries work without");
    }
    Ok((pool, keeper))
}

/// Makes what the planner knows of the tables true again where they have grown much since. Only here, before anybody else
/// uses the pool: the first time adds tables for it, and a statement that another connection prepares meanwhile may fail
/// with "no such table".
async fn refresh_statistics(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'sqlite_stat1'";
    let (tables,): (i64,) = sqlx::query_as(tables).fetch_one(pool).await?;
    if tables == 0 {
        // Adds the tables, and nothing to them. Otherwise a command that is run beside the server would add them later.
        sqlx::query("ANALYZE sqlite_schema").execute(pool).await?;
    }
    // 0x10000: all tables, 0x10: a limit of rows to read of each, 0x2: ANALYZE where it helps.
    // See https://www.sqlite.org/pragma.html#pragma_optimize.
    sqlx::query("PRAGMA optimize = 0x10012").execute(pool).await?;
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode a crash of the process loses nothing; a power cut may lose the last second, never consistency.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .pragma("cache_size", CACHE)
        .thread_name(|id| format!("{THREAD_NAME}-{id}"))
}

/// Lowers the priority of the threads that run statements, one for each connection. Otherwise streams wait, where there is
/// only one processor, for as long as such a thread likes to run: some milliseconds when it moves the write-ahead log into
/// the database. Engines and decoders have a priority that is lower still.
fn lower_priority() {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for thread in threads {
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let id = thread.file_name().to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
        if name.starts_with(THREAD_NAME)
            && let Err(error) = getpriority_process(None).and_then(|now| setpriority_process(id, now + NICENESS))
        {
            tracing::debug!(%error, "the priority of a thread of the database could not be lowered");
        }
    }
}

/// See `Store::migrate_file`.
pub(super) async fn migrate_at(path: &Path) -> Result<MigrateResult, DatabaseOpenError> {
    check_access(path)?;
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options(path)).await?;
    let result = migrate(&pool).await;
    pool.close().await;
    result
}

async fn migrate(pool: &SqlitePool) -> Result<MigrateResult, DatabaseOpenError> {
    let mut connection = pool.acquire().await?;
    let before = match schema(&mut connection).await? {
        Schema::Current(version) => return Ok(MigrateResult { before: Some(version), after: version }),
        Schema::Behind { has, .. } => has,
    };
    drop(connection);
    MIGRATOR.run(pool).await?;
    Ok(MigrateResult { before, after: Tables::of(&MIGRATOR).version() })
}

/// Compares the tables with what this program needs.
async fn schema(connection: &mut SqliteConnection) -> Result<Schema, DatabaseOpenError> {
    let table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
    let (tables,): (i64,) = sqlx::query_as(table).fetch_one(&mut *connection).await?;
    let applied: Vec<Applied> = if tables > 0 {
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(connection)
            .await?
    } else {
        Vec::new()
    };
    Tables::of(&MIGRATOR).compare(&applied)
}

/// See `Store::examine_file`.
pub(super) async fn examine(path: &Path) -> Result<Schema, DatabaseOpenError> {
    check_access(path)?;
    let mut connection = SqliteConnectOptions::new().filename(path).read_only(true).connect().await?;
    let found = schema(&mut connection).await;
    connection.close().await?;
    found
}

/// Checks that the files of a database can be read and written, if they exist, and made otherwise. SQLite would say of a file
/// neither which one it is nor why, and of one that it may only read nothing before the first write.
fn check_access(database: &Path) -> Result<(), DatabaseOpenError> {
    let beside = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    // Not by opening them: closing a file takes away the locks that this process has on it.
    let refused = |file: &Path| {
        if file.is_dir() {
            return Some(io::ErrorKind::IsADirectory.into());
        }
        let error = access(file, Access::READ_OK | Access::WRITE_OK).err()?;
        (error != Errno::NOENT).then(|| io::Error::from(error))
    };
    let files = [database.to_owned(), beside("-wal"), beside("-shm")];
    let refused = files.into_iter().find_map(|file| Some((refused(&file)?, file))).or_else(|| {
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty())?;
        let error = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
        Some((error.into(), folder.to_owned()))
    });
    refused.map_or(Ok(()), |(error, path)| {
        let owner = path.metadata().ok().map(|meta| meta.uid());
        Err(DatabaseOpenError::Inaccessible { path, error, owner, user: geteuid().as_raw() })
    })
}

fn opening_code(error: &DatabaseOpenError) -> Option<u32> {
    error.code()?.parse().ok()
}

/// See [`super::opening_lacks_room`].
pub(super) fn opening_lacks_room(error: &DatabaseOpenError, disk_is_full: impl FnOnce() -> bool) -> bool {
    match opening_code(error) {
        Some(IOERR_SHMSIZE) => true,
        Some(code) if code & 0xff == FULL => true,
        // A file that could not be made or made larger; but not only for lack of room.
        Some(code) => matches!(code & 0xff, IOERR | CANTOPEN) && disk_is_full(),
        None => false,
    }
}

/// A copy of a database, open for reading.
pub(super) struct Copied {
    pub(super) connection: SqliteConnection,
    /// The version of its tables.
    pub(super) schema: i64,
}

/// Copies a database into a new file. See `Store::copy_file`.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<Copied, DatabaseOpenError> {
    let name = to.to_str().ok_or_else(|| sqlx::Error::Configuration("the path isn't UTF-8".into()))?;
    // Not read-only: the last connection to a database that is closed then leaves its write-ahead log behind.
    let mut connection = SqliteConnectOptions::new().filename(from).busy_timeout(BUSY).connect().await?;
    let copied = sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await;
    connection.close().await?;
    copied?;
    let mut connection = SqliteConnectOptions::new().filename(to).connect().await?;
    match schema(&mut connection).await? {
        Schema::Current(schema) | Schema::Behind { has: Some(schema), .. } => Ok(Copied { connection, schema }),
        Schema::Behind { has: None, .. } => Err(DatabaseOpenError::Empty),
    }
}

/// Whether a connection may go back into the pool. After some errors SQLite ends the transaction by itself. The
/// rollback that sqlx then sends fails, so sqlx would assume from then on that the connection is within a transaction,
/// and begin none on it.
async fn is_sound(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // The handle is locked only after the rollback that a dropped transaction has queued.
    let error = connection.lock_handle().await?.last_error();
    let faulty = error.is_some_and(|error| {
        matches!(code(&error).unwrap_or(0) & 0xff, READONLY | IOERR | CORRUPT | FULL | CANTOPEN | NOTADB)
    });
    Ok(!faulty && !connection.is_in_transaction())
}

fn code(error: &dyn DatabaseError) -> Option<u32> {
    error.code()?.parse().ok()
}

/// See [`super::is_full`].
pub(super) fn is_full(error: &dyn DatabaseError) -> bool {
    code(error).is_some_and(|code| code & 0xff == FULL || code == IOERR_SHMSIZE)
}

/// See [`super::is_read_only`].
pub(super) fn is_read_only(error: &dyn DatabaseError) -> bool {
    code(error).is_some_and(|code| code & 0xff == READONLY)
}

/// See [`super::is_busy`].
pub(super) fn is_busy(error: &dyn DatabaseError) -> bool {
    // PostgreSQL's codes have five digits.
    let own = error.code().is_some_and(|code| code.len() < 5);
    own && code(error).is_some_and(|code| matches!(code & 0xff, BUSY_CODE | LOCKED))
}

impl Dialect for SqlitePool {
    type Database = Sqlite;

    async fn begin_write(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        // IMMEDIATE, because a transaction that begins as a reader and writes later fails if another has written
        // meanwhile.
        self.begin_with("BEGIN IMMEDIATE").await
    }

    async fn begin_enqueue(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        // SQLite has only one writer at a time anyway.
        self.begin_write().await
    }

    fn pick(&self, sqlite: &'static str, _postgres: &'static str) -> &'static str {
        sqlite
    }
}
