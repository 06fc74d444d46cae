//! Sessions of all owners for administrators, with the worker that has one and whether it hangs. Called by
//! `server::oversight`.

use super::{Db, Dialect, Store, json_list, rows::SessionRow, stuck::millis};
use crate::{
    model::{Session, SessionId, State, Timestamp},
    server::owner::Owner,
};

/// Which sessions an administrator wants to see. A session is one of them if its state is, or it hangs in one of the
/// ways asked for, and all other conditions hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OversightFilter {
    pub states: Vec<State>,
    pub stalled: bool,
    pub long_running: bool,
    pub created_before: Option<Timestamp>,
    pub created_after: Option<Timestamp>,
    /// The name of the node whose worker has it.
    pub node: Option<String>,
}

/// A session as administrators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct OverseenSession {
    pub session: Session,
    pub owner: Owner,
    /// The worker that has the lease; an outside worker has no name.
    pub worker: Option<String>,
    pub stalled: bool,
    pub long_running: bool,
}

#[derive(sqlx::FromRow)]
struct OverseenRow {
    #[sqlx(flatten)]
    session: SessionRow,
    worker: Option<String>,
    stalled: i64,
    long_running: i64,
}

/// The statement, with an expression for the list of states.
macro_rules! overseen {
    ($states:expr) => {
        concat!(
            "SELECT ",
            session_columns!(),
            ", s.worker, CAST(CASE WHEN ",
            stalled!(),
            " THEN 1 ELSE 0 END AS BIGINT) AS stalled, CAST(CASE WHEN ",
            long_running!(),
            " THEN 1 ELSE 0 END AS BIGINT) AS long_running FROM sessions s WHERE (s.status IN (",
            $states,
            ") OR ($4 = 1 AND ",
            stalled!(),
            ") OR ($5 = 1 AND ",
            long_running!(),
            // A worker is named after its node and its process, with a hyphen between.
            ")) AND ($6 = 0 OR s.created_at <= $6) AND ($7 = 0 OR s.created_at >= $7) \
             AND ($8 = '' OR rtrim(s.worker, '0123456789') = $9) AND ($10 = '' OR s.id < $10) \
             ORDER BY s.id DESC LIMIT $11"
        )
    };
}

impl Store {
    /// Lists sessions of all owners, newest first, older than `before`. Those without a change for `idle_secs` before
    /// `now` count as stalled.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn overseen(
        &self,
        which: &OversightFilter,
        before: Option<SessionId>,
        limit: u32,
        now: Timestamp,
        idle_secs: f64,
    ) -> Result<Vec<OverseenSession>, sqlx::Error> {
        let states = json_list(&which.states)?;
        let node = which.node.as_deref().unwrap_or_default();
        let rows: Vec<OverseenRow> = on!(self, |pool| sqlx::query_as(pool.pick(
            overseen!("SELECT value FROM json_each($3)"),
            overseen!("SELECT jsonb_array_elements_text(CAST($3 AS jsonb))"),
        ))
        .bind(now.0)
        .bind(millis(idle_secs))
        .bind(states)
        .bind(i64::from(which.stalled))
        .bind(i64::from(which.long_running))
        .bind(which.created_before.map_or(0, |at| at.0))
        .bind(which.created_after.map_or(0, |at| at.0))
        .bind(node)
        .bind(format!("{node}-"))
        .bind(before.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await)?;
        rows.into_iter()
            .map(|row| {
                let (session, owner) = row.session.into_session()?;
                let (stalled, long_running) = (row.stalled != 0, row.long_running != 0);
                Ok(OverseenSession { session, owner, worker: row.worker, stalled, long_running })
            })
            .collect()
    }
}
