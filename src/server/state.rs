//! The state that all requests of a node share.

use super::{
    admin::Admins,
    arms::Arms,
    clock_watch::ClockWatch,
    config::{ExportConfig, HealthConfig, HttpConfig, NetworkConfig, StreamConfig, UploadConfig},
    dashboard::Dashboards,
    health::SessionGauges,
    hours::Hours,
    identity::Identities,
    keys::CookieKeys,
    load::LoadMeter,
    outside::Outside,
    page_files::PageFiles,
    page_tokens::PageTokens,
    report_limits::ReportLimits,
    resumable::Resumable,
    sessions::Sessions,
    stream::{Hub, Source},
    uploads::UploadPermits,
};
use axum::extract::FromRef;
use leptos::config::LeptosOptions;
use metrics_exporter_prometheus::PrometheusHandle;
use std::{ops::Deref, sync::Arc};

/// The state of requests: one pointer, because the router makes several clones for each request.
#[derive(Clone)]
pub struct AppState(Arc<Services>);

impl AppState {
    /// The state with these parts.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for AppState {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// The parts of a node that handlers of requests use.
pub struct Services {
    pub sessions: Arc<Sessions>,
    /// The sessions that workers outside Hark report on.
    pub outside: Arc<Outside>,
    pub identities: Arc<Identities>,
    pub admins: Arc<Admins>,
    pub hub: Arc<Hub>,
    /// The store, for status streams.
    pub source: Arc<dyn Source>,
    /// The keys that sign and encrypt cookies.
    pub cookie_keys: Arc<CookieKeys>,
    /// The permits of uploads.
    pub uploads: Arc<UploadPermits>,
    /// The uploads that come in parts.
    pub resumable: Arc<Resumable>,
    /// What browsers are assigned to: streams or polling.
    pub arms: Arms,
    /// The tokens of pages.
    pub page_tokens: Arc<PageTokens>,
    /// The limits on reports of pages about their connection.
    pub reports: Arc<ReportLimits>,
    /// What this node counts for the figures, and what it does now.
    pub hours: Hours,
    pub load: Arc<LoadMeter>,
    /// What the dashboard shows.
    pub dashboards: Arc<Dashboards>,
    /// How far this machine's clock is from the database's.
    pub clock: Arc<ClockWatch>,
    /// The counts of sessions for Prometheus.
    pub session_gauges: Arc<SessionGauges>,
    pub metrics: PrometheusHandle,
    pub settings: Settings,
}

/// The settings that routes and connections need.
pub struct Settings {
    pub http: HttpConfig,
    pub network: NetworkConfig,
    pub streams: StreamConfig,
    pub uploads: UploadConfig,
    pub health: HealthConfig,
    pub exports: ExportConfig,
    /// The token that workers outside Hark must send; none if they are switched off.
    pub worker_token: Option<String>,
    /// Whether monitoring has an address of its own, so that the public one serves no metrics.
    pub separate_monitor: bool,
    /// Whether this node measures itself.
    pub monitoring: bool,
    pub leptos: LeptosOptions,
    /// The files of pages.
    pub files: PageFiles,
}

impl FromRef<AppState> for Arc<Admins> {
    fn from_ref(state: &AppState) -> Self {
        Arc::clone(&state.admins)
    }
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.settings.leptos.clone()
    }
}
