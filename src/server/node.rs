//! A node: everything that runs between its start and its stop. `main` and the tests call [`Node::start`] and
//! [`Node::serve`].

mod capacity;
mod start;

use super::{
    accept,
    bus::{self, Inbox},
    config::ServeConfig,
    connections::ConnectionLimits,
    jobs::{self, Workers},
    outside, router,
    state::AppState,
};
use leptos::config::LeptosOptions;
pub use start::StartError;
use std::{fs::File, sync::Arc, time::Duration};
use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;

/// How often the hub looks at its clock.
const TICK: Duration = Duration::from_millis(250);
/// How long the last changes may take to reach the other nodes.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// Connections of operators, where they have an address of their own.
const MONITOR_CONNECTIONS: u32 = 32;

/// A node that has its data folder and is ready to serve.
pub struct Node {
    pub state: AppState,
    workers: Workers,
    bus: bus::Background,
    heard: Arc<Inbox>,
    connections: ConnectionLimits,
    /// Where operators ask, if that is elsewhere than where pages are served.
    monitor: Option<TcpListener>,
    /// Held for as long as the node lives: one node to a data folder.
    _lock: File,
}

impl Node {
    /// Opens the data folder and takes back what an earlier run left unfinished.
    ///
    /// # Errors
    /// If the folder, the key or the database can't be used.
    pub async fn start(config: ServeConfig, leptos: LeptosOptions) -> Result<Self, StartError> {
        start::open(config, leptos, true).await
    }

    /// The same for a node without watchers.
    ///
    /// # Errors
    /// As [`Node::start`], and if no database is shared.
    pub async fn start_worker(config: ServeConfig) -> Result<Self, StartError> {
        if config.data.database_url.is_none() {
            return Err(StartError::WorkerAlone);
        }
        start::open(config, LeptosOptions::builder().output_name("hark").build(), false).await
    }

    /// Serves `listener` and works on sessions until `stop`; then says goodbye to the streams, hands running sessions
    /// back to the queue, and returns.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let state = self.state.clone();
        let front = accept::accept(&state, router::router(state.clone()), self.connections, listener, &stop);
        self.run(front, stop.clone()).await;
    }

    /// Works on sessions without serving pages until `stop`; then hands running sessions back to the queue, and returns.
    pub async fn work(self, stop: CancellationToken) {
        self.run(stop.clone().cancelled_owned(), stop).await;
    }

    async fn run(self, front: impl Future<Output = ()>, stop: CancellationToken) {
        let workers = jobs::run(self.workers, stop.clone());
        let outside = jobs::watch_outside_workers(Arc::clone(&self.state.outside), stop.clone());
        let retention = jobs::delete_expired(Arc::clone(&self.state.sessions), stop.clone());
        let clock = {
            let hub = Arc::clone(&self.state.hub);
            // Until the last stream is gone: stuck ones are cut off also while the node goes down.
            async move {
                let mut ticks = time::interval(TICK);
                loop {
                    ticks.tick().await;
                    hub.tick().await;
                }
            }
        };
        let upkeep = {
            let metrics = self.state.metrics.clone();
            let stop = stop.clone();
            async move {
                // The exporter must be swept, or its histograms grow without bound.
                let mut ticks = time::interval(Duration::from_secs(5));
                while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                    metrics.run_upkeep();
                }
            }
        };
        let monitor = serve_monitor(self.state.clone(), self.monitor, self.connections.spare, stop.clone());
        let sessions = &self.state.sessions;
        let disk = sessions.disk.run(&sessions.media, &stop);
        let foreign = outside::listen(Arc::clone(&self.state.outside), self.heard, stop.clone());
        // The bus goes on until everyone else has said their last words.
        let silence = CancellationToken::new();
        let bus = self.bus.run(silence.clone());
        let work = async {
            tokio::join!(front, workers, outside, retention, foreign, upkeep, monitor, disk);
            silence.cancel();
        };
        let all = async {
            tokio::join!(work, async {
                tokio::pin!(bus);
                tokio::select! {
                    () = &mut bus => {}
                    () = silence.cancelled() => drop(time::timeout(LAST_WORDS, bus).await),
                }
            });
        };
        tokio::select! { () = all => {}, () = clock => {} }
        sessions.store.close().await;
    }
}

/// Answers operators on an address of their own until `stop`, if there is one.
async fn serve_monitor(state: AppState, listener: Option<TcpListener>, spare: u32, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    let limits = ConnectionLimits { all: MONITOR_CONNECTIONS, per_address: MONITOR_CONNECTIONS, spare };
    accept::accept(&state, router::monitor(state.clone()), limits, listener, &stop).await;
}
