//! What is particular to SQLite: opening a database as Hark needs it (write-ahead log, foreign keys, migrated), and
//! writing many rows in one statement. Called by `Store`.

use super::Dialect;
use crate::model::{Status, Timestamp};
use serde_json::json;
use sqlx::{
    Sqlite, SqlitePool, Transaction,
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

/// See `Store::report_steps`. The rows go as one JSON array: a statement for each would cost twenty times as much. The
/// plus sign keeps SQLite from going through all running sessions by their status, for each row again.
pub(super) async fn report_steps(
    pool: &SqlitePool,
    statuses: &[Status],
    lease_until: Timestamp,
) -> Result<(), sqlx::Error> {
    let rows: Vec<_> = statuses
        .iter()
        .map(|s| {
            json!([
                s.session_id,
                s.version,
                s.progress,
                s.message,
                s.timestamp.0,
                s.duration_processed,
                s.duration_total,
                s.estimated_completion.map(|t| t.0),
                s.processing_speed,
            ])
        })
        .collect();
    sqlx::query(
        "UPDATE sessions SET version = new.value ->> 1, progress = new.value ->> 2, message = new.value ->> 3, \
         updated_at = new.value ->> 4, duration_processed = new.value ->> 5, duration_total = new.value ->> 6, \
         estimated_completion = new.value ->> 7, processing_speed = new.value ->> 8, lease_until = $2 \
         FROM json_each($1) AS new \
         WHERE sessions.id = new.value ->> 0 AND engine = 'external' AND +status IN ('queued', 'processing') \
         AND version < new.value ->> 1",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(lease_until.0)
    .execute(pool)
    .await
    .map(drop)
}
