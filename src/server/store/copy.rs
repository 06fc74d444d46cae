//! A copy of an SQLite database in a file of its own, made while a node uses the database. Called by `backup`.

use super::{DatabaseOpenError, Store, sqlite, values};
use crate::model::SessionId;
use sqlx::Connection;
use std::path::Path;

/// The version of the tables from which on there are uploads in parts.
const UPLOADS_SINCE: i64 = 17;

/// What a copy of a database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseCopy {
    /// The version of its tables.
    pub schema: i64,
    pub sessions: u64,
    /// The sessions that were sent with a recording, which may have been removed since.
    pub with_recordings: Vec<SessionId>,
}

impl Store {
    /// Copies the SQLite database at `from`, as it is at one moment, into the new file `to`. Changes nothing in it; a
    /// node may write to it meanwhile.
    ///
    /// # Errors
    /// If it can't be read, has no tables or those of a newer Hark, or `to` can't be written.
    pub async fn copy_file(from: &Path, to: &Path) -> Result<DatabaseCopy, DatabaseOpenError> {
        let mut copy = sqlite::copy(from, to).await?;
        let (sessions,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM sessions").fetch_one(&mut copy.connection).await?;
        // Those of workers outside Hark have none.
        let rows: Vec<(String,)> = sqlx::query_as("SELECT id FROM sessions WHERE engine <> 'external' ORDER BY id")
            .fetch_all(&mut copy.connection)
            .await?;
        let with_recordings = rows.iter().map(|(id,)| values::parse(id)).collect::<Result<_, _>>()?;
        if copy.schema >= UPLOADS_SINCE {
            // The parts of uploads under way aren't copied; who sends one is told that it is gone, and begins anew.
            sqlx::raw_sql("DELETE FROM upload_parts; DELETE FROM uploads").execute(&mut copy.connection).await?;
        }
        copy.connection.close().await?;
        Ok(DatabaseCopy { schema: copy.schema, sessions: sessions.unsigned_abs(), with_recordings })
    }
}
