//! What is kept: the sessions of all owners for an operator's list, those that ended long enough ago to go, and which
//! node sees to that. Called by `retention` and `hark sessions`.

use super::{Db, Store, rows::SessionRow, values};
use crate::{
    model::{Session, SessionId, State, Timestamp},
    server::owner::Owner,
};

/// A session that has ended, as far as its removal needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub id: SessionId,
    pub owner: Owner,
    pub at: Timestamp,
    /// Of its recording.
    pub bytes: u64,
}

/// Which sessions an operator means; those that all conditions hold for.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub owner: Option<Owner>,
    pub state: Option<State>,
    /// Only those that ended before this.
    pub ended_before: Option<Timestamp>,
}

impl Store {
    /// Sessions of all owners, newest first, older than `before`.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn kept(
        &self,
        which: &Kept,
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

    /// The sessions that ended before `before`, those first that ended first, after `last` in that order.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn ended(&self, before: Timestamp, last: Option<&Ended>, limit: u32) -> Result<Vec<Ended>, sqlx::Error> {
        // Only what has ended has a time of its end. To say its status as well would lead SQLite to the wrong index.
        let rows: Vec<(String, String, i64, i64)> = on!(self, |pool| sqlx::query_as(
            "SELECT id, owner, finished_at, bytes FROM sessions WHERE finished_at < $1 \
             AND (finished_at, id) > ($2, $3) ORDER BY finished_at, id LIMIT $4",
        )
        .bind(before.0)
        .bind(last.map_or(i64::MIN, |last| last.at.0))
        .bind(last.map(|last| last.id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        let ended = rows.into_iter().map(|(id, owner, at, bytes)| {
            Ok(Ended {
                id: values::parse(&id)?,
                owner: Owner::from_store(owner),
                at: Timestamp(at),
                bytes: bytes as u64,
            })
        });
        ended.collect()
    }

    /// Takes a chore that one node at a time does for all, or keeps it, until then. False if another node has it.
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
}
