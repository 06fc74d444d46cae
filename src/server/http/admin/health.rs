//! `/api/v1/admin/health/stuck`: the sessions behind the counts of `/api/v1/health/sessions`.

use crate::{
    model::{ErrorBody, SessionId, Stage, Timestamp},
    server::{
        admin::Administrator,
        error::Error,
        health::{HealthStatus, SessionsHealth},
        state::AppState,
        store::{STALLED_SECS, StuckSession},
    },
};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

/// The sessions that hang.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct StuckSessions {
    /// As in `/api/v1/health/sessions`.
    status: HealthStatus,
    /// Beginning with the one that has been unchanged for longest.
    sessions: Vec<Stuck>,
}

/// A session that hangs.
#[derive(Serialize, ToSchema)]
struct Stuck {
    id: SessionId,
    engine: String,
    stage: Option<Stage>,
    progress: Option<f64>,
    attempt: u32,
    /// The worker that has it: its node and its process. A worker outside Hark has no name.
    worker: Option<String>,
    /// How long nothing has changed, in seconds.
    unchanged_secs: f64,
    /// How long the worker's lease lasts, in seconds; negative if it has run out.
    lease_secs: Option<f64>,
    /// Nothing has changed for more than 60 seconds, or the lease has run out.
    stalled: bool,
    /// Its attempt has taken more than ten minutes and three times the recording's length.
    long_running: bool,
}

impl Stuck {
    fn of(stuck: StuckSession, now: Timestamp) -> Self {
        Self {
            id: stuck.id,
            engine: stuck.engine.as_str().to_owned(),
            stage: stuck.stage,
            progress: stuck.progress,
            attempt: stuck.attempt,
            worker: stuck.worker,
            unchanged_secs: now.seconds_since(stuck.updated_at).max(0.0),
            lease_secs: stuck.lease_until.map(|until| until.seconds_since(now)),
            stalled: stuck.stalled,
            long_running: stuck.long_running,
        }
    }
}

/// The sessions that hang, as `hark sessions stuck` lists them.
#[utoipa::path(get, path = "/api/v1/admin/health/stuck", security(("admin_token" = [])),
    responses((status = 200, body = StuckSessions), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(in super::super) async fn stuck(
    _: Administrator,
    State(state): State<AppState>,
) -> Result<Json<StuckSessions>, Error> {
    let store = &state.sessions.store;
    let status = SessionsHealth::read(store).await?.judged(&state.settings.health).status();
    let now = store.now().await?;
    let stuck = store.stuck(now, STALLED_SECS).await?;
    Ok(Json(StuckSessions { status, sessions: stuck.into_iter().map(|stuck| Stuck::of(stuck, now)).collect() }))
}
