//! Sessions of one owner, and lookups of sessions whoever owns them. Called by `sessions`, `outside` and `bus`.

use super::{Db, Dialect, OUTSIDE_VERSION_GAP, Store, VERSION_GAP, fold::fold, json_list, rows::SessionRow, values};
use crate::{
    model::{
        Channels, EngineId, Media, Session, SessionId, StageLog, State, Status, Timestamp, Title, Track,
        upload::UploadId,
    },
    server::{event::Event, owner::Owner},
};
use std::collections::HashMap;

/// Inserts a session with this turn in the queue.
macro_rules! insert_session {
    ($executor:expr, $new:expr, $turn:expr, $now:expr) => {
        sqlx::query(
            concat!("INSERT INTO sessions (id, owner, title, title_folded, created_at, queued_at, updated_at, engine, language, \
             vocabulary, file_name, \
             bytes, format, codec, sample_rate, channels, version, status, message, duration_processed, \
             duration_total, segments, attempt, crashes, lease_until, turn, address, channel_choice, track, tracks, recording_hash) \
             VALUES ($1, $2, $3, $17, $4, $4, $4, $5, $6, $18, $7, $8, $9, $10, $11, $12, 1, ", state!(queued), ", \
             'Waiting for its worker', 0, $13, 0, 0, 0, $14, $15, $16, $19, $20, $21, $22)"),
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
        .bind($crate::server::store::fold::fold($new.title.as_str()))
        .bind(&$new.vocabulary)
        .bind($new.channels.as_str())
        .bind($new.track.map(String::from))
        .bind(i64::from($new.media.tracks))
        .bind(&$new.recording_hash)
        .execute($executor)
        .await
        .map(drop)
    };
}

/// The fields of a new session.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub owner: Owner,
    pub title: Title,
    pub engine: EngineId,
    pub language: Option<String>,
    /// Names and terms that help the engine, with commas between.
    pub vocabulary: Option<String>,
    pub channels: Channels,
    pub track: Option<Track>,
    pub media: Media,
    /// Seconds, as the recording's container declares it.
    pub duration_total: Option<f64>,
    /// When a session of an outside worker fails unless the worker has reported something before.
    pub lease_until: Option<Timestamp>,
    /// A keyed hash of the address that the session came from, if its owner is a newcomer and so counts by address.
    pub address: Option<String>,
    /// The hash of the recording (`tree_hash`), by which it is recognised when it is sent again.
    pub recording_hash: Option<String>,
    /// The upload in parts that becomes this session, if it came in parts.
    pub upload: Option<UploadId>,
}

impl Store {
    /// Adds a session that an outside worker reports on. Those for Hark's own workers go through [`Store::enqueue`].
    ///
    /// # Errors
    /// If the database fails.
    pub async fn insert(&self, new: &NewSession, now: Timestamp) -> Result<(Session, Event), sqlx::Error> {
        on!(self, |pool| insert_session!(pool, new, 0_i64, now))?;
        self.read_back(new.id).await
    }

