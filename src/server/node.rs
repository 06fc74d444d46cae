//! A node, from its start to its stop. `main` and the tests call [`Node::start`] and [`Node::serve`].

mod capacity;
mod start;

use super::{
    accept, alerts,
    bus::{self, Inbox},
    certificate,
    config::ServeConfig,
    connections::ConnectionLimits,
    jobs::{self, Workers},
    outside,
    page_files::PageFiles,
    router,
    sessions::Sessions,
    sightings::Sightings,
    state::AppState,
    telemetry::lines,
};
use crate::model::Arm;
use leptos::config::LeptosOptions;
use reqwest::Url;
pub use start::StartError;
use std::{fs::File, io, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How often the hub's clock is advanced.
const TICK: Duration = Duration::from_millis(250);
/// How long publishing the last changes to the other nodes may take.
const BUS_FLUSH_TIMEOUT: Duration = Duration::from_millis(1500);
/// The least time between two events about a model that is being fetched.
const MODELS_INTERVAL: Duration = Duration::from_millis(500);
/// The most connections on the separate address for monitoring.
const MONITOR_CONNECTIONS: u32 = 32;

/// A node that has locked its data folder and is ready to serve.
pub struct Node {
    pub state: AppState,
    workers: Workers,
    bus: bus::Background,
    inbox: Arc<Inbox>,
    connections: ConnectionLimits,
    /// What alerts need, if there is anybody to tell.
    alerts: Option<Arc<alerts::Setup>>,
    /// The address under which people reach Hark, if it is set.
    public_url: Option<Url>,
    /// The separate address for monitoring, if there is one.
    monitor: Option<TcpListener>,
    /// Held while the node runs, so that a data folder has only one node.
    _lock: File,
}

impl Node {
    /// Opens the data folder and recovers what an earlier run left unfinished.
    ///
    /// # Errors
    /// If the folder, the key or the database can't be used.
    pub async fn start(config: ServeConfig, leptos: LeptosOptions, files: PageFiles) -> Result<Self, StartError> {
        start::open(config, leptos, files, true).await
    }

    /// Listens on an address. As many connections as the system allows may wait to be accepted: when a proxy or all its
    /// browsers come back at once, those that find no room there would try again only after a second.
    ///
    /// # Errors
    /// If the address can't be listened on.
    pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As `TcpListener::bind` does: a node that is restarted finds connections of the one before.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        // The system takes its own limit if that is lower (net.core.somaxconn).
        socket.listen(u16::MAX.into())
    }

    /// As [`Node::start`], for a node that serves no pages and streams.
    ///
    /// # Errors
    /// As [`Node::start`], and if there is no shared database.
    pub async fn start_worker(config: ServeConfig) -> Result<Self, StartError> {
        if config.data.database_url.is_none() {
            return Err(StartError::WorkerAlone);
        }
        let leptos = LeptosOptions::builder().output_name("hark").build();
        let files = PageFiles::find(&leptos, false, Path::new(""));
        start::open(config, leptos, files, false).await
    }

    /// Serves `listener` and works on sessions until `stop`; then ends the streams with a `bye`, puts running sessions
    /// back into the queue, and returns.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let state = self.state.clone();
        let server = accept::accept(&state, router::router(state.clone()), self.connections, listener, &stop);
        self.run(server, stop.clone()).await;
    }

    /// Works on sessions without serving pages until `stop`; then puts running sessions back into the queue, and
    /// returns.
    pub async fn work(self, stop: CancellationToken) {
        self.run(stop.clone().cancelled_owned(), stop).await;
    }

    async fn run(self, server: impl Future<Output = ()>, stop: CancellationToken) {
        let state = &self.state;
        // Tasks of their own, because their calls together are too deep for one stack.
        let mut tasks = JoinSet::new();
        let mut spawn = |task: Pin<Box<dyn Future<Output = ()> + Send>>| drop(tasks.spawn(task.in_current_span()));
        spawn(Box::pin(jobs::announce(
            self.workers.clone(),
            Arc::clone(&state.clock),
            Arc::clone(&state.load),
            stop.clone(),
        )));
        spawn(Box::pin(jobs::run(self.workers, stop.clone())));
        spawn(Box::pin(jobs::watch_outside_workers(Arc::clone(&state.outside), stop.clone())));
        spawn(Box::pin(jobs::delete_expired(Arc::clone(&state.sessions), stop.clone())));
        spawn(Box::pin(jobs::remove_old_copies(Arc::clone(&state.sessions), stop.clone())));
        spawn(Box::pin(remove_expired_uploads(state.clone(), stop.clone())));
        spawn(Box::pin(outside::listen(Arc::clone(&state.outside), self.inbox, stop.clone())));
        if state.settings.monitoring {
            spawn(Box::pin(keep_figures(state.clone(), stop.clone())));
        }
        spawn(Box::pin(fetch_model(Arc::clone(&state.sessions), stop.clone())));
        spawn(Box::pin(watch(state.clone(), stop.clone())));
        if let Some(setup) = self.alerts {
            spawn(Box::pin(alerts::watch(state.clone(), Arc::clone(&setup), stop.clone())));
            spawn(Box::pin(alerts::send(state.clone(), setup, stop.clone())));
        }
        if let Some(url) = self.public_url {
            spawn(Box::pin(certificate::watch(url, stop.clone())));
        }
        let tasks = async move {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
        };
        let clock = {
            let hub = Arc::clone(&state.hub);
            // Runs until the last stream has ended, because stalled ones must be disconnected while the node stops,
            // too.
            async move {
                let mut ticks = time::interval(TICK);
                loop {
                    ticks.tick().await;
                    hub.tick().await;
                }
            }
        };
        let upkeep = {
            let metrics = state.metrics.clone();
            let stop = stop.clone();
            async move {
                let mut ticks = time::interval(Duration::from_secs(1));
                while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                    // Without this, the exporter's histograms grow without bound.
                    metrics.run_upkeep();
                    lines::next_second();
                }
            }
        };
        let monitor = serve_monitor(state.clone(), self.monitor, self.connections.spare, stop.clone());
        // The bus is stopped last, after everybody else has published.
        let bus_stop = CancellationToken::new();
        let bus = self.bus.run(bus_stop.clone());
        let work = async {
            tokio::join!(server, tasks, upkeep, monitor);
            bus_stop.cancel();
        };
        let all = async {
            tokio::join!(work, async {
                tokio::pin!(bus);
                tokio::select! {
                    () = &mut bus => {}
                    () = bus_stop.cancelled() => drop(time::timeout(BUS_FLUSH_TIMEOUT, bus).await),
                }
            });
        };
        tokio::select! { () = all => {}, () = clock => {} }
        if state.settings.monitoring {
            count_bytes(state, Sightings::take_bytes);
            state.hours.store_at_stop(&state.sessions.store, &state.load.totals()).await;
        }
        state.sessions.store.close().await;
    }
}

