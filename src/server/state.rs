//! What every request and every worker of a node shares. Cheap to clone.

use super::{
    bus::Bus,
    config::{JobConfig, LimitConfig, OutsideConfig, StreamConfig},
    media::Media,
    outside::Outside,
    sessions::Sessions,
    speech::Engines,
    store::Store,
    stream::{Hub, Source},
};
use axum::extract::FromRef;
use axum_extra::extract::cookie::Key;
use leptos::config::LeptosOptions;
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;

/// The parts of a node.
#[derive(Clone)]
pub struct AppState {
    pub store: Store,
    pub media: Media,
    pub hub: Arc<Hub>,
    /// The store as status streams read it.
    pub source: Arc<dyn Source>,
    /// What workers outside Hark have published.
    pub outside: Arc<Outside>,
    pub bus: Bus,
    pub engines: Arc<Engines>,
    pub limits: LimitConfig,
    pub streams: StreamConfig,
    pub outside_config: OutsideConfig,
    pub jobs: JobConfig,
    pub cookie_key: Key,
    pub leptos: LeptosOptions,
    pub metrics: PrometheusHandle,
}

impl AppState {
    /// What can be done with sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions::new(self)
    }
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.leptos.clone()
    }
}
