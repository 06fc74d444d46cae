//! Counts of sessions for operators, over all owners, for the API and as gauges for Prometheus. Called by
//! `http::health`.

use super::{
    config::HealthConfig,
    store::{self, STALLED_SECS, Store},
};
use crate::model::State;
use serde::Serialize;
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

/// Scrapes within this time get the same numbers, so that nobody can keep the store counting.
const CACHE_TIME: Duration = Duration::from_secs(10);

/// Whether the sessions need somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    #[default]
    Healthy,
    Warning,
    Critical,
}

/// Sessions by status, and those that make no progress, over all owners.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SessionsHealth {
    /// `warning` if a session hangs for `HARK_HEALTH_WARNING_SECS`; `critical` if one does for
    /// `HARK_HEALTH_CRITICAL_SECS`, or as many as `HARK_HEALTH_CRITICAL_SESSIONS` hang at once.
    status: HealthStatus,
    queued: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    /// Of those in `processing`: in this attempt for more than ten minutes and three times the recording's length.
    long_running: u64,
    /// Of those in `processing`: nothing has changed for more than a minute, or the worker's lease has run out.
    stalled: u64,
    /// Of those in `queued`: no worker can take them now, because none has their engine with their language, or
    /// its model isn't here yet.
    waiting_for_worker: u64,
    /// How long the session that waits longest has waited, in seconds; null if none waits. Sessions of workers outside
    /// Hark don't wait in this queue.
    oldest_queued_secs: Option<f64>,
    /// Those that are `stalled`, `long_running` or both, each counted once.
    hanging: u64,
    /// How long the one that hangs longest has: since it last changed if it is stalled, or since it should have ended;
    /// null if none hangs.
    longest_hanging_secs: Option<f64>,
}

impl SessionsHealth {
    /// Reads the counts from the store.
    ///
    /// # Errors
    /// If it fails.
    pub async fn read(store: &Store) -> Result<Self, sqlx::Error> {
        let mut sessions = Self::default();
        for (status, n) in store.counts().await? {
            *sessions.count_of(status) = n;
        }
        let now = store.now().await?;
        let health = store.health(now, STALLED_SECS).await?;
        sessions.long_running = health.long_running;
        sessions.stalled = health.stalled;
        sessions.waiting_for_worker = health.waiting;
        sessions.hanging = health.hanging;
        sessions.longest_hanging_secs = health.longest_hanging_secs;
        sessions.oldest_queued_secs = health.oldest_queued.map(|since| now.seconds_since(since).max(0.0));
        Ok(sessions)
    }

    /// The same with what follows from it by these thresholds.
    #[must_use]
    pub fn judged(mut self, thresholds: &HealthConfig) -> Self {
        let for_long = |secs: u32| self.longest_hanging_secs.is_some_and(|hanging| hanging >= f64::from(secs));
        self.status = if for_long(thresholds.health_critical_secs)
            || self.hanging >= u64::from(thresholds.health_critical_sessions)
        {
            HealthStatus::Critical
        } else if for_long(thresholds.health_warning_secs) {
            HealthStatus::Warning
        } else {
            HealthStatus::Healthy
        };
        self
    }

    /// What follows from the counts, once they were [judged](Self::judged).
    #[must_use]
    pub fn status(&self) -> HealthStatus {
        self.status
    }

    fn count_of(&mut self, status: State) -> &mut u64 {
        match status {
            State::Queued => &mut self.queued,
            State::Processing => &mut self.processing,
            State::Completed => &mut self.completed,
            State::Failed => &mut self.failed,
            State::Cancelled => &mut self.cancelled,
        }
    }
}

/// The counts as gauges for Prometheus; holds when they were last read.
#[derive(Debug, Default)]
pub struct SessionGauges(Mutex<Option<Instant>>);

impl SessionGauges {
    /// Reads the counts from the store, unless that was done within [`CACHE_TIME`]. Of concurrent scrapes one reads,
    /// and the others wait for it.
    pub async fn refresh(&self, store: &Store) {
        let mut last_read = self.0.lock().await;
        if last_read.is_some_and(|at| at.elapsed() < CACHE_TIME) {
            return;
        }
        match SessionsHealth::read(store).await {
            Ok(mut sessions) => {
                for status in State::ALL {
                    metrics::gauge!("hark_sessions", "status" => status.as_str())
                        .set(*sessions.count_of(status) as f64);
                }
                metrics::gauge!("hark_sessions_long_running").set(sessions.long_running as f64);
                metrics::gauge!("hark_sessions_stalled").set(sessions.stalled as f64);
                metrics::gauge!("hark_sessions_waiting_for_worker").set(sessions.waiting_for_worker as f64);
                metrics::gauge!("hark_queue_oldest_seconds").set(sessions.oldest_queued_secs.unwrap_or_default());
            }
            Err(error) if store::is_away(&error) => {
                tracing::debug!(%error, "the sessions could not be counted");
            }
            Err(error) => tracing::warn!(%error, "the sessions could not be counted; the metrics show the last count"),
        }
        // Set after a failure too, or every scrape would wait for a store that is down.
        *last_read = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_make_the_status() {
        let of = |hanging, longest_hanging_secs| {
            let health = SessionsHealth { hanging, longest_hanging_secs, ..SessionsHealth::default() };
            health.judged(&HealthConfig::default()).status()
        };
        assert_eq!(of(0, None), HealthStatus::Healthy);
        assert_eq!(of(1, Some(899.9)), HealthStatus::Healthy);
        assert_eq!(of(1, Some(900.0)), HealthStatus::Warning);
        assert_eq!(of(2, Some(1799.9)), HealthStatus::Warning);
        assert_eq!(of(1, Some(1800.0)), HealthStatus::Critical);
        assert_eq!(of(2, Some(61.0)), HealthStatus::Healthy);
        assert_eq!(of(3, Some(61.0)), HealthStatus::Critical);
    }
}