/// Fetches the speech model that is missing, unless `stop` comes first.
async fn fetch_model(sessions: Arc<Sessions>, stop: CancellationToken) {
    stop.run_until_cancelled(sessions.engines.fetch_missing()).await;
}

/// Removes uploads in parts that have expired, until `stop`.
async fn remove_expired_uploads(state: AppState, stop: CancellationToken) {
    state.resumable.run(&stop).await;
}

/// Stores what this node counts for the figures, until `stop`.
async fn keep_figures(state: AppState, stop: CancellationToken) {
    let sample = || {
        count_bytes(&state, Sightings::take_unreported);
        state.load.sample()
    };
    state.hours.run(&state.sessions.store, sample, &stop).await;
}

/// Counts bytes that were sent to pages and that no report has taken.
fn count_bytes(state: &AppState, take: fn(&Sightings, Arm) -> u64) {
    for arm in Arm::ALL {
        let bytes = take(state.hub.sightings(), arm);
        if bytes > 0 {
            metrics::counter!("hark_client_received_bytes_total", "arm" => arm.as_str()).increment(bytes);
            state.hours.sent(arm, bytes);
        }
    }
}

/// Watches what is around the node, until `stop`.
async fn watch(state: AppState, stop: CancellationToken) {
    let sessions = &state.sessions;
    tokio::join!(
        sessions.store.watch(&stop),
        sessions.disk.run(&sessions.media, &stop),
        sessions.cluster.run(&sessions.media, &stop),
        state.clock.run(&sessions.store, &stop),
        publish_models(state.clone(), &stop),
        state.dashboards.run(&stop)
    );
}

/// Publishes what changes about Whisper's models to the streams that watch them, until `stop`.
async fn publish_models(state: AppState, stop: &CancellationToken) {
    let mut changes = state.sessions.engines.model_changes();
    let publishing = async {
        while changes.changed().await.is_ok() {
            if state.hub.models_are_watched()
                && let Ok(info) = state.sessions.models().await
            {
                state.hub.publish_models(&info);
            }
            // A download reports every piece.
            time::sleep(MODELS_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(publishing).await;
}

/// Serves the separate address for monitoring until `stop`, if there is one.
async fn serve_monitor(state: AppState, listener: Option<TcpListener>, spare: u32, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    let limits = ConnectionLimits { all: MONITOR_CONNECTIONS, per_address: MONITOR_CONNECTIONS, spare };
    accept::accept(&state, router::monitor(state.clone()), limits, listener, &stop).await;
}
