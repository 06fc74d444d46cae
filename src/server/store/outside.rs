//! What workers outside Hark report of their sessions. Called by `outside`.

use super::{Db, Dialect, OUTSIDE_VERSION_GAP, Store, measured::measured, segments::words, status, values};
use crate::{
    model::{Segment, SessionId, Status, Timestamp},
    server::{event::Event, owner::Owner},
};
use sqlx::{Sqlite, pool::PoolConnection};
use std::collections::{HashMap, HashSet};

/// Writes the statuses in the JSON array `$1` and extends the leases to `$2`. The plus sign before `status` keeps SQLite
/// from searching all running sessions by the index on the status for each row.
const MANY_SQLITE: &str = concat!(
    "UPDATE sessions SET lease_until = CASE WHEN new.value ->> 'status' IN ",
    state!(active),
    " THEN $2 END, attempt = new.value ->> 'attempt', \
     started_at = COALESCE(started_at, CASE WHEN new.value ->> 'status' = ",
    state!(queued),
    " THEN NULL ELSE new.value ->> 'updated_at' END), \
     finished_at = CASE WHEN new.value ->> 'status' IN ",
    state!(active),
    " THEN NULL ELSE new.value ->> 'updated_at' END",
    set_row_sqlite!(),
    " FROM json_each($1) AS new WHERE sessions.id = new.value ->> 'id' AND engine = ",
    engine!(external),
    " AND +status IN ",
    state!(active),
    " AND version <= new.value ->> 'after' RETURNING sessions.id, owner, segments"
);
/// The same on PostgreSQL. Rows are locked in one order, because two nodes that store the same sessions at once would
/// deadlock otherwise.
const MANY_POSTGRES: &str = concat!(
    "WITH new AS (SELECT * FROM jsonb_to_recordset(CAST(CAST($1 AS text) AS jsonb)) AS new (",
    status_record!(),
    ", after bigint",
    ")), \
     locked AS MATERIALIZED (SELECT s.id FROM sessions s JOIN new ON s.id = new.id ORDER BY s.id FOR UPDATE OF s) \
     UPDATE sessions SET lease_until = CASE WHEN new.status IN ",
    state!(active),
    " THEN CAST($2 AS bigint) END, attempt = new.attempt, \
     started_at = COALESCE(sessions.started_at, CASE WHEN new.status = ",
    state!(queued),
    " THEN NULL ELSE new.updated_at END), \
     finished_at = CASE WHEN new.status IN ",
    state!(active),
    " THEN NULL ELSE new.updated_at END",
    set_row_postgres!(),
    " FROM new JOIN locked ON locked.id = new.id WHERE sessions.id = new.id AND engine = ",
    engine!(external),
    " AND sessions.status IN ",
    state!(active),
    " AND sessions.version <= new.after RETURNING sessions.id, sessions.owner, sessions.segments"
);

/// What the store knows of a session whose reported status it has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReport {
    pub owner: Owner,
    /// The segments that are stored.
    pub segments: u32,
}

/// On SQLite, the connection that wrote the reports before, so that it isn't fetched from the pool for each: that takes more
/// hand-overs between threads than the statement itself, and what one connection has written the next must read from the
/// file. The pool can't be closed while it is kept.
#[derive(Debug, Default)]
pub struct KeptConnection(Option<PoolConnection<Sqlite>>);

impl Store {
    /// Writes statuses of several sessions, of each session one, and extends their leases, in one statement. With each comes
    /// the version that it follows. Returns the sessions whose status was written: not those that have ended, don't exist,
    /// or have a version above that.
    ///
    /// # Errors
    /// If the database fails; then none is written.
    pub async fn report_many(
        &self,
        statuses: &[(u64, Status)],
        lease_until: Timestamp,
    ) -> Result<HashMap<SessionId, StoredReport>, sqlx::Error> {
        self.report_many_on(&mut KeptConnection::default(), statuses, lease_until).await
    }

