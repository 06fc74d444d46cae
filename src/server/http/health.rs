//! For operators: alive, able to serve, what the queue looks like, and Prometheus.

use crate::{
    model::{State as SessionState, Timestamp, bytes},
    server::{
        disk::Condition,
        error::Error,
        state::AppState,
        store::{STALLED_SECS, Store},
    },
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

/// Scrapes that come sooner get the numbers of the last one, so that nobody can make the store count all the time.
const FRESH: Duration = Duration::from_secs(10);

/// Alive: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Able to serve: the database takes a write. A node without Redis still serves, and tells its watchers from the store; if
/// all nodes called themselves unready for that, nobody would serve at all. The same goes for a disk that is almost full:
/// only uploads are refused.
pub async fn readyz(State(state): State<AppState>) -> Response {
    let trouble = match state.disk.condition(&state.store, &state.media).await {
        Condition::Writable { low: Some(free) } => {
            let (free, spare) = (bytes(free), bytes(state.limits.min_free_bytes));
            let text =
                format!("ready, but the disk is almost full: {free} are free, {spare} must stay so: no uploads\n");
            return text.into_response();
        }
        Condition::Writable { low: None } if state.bus.is_connected() == Some(false) => {
            return "ready, but Redis does not answer: changes of other nodes come up to a second late\n"
                .into_response();
        }
        Condition::Writable { low: None } => return "ready\n".into_response(),
        Condition::Full { free } => {
            format!("the database's disk is full; the data folder's has {} free\n", bytes(free))
        }
        Condition::ReadOnly => "the database may only be read\n".to_owned(),
        Condition::Away => "the store does not answer\n".to_owned(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, trouble).into_response()
}

/// Prometheus' text format.
pub async fn metrics(State(state): State<AppState>) -> Response {
    state.session_gauges.refresh(&state.store).await;
    let text = state.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Sessions by status, and those that don't come forward, over all owners.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct SessionsHealth {
    queued: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    /// Of those in `processing`: in this attempt for more than ten minutes and three times the recording's length.
    long_running: u64,
    /// Of those in `processing`: nothing has changed for more than a minute, or the worker's lease has run out.
    stalled: u64,
    /// How long the one has waited that has waited longest, in seconds; null if none waits. Sessions of workers outside
    /// Hark don't wait in this queue.
    oldest_queued_secs: Option<f64>,
}

impl SessionsHealth {
    async fn read(store: &Store) -> Result<Self, sqlx::Error> {
        let mut sessions = Self::default();
        for (status, n) in store.counts().await? {
            *sessions.of(status) = n;
        }
        let now = Timestamp::now();
        let health = store.health(now, STALLED_SECS).await?;
        sessions.long_running = health.long_running;
        sessions.stalled = health.stalled;
        sessions.oldest_queued_secs = health.oldest_queued.map(|since| now.seconds_since(since).max(0.0));
        Ok(sessions)
    }

    fn of(&mut self, status: SessionState) -> &mut u64 {
        match status {
            SessionState::Queued => &mut self.queued,
            SessionState::Processing => &mut self.processing,
            SessionState::Completed => &mut self.completed,
            SessionState::Failed => &mut self.failed,
            SessionState::Cancelled => &mut self.cancelled,
        }
    }
}

/// The same as gauges of Prometheus: when the store was last asked.
#[derive(Debug, Default)]
pub struct SessionGauges(Mutex<Option<Instant>>);

impl SessionGauges {
    /// Asks the store, unless that was done just now. Of scrapes at once one asks, and the others wait for it.
    async fn refresh(&self, store: &Store) {
        let mut asked = self.0.lock().await;
        if asked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        match SessionsHealth::read(store).await {
            Ok(mut sessions) => {
                for status in SessionState::ALL {
                    metrics::gauge!("hark_sessions", "status" => status.as_str()).set(*sessions.of(status) as f64);
                }
                metrics::gauge!("hark_sessions_long_running").set(sessions.long_running as f64);
                metrics::gauge!("hark_sessions_stalled").set(sessions.stalled as f64);
                metrics::gauge!("hark_queue_oldest_seconds").set(sessions.oldest_queued_secs.unwrap_or_default());
            }
            Err(error) => tracing::warn!(%error, "the sessions could not be counted; the metrics show the last count"),
        }
        // Also after a failure: a store that is down would hold up every scrape.
        *asked = Some(Instant::now());
    }
}

/// How many sessions wait, run and have ended, and whether any hangs.
#[utoipa::path(get, path = "/api/v1/health/sessions", responses((status = 200, body = SessionsHealth)))]
pub(super) async fn sessions(State(state): State<AppState>) -> Result<Json<SessionsHealth>, Error> {
    Ok(Json(SessionsHealth::read(&state.store).await?))
}
