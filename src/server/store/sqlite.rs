//! What is particular to SQLite: opening a database as Hark needs it (write-ahead log, foreign keys, migrated).
//! Called by `Store`.

use super::Dialect;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// SQLite takes one writer at a time; a few connections let readers go on meanwhile.
const CONNECTIONS: u32 = 8;
/// How long a statement waits for another's write to end.
const BUSY: Duration = Duration::from_secs(10);

/// SQLite's primary result codes after which a connection isn't used again: a file could not be read or written as it
/// should, so what the connection remembers of it may be wrong.
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const NOTADB: u32 = 26;
/// An extended code of `IOERR`: the index of the write-ahead log could not be made larger.
const IOERR_SHMSIZE: u32 = IOERR | 19 << 8;

/// Opens the pool, and a connection beside it that nobody uses: as long as it is open, closing one of the pool never
/// means closing the last, which would remove the write-ahead log; making it again needs room.
pub(super) async fn open(path: &Path) -> Result<(SqlitePool, SqliteConnection), sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode a crash of the process loses nothing; a power cut may lose the last second, never consistency.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .optimize_on_close(true, None);
    let keeper = options.connect().await?;
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .after_release(|connection, _| Box::pin(is_sound(connection)))
        .connect_with(options)
        .await?;
    sqlx::migrate!("src/server/store/migrations/sqlite").run(&pool).await?;
    Ok((pool, keeper))
}

/// Whether a connection may go back into the pool. After some errors SQLite ends the transaction by itself; the rollback
/// that sqlx then sends fails, and sqlx would take the connection for one within a transaction from then on, and begin
/// none on it.
async fn is_sound(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // A rollback that a dropped transaction has queued is carried out before the lock is given.
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

impl Dialect for SqlitePool {
    type Database = Sqlite;

    async fn begin_write(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        // At once: a reader that became a writer later would be refused if another had written meanwhile.
        self.begin_with("BEGIN IMMEDIATE").await
    }

    async fn begin_enqueue(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        // There is one writer at a time anyway.
        self.begin_write().await
    }

    fn pick(&self, sqlite: &'static str, _postgres: &'static str) -> &'static str {
        sqlite
    }
}
