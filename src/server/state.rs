//! What every request and every worker of a node shares. Cheap to clone.

use super::{
    address::ClientAddress,
    audio::Decoders,
    bus::Bus,
    config::{
        HttpConfig, JobConfig, KeepConfig, LimitConfig, NetworkConfig, OutsideConfig, StreamConfig, UploadConfig,
    },
    disk::DiskWatch,
    http::{ReportLimits, SessionGauges},
    identity::Identities,
    jobs::Running,
    keys::CookieKeys,
    media::Media,
    outside::Outside,
    owner::Owner,
    sessions::Sessions,
    shares::{Shares, Standing},
    speech::Engines,
    store::{QueueLimits, Store},
    stream::{Hub, Source},
    uploads::UploadPermits,
};
use axum::extract::FromRef;
use leptos::config::LeptosOptions;
use metrics_exporter_prometheus::PrometheusHandle;
use std::{ops::Deref, sync::Arc};

/// The parts of a node, shared: every request has a clone.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

/// See [`AppState`].
pub struct Parts {
    pub store: Store,
    pub media: Media,
    pub disk: DiskWatch,
    /// The sessions that this node works on.
    pub running: Running,
    pub hub: Arc<Hub>,
    /// The store as status streams read it.
    pub source: Arc<dyn Source>,
    /// What workers outside Hark have published.
    pub outside: Arc<Outside>,
    pub bus: Bus,
    pub engines: Arc<Engines>,
    pub decoders: Decoders,
    pub limits: LimitConfig,
    pub queue: QueueLimits,
    pub kept: KeepConfig,
    /// How callers count where something is shared.
    pub shares: Shares,
    pub network: NetworkConfig,
    pub streams: StreamConfig,
    pub outside_config: OutsideConfig,
    pub jobs: JobConfig,
    /// How often pages may report on their connection.
    pub reports: ReportLimits,
    /// What Prometheus is told of the sessions.
    pub session_gauges: SessionGauges,
    /// Whether operators ask on an address of their own, so that strangers get no metrics.
    pub monitored_elsewhere: bool,
    /// What signs the cookies.
    pub cookie_keys: Arc<CookieKeys>,
    pub leptos: LeptosOptions,
    pub metrics: PrometheusHandle,
    pub http: HttpConfig,
    pub upload_config: UploadConfig,
    /// The uploads under way.
    pub uploads: Arc<UploadPermits>,
}

impl AppState {
    /// A node of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What can be done with identities.
    #[must_use]
    pub fn identities(&self) -> Identities {
        Identities::new(self.store.clone(), self.bus.clone(), Arc::clone(&self.cookie_keys))
    }

    /// How an owner counts, coming from this address.
    pub async fn standing(&self, owner: &Owner, address: Option<ClientAddress>) -> Standing {
        self.shares.standing(&self.store, owner, address).await
    }

    /// What can be done with sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions::new(self)
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl FromRef<AppState> for LeptosOptions {
    fn from_ref(state: &AppState) -> Self {
        state.leptos.clone()
    }
}