    /// The same for who writes reports all the time.
    ///
    /// # Errors
    /// As [`Store::report_many`].
    pub async fn report_many_on(
        &self,
        kept: &mut KeptConnection,
        statuses: &[(u64, Status)],
        lease_until: Timestamp,
    ) -> Result<HashMap<SessionId, StoredReport>, sqlx::Error> {
        if statuses.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = statuses.iter().map(|(after, status)| {
            let mut row = status::row(status);
            row["after"] = (*after).into();
            row
        });
        // One JSON array, because a statement for each would cost twenty times as much.
        let rows = serde_json::Value::from_iter(rows).to_string();
        let written: Vec<(String, String, i64)> = match &self.db {
            Db::Sqlite(pool) => {
                let write = async {
                    let mut connection = match kept.0.take() {
                        Some(connection) => connection,
                        None => pool.acquire().await?,
                    };
                    let query = sqlx::query_as(MANY_SQLITE).bind(rows).bind(lease_until.0);
                    // After an error it goes back to the pool, which examines it.
                    let written = query.fetch_all(&mut *connection).await?;
                    kept.0 = Some(connection);
                    Ok(written)
                };
                measured(write).await
            }
            Db::Postgres(pool) => {
                measured(sqlx::query_as(MANY_POSTGRES).bind(rows).bind(lease_until.0).fetch_all(pool)).await
            }
        }?;
        let stored = |(id, owner, segments): (String, String, i64)| {
            let stored = StoredReport { owner: Owner::from_store(owner), segments: values::to_u32(segments) };
            Ok((values::parse(&id)?, stored))
        };
        written.into_iter().map(stored).collect()
    }

    /// Adds segments that an outside worker sent, the first of which must have index `from`. Returns false if the
    /// session has ended, doesn't exist, or doesn't have exactly `from` segments.
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
        let added = self.report_segments_many(&[(id, from, segments)], lease_until).await?;
        Ok(added.contains(&id))
    }

    /// Adds segments of several sessions, of each session once: its id, the index of the first segment, and the segments.
    /// Returns the sessions to which they were added, as [`Store::report_segments`] does.
    ///
    /// # Errors
    /// If the database fails; then none is added.
    pub async fn report_segments_many(
        &self,
        sessions: &[(SessionId, u32, &[Segment])],
        lease_until: Timestamp,
    ) -> Result<HashSet<SessionId>, sqlx::Error> {
        // Rows are locked in one order, as in `MANY_POSTGRES`.
        let mut sessions: Vec<_> = sessions.iter().collect();
        sessions.sort_unstable_by_key(|(id, ..)| *id);
        on!(self, |pool| {
            let mut tx = pool.begin_write().await?;
            let mut added = HashSet::new();
            for (id, from, segments) in sessions {
                let done = sqlx::query(concat!(
                    "UPDATE sessions SET segments = $3, lease_until = $4 \
                     WHERE id = $1 AND segments = $2 AND engine = ",
                    engine!(external),
                    " AND status IN ",
                    state!(active)
                ))
                .bind(id.to_string())
                .bind(i64::from(*from))
                .bind(i64::from(*from) + segments.len() as i64)
                .bind(lease_until.0)
                .execute(&mut *tx)
                .await?;
                if done.rows_affected() == 0 {
                    continue;
                }
                for segment in *segments {
                    insert_segment!(&mut *tx, *id, segment, &words(segment)?)?;
                }
                added.insert(*id);
            }
            tx.commit().await?;
            Ok(added)
        })
    }

    /// The sessions of outside workers that haven't ended, with their versions.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn open_outside(&self) -> Result<HashMap<SessionId, u64>, sqlx::Error> {
        let rows: Vec<(String, i64)> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT id, version FROM sessions WHERE engine = ",
            engine!(external),
            " AND status IN ",
            state!(active)
        ))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|(id, version)| Ok((values::parse(&id)?, version as u64))).collect()
    }

    /// Fails every session whose outside worker has been silent until its lease ran out.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn reap_outside(&self, now: Timestamp) -> Result<Vec<Event>, sqlx::Error> {
        let ids: Vec<(String,)> = on!(self, |pool| sqlx::query_as(concat!(
            "UPDATE sessions SET status = ",
            state!(failed),
            ", finished_at = $1, error_code = 'worker_lost', message = $2, \
             error_message = $2, version = version + $3, updated_at = $1, lease_until = NULL, \
             estimated_completion = NULL, processing_speed = NULL \
             WHERE engine = ",
            engine!(external),
            " AND status IN ",
            state!(active),
            " AND lease_until < $1 RETURNING id"
        ),)
        .bind(now.0)
        .bind("The worker that transcribes this recording went silent. What it sent is kept.")
        .bind(OUTSIDE_VERSION_GAP as i64)
        .fetch_all(pool)
        .await)?;
        self.events(ids).await
    }
}