    /// Returns a session if it belongs to this owner.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn session(&self, owner: &Owner, id: SessionId) -> Result<Option<Session>, sqlx::Error> {
        let found = self.find(id).await?;
        Ok(found.and_then(|(session, whose)| (whose == *owner).then_some(session)))
    }

    /// Returns the statuses that a watcher of an owner needs: of every session that hasn't ended, or has changed since
    /// `since`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn statuses(&self, owner: &Owner, since: Timestamp) -> Result<Vec<Status>, sqlx::Error> {
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE s.owner = $1 AND (s.status IN ",
            state!(active),
            " OR s.updated_at >= $2) \
             ORDER BY s.id"
        ))
        .bind(owner.as_str())
        .bind(since.0)
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(|row| row.into_session().map(|(session, _)| session.status)).collect()
    }

    /// Changes the title of a session of this owner. Returns false if there is no such session.
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

    /// Cancels a session of this owner that is queued or processing. Returns none if it is neither.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn cancel(&self, owner: &Owner, id: SessionId, now: Timestamp) -> Result<Option<Event>, sqlx::Error> {
        let changed = on!(self, |pool| {
            // Under the same lock as adding to the queue, because two cancellations that move the same sessions up
            // would deadlock.
            let mut tx = pool.begin_enqueue().await?;
            // If the session is queued, the owner's later ones move up by one turn.
            sqlx::query(concat!(
                "UPDATE sessions SET turn = turn - 1 WHERE owner = $2 AND status = ",
                state!(queued),
                " AND engine <> ",
                engine!(external),
                " \
                 AND turn > (SELECT q.turn FROM sessions q WHERE q.id = $1 AND q.owner = $2 AND q.status = ",
                state!(queued),
                " \
                 AND q.engine <> ",
                engine!(external),
                ")"
            ))
            .bind(id.to_string())
            .bind(owner.as_str())
            .execute(&mut *tx)
            .await?;
            let done = sqlx::query(concat!(
                "UPDATE sessions SET status = ",
                state!(cancelled),
                ", message = 'Cancelled', version = version + CASE WHEN engine = ",
                engine!(external),
                " THEN $5 ELSE $4 END, \
                 updated_at = $3, finished_at = $3, estimated_completion = NULL, processing_speed = NULL, \
                 worker = NULL, lease_until = NULL, address = NULL \
                 WHERE id = $1 AND owner = $2 AND status IN ",
                state!(active)
            ))
            .bind(id.to_string())
            .bind(owner.as_str())
            .bind(now.0)
            .bind(VERSION_GAP)
            .bind(OUTSIDE_VERSION_GAP as i64)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            tx.commit().await?;
            Ok(done)
        })?;
        self.event_if(changed > 0, id).await
    }

    /// Deletes a session of this owner with its segments. Returns false if there is no such session.
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

    /// Returns those of these sessions that exist, whoever owns them.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn find_many(&self, ids: &[SessionId]) -> Result<Vec<(Session, Owner)>, sqlx::Error> {
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

    /// Returns the version and the number of segments of those of these sessions that exist.
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
        rows.into_iter()
            .map(|(id, version, n)| Ok((values::parse(&id)?, (version as u64, values::to_u32(n)))))
            .collect()
    }

    /// Raises a session's version above `known`, which watchers have seen and the database doesn't have. Returns false
    /// for a session that is being processed: its worker's next write has a higher version anyway.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn raise_version(&self, id: SessionId, known: u64) -> Result<bool, sqlx::Error> {
        let raised = on!(self, |pool| sqlx::query(concat!(
            "UPDATE sessions SET version = $2 WHERE id = $1 AND version < $2 AND status <> ",
            state!(processing)
        ))
        .bind(id.to_string())
        .bind((known as i64).saturating_add(VERSION_GAP))
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(raised > 0)
    }

    /// Returns the versions of the sessions that [`Store::statuses`] returns, for several owners.
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
            concat!(
                "SELECT id, owner, version FROM sessions WHERE owner IN (SELECT value FROM json_each($1)) \
             AND (status IN ",
                state!(active),
                " OR updated_at >= $2)"
            ),
            concat!(
                "SELECT id, owner, version FROM sessions \
             WHERE owner IN (SELECT jsonb_array_elements_text(CAST($1 AS jsonb))) \
             AND (status IN ",
                state!(active),
                " OR updated_at >= $2)"
            ),
        ))
        .bind(owners)
        .bind(since.0)
        .fetch_all(pool)
        .await)?;
        let rows = rows.into_iter();
        rows.map(|(id, owner, version)| Ok((values::parse(&id)?, Owner::from_store(owner), version as u64))).collect()
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

    /// The sessions of an owner that have a recording, each with the track that is chosen and the number of tracks.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn recordings(&self, owner: &Owner) -> Result<Vec<(SessionId, Option<Track>, u16)>, sqlx::Error> {
        let found: Vec<(String, Option<String>, i64)> =
            on!(self, |pool| sqlx::query_as("SELECT id, track, tracks FROM sessions WHERE owner = $1 AND bytes > 0")
                .bind(owner.as_str())
                .fetch_all(pool)
                .await)?;
        let found = found.iter().map(|(id, track, tracks)| {
            let track = track.as_deref().map(values::parse).transpose()?;
            Ok((values::parse(id)?, track, values::to_u16(*tracks)))
        });
        found.collect()
    }

    /// Counts the sessions of all owners by status.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn counts(&self) -> Result<Vec<(State, u64)>, sqlx::Error> {
        let rows: Vec<(String, i64)> =
            on!(self, |pool| sqlx::query_as("SELECT status, COUNT(*) FROM sessions GROUP BY status")
                .fetch_all(pool)
                .await)?;
        rows.into_iter().map(|(name, n)| Ok((values::parse(&name)?, n as u64))).collect()
    }

    /// Returns when a session entered each stage.
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
            rows.into_iter().map(|(at, stage)| Ok((Timestamp(at), stage.as_deref().map(values::parse).transpose()?)));
        entries.collect::<Result<_, sqlx::Error>>().map(StageLog)
    }

    /// Folds the titles of sessions that were added before folded titles were stored, because databases can't do it
    /// themselves.
    pub(super) async fn fold_titles(&self) -> Result<(), sqlx::Error> {
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
                    // The condition on the title leaves out a session that another node has renamed meanwhile.
                    sqlx::query("UPDATE sessions SET title_folded = $3 WHERE id = $1 AND title = $2")
                        .bind(id)
                        .bind(&title)
                        .bind(fold(&title))
                        .execute(&mut *tx)
                        .await?;
                }
                tx.commit().await
            })?;
        }
    }
}
