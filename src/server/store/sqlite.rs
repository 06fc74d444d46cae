//! Opening a SQLite database as Hark needs it: write-ahead log, foreign keys, migrated. Called by `Store::open`.

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};

/// SQLite takes one writer at a time; a few connections let readers go on meanwhile.
const CONNECTIONS: u32 = 8;
/// How long a statement waits for another's write to end.
const BUSY: Duration = Duration::from_secs(10);

pub(super) async fn open(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // In WAL mode a crash of the process loses nothing; a power cut may lose the last second, never consistency.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .optimize_on_close(true, None);
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
    sqlx::migrate!("src/server/store/migrations/sqlite").run(&pool).await?;
    Ok(pool)
}
