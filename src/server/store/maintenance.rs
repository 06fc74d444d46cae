//! Maintenance over all owners: the operator's list of sessions, the sessions that ended long enough ago to be deleted,
//! and which node deletes them. Called by `retention` and `hark sessions`.

use super::{Db, Store, rows::SessionRow, values};
use crate::{
    model::{Session, SessionId, State, Timestamp, Track},
    server::owner::Owner,
};

/// A session that has ended: what is needed to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSession {
    pub id: SessionId,
    pub owner: Owner,
    pub at: Timestamp,
    /// Size of its recording.
    pub bytes: u64,
    /// The track that was chosen, and how many there are.
    pub track: Option<Track>,
    pub tracks: u16,
}

/// Which sessions an operator wants. All conditions must hold.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    pub owner: Option<Owner>,
    pub state: Option<State>,
    /// Only those that ended before this.
    pub ended_before: Option<Timestamp>,
}

impl Store {
    /// Lists sessions of all owners, newest first, older than `before`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn sessions_of_all(
        &self,
        which: &SessionFilter,
        before: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<(Session, Owner)>, sqlx::Error> {
        let rows: Vec<SessionRow> = on!(self, |pool| sqlx::query_as(concat!(
            "SELECT ",
            session_columns!(),
            " FROM sessions s WHERE ($1 = '' OR s.owner = $1) AND ($2 = '' OR s.status = $2) \
             AND ($3 = 0 OR s.finished_at < $3) AND ($4 = '' OR s.id < $4) ORDER BY s.id DESC LIMIT $5"
        ))
        .bind(which.owner.as_ref().map(Owner::as_str).unwrap_or_default())
        .bind(which.state.map(State::as_str).unwrap_or_default())
        .bind(which.ended_before.map_or(0, |at| at.0))
        .bind(before.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        rows.into_iter().map(SessionRow::into_session).collect()
    }

    /// Lists the sessions that ended before `before`, in the order in which they ended, beginning after `last`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ended_before(
        &self,
        before: Timestamp,
        last: Option<&EndedSession>,
        limit: u32,
    ) -> Result<Vec<EndedSession>, sqlx::Error> {
        // Only sessions that have ended have `finished_at`. A condition on the status as well would make SQLite choose
        // the wrong index.
        let rows: Vec<(String, String, i64, i64, Option<String>, i64)> = on!(self, |pool| sqlx::query_as(
            "SELECT id, owner, finished_at, bytes, track, tracks FROM sessions WHERE finished_at < $1 \
             AND (finished_at, id) > ($2, $3) ORDER BY finished_at, id LIMIT $4",
        )
        .bind(before.0)
        .bind(last.map_or(i64::MIN, |last| last.at.0))
        .bind(last.map(|last| last.id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        let ended = rows.into_iter().map(|(id, owner, at, bytes, track, tracks)| {
            Ok(EndedSession {
                id: values::parse(&id)?,
                owner: Owner::from_store(owner),
                at: Timestamp(at),
                bytes: bytes as u64,
                track: track.as_deref().map(values::parse).transpose()?,
                tracks: values::to_u16(tracks),
            })
        });
        ended.collect()
    }

    /// Takes, or keeps, a chore that one node at a time does for all, until `until`. Returns false if another node has
    /// it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn take_chore(
        &self,
        name: &str,
        node: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, sqlx::Error> {
        let changed = on!(self, |pool| sqlx::query(
            "INSERT INTO chores (name, node, until) VALUES ($1, $2, $4) \
             ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until \
             WHERE chores.node = $2 OR chores.until <= $3",
        )
        .bind(name)
        .bind(node)
        .bind(now.0)
        .bind(until.0)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))?;
        Ok(changed > 0)
    }

    /// Gives a chore back before its time, if this node has it, so that another may do it.
    ///
    /// # Errors
    /// If the database fails; then the chore is free when its time is over.
    pub async fn release_chore(&self, name: &str, node: &str) -> Result<(), sqlx::Error> {
        let now = self.now().await?;
        on!(self, |pool| sqlx::query("UPDATE chores SET until = $3 WHERE name = $1 AND node = $2 AND until > $3")
            .bind(name)
            .bind(node)
            .bind(now.0)
            .execute(pool)
            .await
            .map(drop))
    }
}
