//! The bounds of the queue. They are checked within the transaction that adds to it, so they hold whatever happens at
//! once on however many nodes. Called by `sessions`.

use super::{Db, Dialect, LEAP, NewSession, Store};
use crate::{
    model::{Session, SessionId, Timestamp},
    server::{bus::Event, owner::Owner},
};

/// How many sessions may wait for Hark's own workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of all owners together.
    pub total: u32,
    pub per_owner: u32,
}

/// Why nothing can be added to the queue now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull {
    /// How many may wait.
    pub limit: u32,
    /// Whether the limit is the owner's own, and not that of all.
    pub own: bool,
    /// When a place should be free, if that can be told.
    pub free_at: Option<Timestamp>,
}

/// Why a session could not be queued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    #[error("the queue is full: at most {} may wait", .0.limit)]
    Full(QueueFull),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// How many wait, of all owners and of one.
const COUNT: &str = "SELECT COUNT(*), COUNT(CASE WHEN owner = $1 THEN 1 END) FROM sessions \
     WHERE status = 'queued' AND engine <> 'external'";

/// When the first that waits, of owner `$1` or of all, will be taken up: when the one before it should be done, or, if
/// there is none, the first of those that run.
const FREE_AT: &str = "WITH head AS (SELECT queued_at, id FROM sessions WHERE status = 'queued' \
     AND engine <> 'external' AND ($1 = '' OR owner = $1) ORDER BY queued_at, id LIMIT 1), \
     before AS (SELECT q.estimated_completion AS done FROM sessions q, head WHERE q.status = 'queued' \
     AND q.engine <> 'external' AND (q.queued_at < head.queued_at OR (q.queued_at = head.queued_at AND q.id < head.id)) \
     ORDER BY q.queued_at DESC, q.id DESC LIMIT 1) \
     SELECT CASE WHEN EXISTS (SELECT 1 FROM before) THEN (SELECT done FROM before) \
     ELSE (SELECT MIN(estimated_completion) FROM sessions WHERE status = 'processing' AND engine <> 'external') END";

/// Why the queue doesn't take `$more` sessions of `$owner` beyond those in it, if it doesn't.
macro_rules! queue_full {
    ($executor:expr, $owner:expr, $limits:expr, $more:expr) => {{
        let owner: &Owner = $owner;
        let limits: QueueLimits = $limits;
        let (all, own): (i64, i64) = sqlx::query_as(COUNT).bind(owner.as_str()).fetch_one($executor).await?;
        let over = |waiting: i64, limit: u32| waiting + $more > i64::from(limit);
        let reached = if over(own, limits.per_owner) {
            Some((true, limits.per_owner, owner.as_str()))
        } else {
            over(all, limits.total).then_some((false, limits.total, ""))
        };
        match reached {
            Some((own, limit, whose)) => {
                let (free_at,): (Option<i64>,) = sqlx::query_as(FREE_AT).bind(whose).fetch_one($executor).await?;
                Some(QueueFull { limit, own, free_at: free_at.map(Timestamp) })
            }
            None => None,
        }
    }};
}

impl Store {
    /// Why no session of `owner` could be added to the queue just now, if so. For those who want to know beforehand.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn queue_full(&self, owner: &Owner, limits: QueueLimits) -> Result<Option<QueueFull>, sqlx::Error> {
        Ok(on!(self, |pool| queue_full!(pool, owner, limits, 1)))
    }

    /// Adds a session to the end of the queue.
    ///
    /// # Errors
    /// If the queue is full, or the database fails; then nothing is added.
    pub async fn enqueue(
        &self,
        new: &NewSession,
        limits: QueueLimits,
        now: Timestamp,
    ) -> Result<(Session, Event), EnqueueError> {
        on!(self, |pool| {
            let mut tx = pool.begin_enqueue().await?;
            insert_session!(&mut *tx, new, now)?;
            if let Some(full) = queue_full!(&mut *tx, &new.owner, limits, 0) {
                tx.rollback().await?;
                return Err(EnqueueError::Full(full));
            }
            tx.commit().await?;
        });
        Ok(self.added(new.id).await?)
    }

    /// Queues a failed or cancelled session of this owner again, keeping its segments. None if it is neither. Without
    /// `limits` for one that had its place just now.
    ///
    /// # Errors
    /// If the queue is full, or the database fails; then the session stays as it is.
    pub async fn retry(
        &self,
        owner: &Owner,
        id: SessionId,
        limits: Option<QueueLimits>,
        now: Timestamp,
    ) -> Result<Option<Event>, EnqueueError> {
        let changed = on!(self, |pool| {
            let mut tx = pool.begin_enqueue().await?;
            let done = sqlx::query(
                "UPDATE sessions SET status = 'queued', stage = NULL, progress = NULL, message = '', \
                 version = version + $4, updated_at = $3, queued_at = $3, finished_at = NULL, crashes = 0, \
                 error_code = NULL, error_message = NULL \
                 WHERE id = $1 AND owner = $2 AND status IN ('failed', 'cancelled') AND engine <> 'external'",
            )
            .bind(id.to_string())
            .bind(owner.as_str())
            .bind(now.0)
            .bind(LEAP)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if let Some(limits) = limits.filter(|_| done > 0)
                && let Some(full) = queue_full!(&mut *tx, owner, limits, 0)
            {
                tx.rollback().await?;
                return Err(EnqueueError::Full(full));
            }
            tx.commit().await?;
            done
        });
        Ok(self.event_if(changed > 0, id).await?)
    }
}
