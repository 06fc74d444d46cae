//! Puts back into the queue the sessions whose workers are gone: those whose leases have run out by the database's clock.
//! One node at a time does so for all. Run by `jobs`.

use super::{Workers, log_error};
use crate::{model::Timestamp, server::event::Event};
use std::time::Duration;
use tokio::time;
use uuid::Uuid;

/// The name of the chore in the store.
const CHORE: &str = "leases";
/// Seconds for which a node takes the chore with each check: those of a few checks.
const CHORE_SECS: f64 = 6.0;

/// What one node knows of it.
pub(super) struct Reaper {
    /// This node, as the one that does the chore.
    node: String,
    /// When leases can be relied on. While the database is away no worker can renew its lease, so a lease that ran out
    /// then doesn't mean that the worker is gone.
    sure_from: time::Instant,
    /// How long workers have to renew their leases after the database has come back.
    pause: Duration,
}

impl Reaper {
    /// `lease_secs`: the seconds of a lease, which its worker renews at least three times in that time.
    pub(super) fn new(lease_secs: u32) -> Self {
        let pause = Duration::from_secs(u64::from(lease_secs)) / 2;
        Self { node: Uuid::new_v4().to_string(), sure_from: time::Instant::now() + pause, pause }
    }

    /// Checks the leases, if this node has the chore and they can be relied on.
    pub(super) async fn check(&mut self, workers: &Workers) {
        match self.reap(workers).await {
            Ok(events) => {
                for status in events.iter().filter_map(|e| e.new_status()) {
                    let id = status.session_id;
                    tracing::warn!(session_id = %id, status = %status.state, "session {id} lost its worker: the lease ran out");
                }
                workers.sessions.bus.publish_all(&events);
            }
            Err(error) => {
                self.sure_from = time::Instant::now() + self.pause;
                log_error(&error, "leases could not be checked; trying again");
            }
        }
    }

    async fn reap(&self, workers: &Workers) -> Result<Vec<Event>, sqlx::Error> {
        let store = &workers.sessions.store;
        let now: Timestamp = store.now().await?;
        if store.is_shared() {
            let mine = store.take_chore(CHORE, &self.node, now, now.plus_seconds(CHORE_SECS)).await?;
            if !mine || time::Instant::now() < self.sure_from {
                return Ok(Vec::new());
            }
        }
        store.reap(now, false, &workers.running.list(), workers.config.max_attempts).await
    }
}
