//! For operators: alive, able to serve, what the queue looks like, and Prometheus.

use crate::{
    model::State as SessionState,
    server::{error::Error, state::AppState},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Alive: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Able to serve: the database answers. A node without Redis still serves, and tells its watchers from the store; if all
/// nodes called themselves unready for that, nobody would serve at all.
pub async fn readyz(State(state): State<AppState>) -> Response {
    match state.store.ping().await {
        Ok(()) if state.bus.is_connected() == Some(false) => {
            "ready, but Redis does not answer: changes of other nodes come up to a second late\n".into_response()
        }
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
        }
    }
}

/// Prometheus' text format.
pub async fn metrics(State(state): State<AppState>) -> Response {
    let text = state.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Sessions by status, over all owners.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct SessionCounts {
    queued: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

/// How many sessions wait, run and have ended.
#[utoipa::path(get, path = "/api/v1/health/sessions", responses((status = 200, body = SessionCounts)))]
pub(super) async fn sessions(State(state): State<AppState>) -> Result<Json<SessionCounts>, Error> {
    let mut counts = SessionCounts::default();
    for (status, n) in state.store.counts().await? {
        *match status {
            SessionState::Queued => &mut counts.queued,
            SessionState::Processing => &mut counts.processing,
            SessionState::Completed => &mut counts.completed,
            SessionState::Failed => &mut counts.failed,
            SessionState::Cancelled => &mut counts.cancelled,
        } = n;
    }
    Ok(Json(counts))
}
