//! What every request of a node shares. Cheap to clone: each has one.

use super::{
    config::{HttpConfig, NetworkConfig, StreamConfig, UploadConfig},
    health::SessionGauges,
    identity::Identities,
    keys::CookieKeys,
    outside::Outside,
    report_limits::ReportLimits,
    sessions::Sessions,
    stream::{Hub, Source},
    uploads::UploadPermits,
};
use axum::extract::FromRef;
use leptos::config::LeptosOptions;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;

/// What requests are answered with.
#[derive(Clone)]
pub struct AppState {
    pub sessions: Arc<Sessions>,
    /// The sessions of workers outside Hark.
    pub outside: Arc<Outside>,
    pub identities: Arc<Identities>,
    pub hub: Arc<Hub>,
    /// The store as status streams read it.
    pub source: Arc<dyn Source>,
    /// What signs the cookies.
    pub cookie_keys: Arc<CookieKeys>,
    /// The uploads under way.
    pub uploads: Arc<UploadPermits>,
    /// How often pages may report on their connection.
    pub reports: Arc<ReportLimits>,
    /// What Prometheus is told of the sessions.
    pub session_gauges: Arc<SessionGauges>,
    pub metrics: PrometheusHandle,
    pub settings: Arc<Settings>,
}

/// What routes and connections must keep to.
pub struct Settings {
    pub http: HttpConfig,
    pub network: NetworkConfig,
    pub streams: StreamConfig,
    pub uploads: UploadConfig,
    /// What workers outside Hark prove themselves with; none if they are switched off.
    pub worker_token: Option<String>,
    /// Whether operators ask on an address of their own, so that strangers get no metrics.
    pub separate_monitor: bool,
    pub leptos: LeptosOptions,
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.settings.leptos.clone()
    }
}
