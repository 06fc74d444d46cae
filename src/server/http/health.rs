//! Routes for operators: liveness, readiness, counts of sessions, and metrics for Prometheus.

use crate::{
    model::bytes,
    server::{disk::Condition, error::Error, health::SessionsHealth, scrape, state::AppState},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::time::Duration;
use tokio::time;

/// How long a check waits for the database to take a write.
const READY_TIMEOUT: Duration = Duration::from_millis(1500);

/// Liveness: the process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Readiness: the database accepts a write, its clock is about this machine's, recordings can be reached, and the workers
/// haven't lost their default or last engine. One that only works needs its default engine from the start; one that serves
/// is ready without, or nobody could read on its pages what is missing. A node without Redis is ready, because it reads
/// changes from the store; if all nodes were unready when Redis fails, nobody would serve. A node with an almost full disk is
/// ready too, because only uploads are refused.
pub async fn readyz(State(state): State<AppState>) -> Response {
    if let Some(offset) = state.clock.offset().filter(|offset| offset.is_wrong()) {
        let problem = format!("{}; set its clock, for example with NTP\n", offset.sentence());
        return (StatusCode::SERVICE_UNAVAILABLE, problem).into_response();
    }
    let sessions = &state.sessions;
    let registry = &sessions.registry;
    let problem = sessions.cluster.problem().or_else(|| registry.problem()).or_else(|| registry.lost_engine());
    let missing_engine = registry.missing_engine();
    if let Some(problem) = problem.or_else(|| missing_engine.clone().filter(|_| !registry.serves())) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response();
    }
    let store = &state.sessions.store;
    let tested = time::timeout(READY_TIMEOUT, state.sessions.disk.condition(store, &state.sessions.media));
    let condition = match store.unless_away(tested).await {
        Some(Ok(condition)) => condition,
        Some(Err(_)) | None => Condition::Unreachable,
    };
    let problem = match condition {
        Condition::Writable { low: Some(free) } => {
            let (free, spare) = (bytes(free), bytes(state.sessions.limits.min_free_bytes));
            let text =
                format!("ready, but the disk is almost full: {free} are free, {spare} must stay so: no uploads\n");
            return text.into_response();
        }
        Condition::Writable { low: None } if missing_engine.is_some() => {
            return format!("ready, but {}\n", missing_engine.unwrap_or_default()).into_response();
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
        Condition::Unreachable => match store.outage() {
            Some(cause) => format!("the database is away: {cause}\n"),
            None => "the database doesn't take a write; the log may say why\n".to_owned(),
        },
    };
    (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
}

/// Metrics in Prometheus' text format.
pub async fn metrics(State(state): State<AppState>) -> Response {
    if !state.settings.monitoring {
        let text = "this node measures nothing, because HARK_MONITORING is false\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let text = scrape::metrics(&state).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// How many sessions wait, run and have ended, and how many make no progress.
#[utoipa::path(get, path = "/api/v1/health/sessions", responses((status = 200, body = SessionsHealth)))]
pub(super) async fn sessions(State(state): State<AppState>) -> Result<Json<SessionsHealth>, Error> {
    Ok(Json(SessionsHealth::read(&state.sessions.store).await?.judged(&state.settings.health)))
}
