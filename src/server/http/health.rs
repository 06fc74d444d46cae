//! For operators: alive, able to serve, what the queue looks like, and Prometheus.

use crate::{
    model::bytes,
    server::{disk::Condition, error::Error, health::SessionsHealth, state::AppState},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// Alive: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Able to serve: the database takes a write. A node without Redis still serves, and tells its watchers from the store; if
/// all nodes called themselves unready for that, nobody would serve at all. The same goes for a disk that is almost full:
/// only uploads are refused.
pub async fn readyz(State(state): State<AppState>) -> Response {
    let trouble = match state.sessions.disk.condition(&state.sessions.store, &state.sessions.media).await {
        Condition::Writable { low: Some(free) } => {
            let (free, spare) = (bytes(free), bytes(state.sessions.limits.min_free_bytes));
            let text =
                format!("ready, but the disk is almost full: {free} are free, {spare} must stay so: no uploads\n");
            return text.into_response();
        }
        Condition::Writable { low: None } if state.sessions.bus.is_connected() == Some(false) => {
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
    state.session_gauges.refresh(&state.sessions.store).await;
    let text = state.metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// How many sessions wait, run and have ended, and whether any hangs.
#[utoipa::path(get, path = "/api/v1/health/sessions", responses((status = 200, body = SessionsHealth)))]
pub(super) async fn sessions(State(state): State<AppState>) -> Result<Json<SessionsHealth>, Error> {
    Ok(Json(SessionsHealth::read(&state.sessions.store).await?))
}
