//! The server: assembles a node and runs it until told to stop.
//! `main` and the tests call [`Node::start`] and [`Node::serve`].

pub mod address;
pub mod audio;
pub mod bus;
pub mod clock;
pub mod config;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod keys;
pub mod media;
pub mod notice;
pub mod outside;
pub mod owner;
pub mod pages;
pub mod router;
pub mod sessions;
pub mod speech;
pub mod state;
pub mod store;
pub mod stream;
pub mod stuck;
pub mod telemetry;

use address::PeerAddress;
use axum::{Extension, Router};
use bus::{Bus, Inbox, Signer};
use bytes::Bytes;
use config::{DataConfig, ServeConfig, StreamConfig, StreamPath};
use cookie::Key;
use disk::{Ballast, DiskWatch};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use keys::CookieKeys;
use leptos::config::LeptosOptions;
use media::{Media, OpenError};
use outside::Outside;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use speech::Engines;
use state::{AppState, Parts};
use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};
use store::Store;
use stream::{Begun, Hub, StreamLimits};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Layer;

/// How often the hub looks at its clock.
const TICK: Duration = Duration::from_millis(250);
/// How long open requests have to finish once the node is told to stop.
const GRACE: Duration = Duration::from_secs(8);
/// hyper's read buffer for a connection: a request's head is small, and thousands of streams are open at once.
const READ_BUFFER: usize = 16 * 1024;
/// How long hyper waits for a request's head, also on a connection kept alive: longer than the 60 s after which nginx
/// drops an idle connection, so that the server is not the first to hang up.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long the last changes may take to reach the other nodes.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// File descriptors kept free of status streams: the database, uploads, engines, plain requests.
const SPARE_FILES: u64 = 512;

/// A node that has its data folder and is ready to serve.
pub struct Node {
    pub state: AppState,
    bus: bus::Background,
    heard: Arc<Inbox>,
    /// Where operators ask, if that is elsewhere than where pages are served.
    monitor: Option<TcpListener>,
    /// Held for as long as the node lives: one node to a data folder.
    _lock: File,
}

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data folder '{path}' can't be used: {error}. Choose another with HARK_DATA_DIR")]
    Folder { path: String, error: std::io::Error },
    #[error(
        "the data folder '{0}' is in use by another Hark. Stop that one, or choose another folder with HARK_DATA_DIR"
    )]
    InUse(String),
    #[error(
        "HARK_SECRET must be at least 128 hexadecimal digits, or several such with commas between; \
         make one with: openssl rand -hex 64"
    )]
    Secret,
    #[error("the database can't be opened: {0}")]
    Store(#[from] sqlx::Error),
    #[error("recordings can't be kept: {0}")]
    Media(#[from] OpenError),
    #[error("REDIS_URL isn't an address like redis://host:6379/ ({0})")]
    Redis(#[from] redis::RedisError),
    #[error(
        "a node that only works shares its sessions with others, so it needs DATABASE_URL; \
         an SQLite database has one node, 'hark serve'"
    )]
    WorkerAlone,
    #[error("{addr} can't be listened on: {error}. Choose another address with HARK_MONITOR_ADDR")]
    Monitor { addr: std::net::SocketAddr, error: std::io::Error },
}

impl Node {
    /// Opens the data folder and takes back what an earlier run left unfinished.
    ///
    /// # Errors
    /// If the folder, the key or the database can't be used.
    pub async fn start(config: ServeConfig, leptos: LeptosOptions) -> Result<Self, StartError> {
        Self::open(config, leptos, true).await
    }

    /// The same for a node without watchers.
    ///
    /// # Errors
    /// As [`Node::start`], and if no database is shared.
    pub async fn start_worker(config: ServeConfig) -> Result<Self, StartError> {
        if config.data.database_url.is_none() {
            return Err(StartError::WorkerAlone);
        }
        Self::open(config, LeptosOptions::builder().output_name("hark").build(), false).await
    }

    async fn open(config: ServeConfig, leptos: LeptosOptions, watched: bool) -> Result<Self, StartError> {
        let folder = config.data.data_dir.clone();
        let broken = |error| StartError::Folder { path: folder.display().to_string(), error };
        config::make_folder(&folder).map_err(broken)?;
        if config::is_open_to_others(&folder) {
            let shown = folder.display();
            tracing::warn!(
                "other users of this machine may enter the data folder {shown}, which holds recordings and keys; \
                 close it with: chmod 700 {shown}"
            );
        }
        let lock = File::create(folder.join("hark.lock")).map_err(broken)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StartError::InUse(folder.display().to_string()))?;
        let monitor = match config.monitor_addr {
            Some(addr) => {
                let bound = TcpListener::bind(addr).await;
                Some(bound.map_err(|error| StartError::Monitor { addr, error })?)
            }
            None => None,
        };
        let ballast = Ballast::new(config.data.database_url.is_none().then_some(&*folder));
        let store = match &config.data.database_url {
            Some(url) => Store::connect(url).await?,
            None => {
                let path = folder.join("hark.sqlite");
                match Store::open(&path).await {
                    // Opening takes some room too, and without the sessions nobody could delete any.
                    Err(_) if ballast.release() => Store::open(&path).await?,
                    opened => opened?,
                }
            }
        };
        let cookie_keys = cookie_keys(&config.data, &store).await?;
        let media = Media::open(&folder, config.data.recordings_url.as_ref(), config.limits.min_free_bytes).await?;
        let metrics = telemetry::metrics();
        let limits = if watched { stream_limits(&config.streams) } else { StreamLimits::default() };
        let hub = Arc::new(Hub::new(limits));
        let heard = Arc::new(Inbox::default());
        let (bus, background) = match &config.data.redis_url {
            Some(url) => {
                let signer = Signer::new(cookie_keys.masters());
                Bus::over_redis(url, signer, &hub, &store, Arc::clone(&heard), watched)?
            }
            None => Bus::alone(&hub, &store),
        };
        if store.is_shared() && config.data.redis_url.is_none() {
            tracing::warn!("without REDIS_URL, changes of other nodes on this database are seen up to a second late");
        }
        let engines = Arc::new(Engines::from_config(&config.engines, &folder));
        let state = AppState::new(Parts {
            bus,
            hub,
            source: Arc::new(store.clone()),
            outside: Arc::new(Outside::new(store.is_shared())),
            store,
            media,
            disk: DiskWatch::new(config.limits.min_free_bytes, ballast),
            running: jobs::Running::default(),
            engines,
            limits: config.limits,
            network: config.network,
            streams: config.streams,
            outside_config: config.outside,
            jobs: config.jobs,
            reports: http::ReportLimits::default(),
            session_gauges: http::SessionGauges::default(),
            monitored_elsewhere: monitor.is_some(),
            cookie_keys,
            leptos,
            metrics,
        });
        jobs::recover(&state).await?;
        Ok(Self { state, bus: background, heard, monitor, _lock: lock })
    }

    /// Serves `listener` and works on sessions until `stop`; then says goodbye to the streams, hands running sessions
    /// back to the queue, and returns.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let state = self.state.clone();
        self.run(accept(&state, listener, &stop), stop.clone()).await;
    }

    /// Works on sessions without serving pages until `stop`; then hands running sessions back to the queue, and returns.
    pub async fn work(self, stop: CancellationToken) {
        self.run(stop.clone().cancelled_owned(), stop).await;
    }

    async fn run(self, front: impl Future<Output = ()>, stop: CancellationToken) {
        let workers = jobs::run(self.state.clone(), stop.clone());
        let outside = jobs::look_after_outside(self.state.clone(), stop.clone());
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
        let monitor = serve_monitor(self.state.clone(), self.monitor, stop.clone());
        let disk = self.state.disk.run(&self.state.media, &stop);
        let foreign = outside::listen(self.state.clone(), self.heard, stop.clone());
        // The bus goes on until everyone else has said their last words.
        let silence = CancellationToken::new();
        let bus = self.bus.run(silence.clone());
        let work = async {
            tokio::join!(front, workers, outside, foreign, upkeep, monitor, disk);
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
        self.state.store.close().await;
    }
}

/// Answers operators on an address of their own until `stop`, if there is one.
async fn serve_monitor(state: AppState, listener: Option<TcpListener>, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    let served = axum::serve(listener, router::monitor(state).into_make_service());
    if let Err(error) = served.with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "the monitor's pages are no longer served");
    }
}

async fn accept(state: &AppState, listener: TcpListener, stop: &CancellationToken) {
    let server = Arc::new(Server::new(state));
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, peer)) => {
                stream::prepare(&socket);
                let peer = PeerAddress(peer.ip());
                connections.spawn(Arc::clone(&server).begin(socket, peer, connections.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors: waiting gives others time to close theirs.
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    state.hub.close();
    server.stop.cancel();
    connections.close();
    if time::timeout(GRACE, connections.wait()).await.is_err() {
        let open = connections.len();
        tracing::warn!(grace_secs = GRACE.as_secs(), open, "some requests did not end in time and were cut off");
    }
}

/// Serves connections, each in a task of its own.
struct Server {
    router: Router,
    builder: Builder<TokioExecutor>,
    hub: Arc<Hub>,
    path: StreamPath,
    stop: CancellationToken,
}

impl Server {
    fn new(state: &AppState) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().max_buf_size(READ_BUFFER).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(200);
        Self {
            router: router::router(state.clone()),
            builder,
            hub: Arc::clone(&state.hub),
            path: state.streams.stream_path,
            stop: CancellationToken::new(),
        }
    }

    /// The first request of a connection decides who serves it. What goes on for long is a task of its own, so that
    /// it isn't as large as everything that came before.
    async fn begin(self: Arc<Self>, socket: TcpStream, from: PeerAddress, connections: TaskTracker) {
        let begun = match self.path {
            StreamPath::Direct => {
                let begun = self.stop.run_until_cancelled(stream::begin(socket, from, &self.router)).await;
                begun.unwrap_or(Begun::Gone)
            }
            StreamPath::Hyper => Begun::Other(socket, Bytes::new()),
        };
        match begun {
            Begun::Stream(writer) => drop(connections.spawn(writer)),
            Begun::Other(socket, before) => drop(connections.spawn(self.serve(socket, from, before))),
            Begun::Gone => {}
        }
    }

    async fn serve(self: Arc<Self>, socket: TcpStream, from: PeerAddress, before: Bytes) {
        let peer = self.hub.peer();
        let router = (Extension(from), Extension(Arc::clone(&peer))).layer(self.router.clone());
        let service = TowerToHyperService::new(router);
        let socket = TokioIo::new(stream::Socket::new(socket, before, Arc::clone(&peer)));
        let connection = self.builder.serve_connection_with_upgrades(socket, service);
        tokio::pin!(connection);
        let stopped = self.stop.cancelled();
        tokio::pin!(stopped);
        let mut stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    }
                    return;
                }
                () = std::future::poll_fn(|cx| peer.poll_cut(cx)) => return,
                () = stopped.as_mut(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// What streams may use: what is set, as far as the system allows so many open files.
fn stream_limits(config: &StreamConfig) -> StreamLimits {
    let files = raise_file_limit();
    let room = files.map_or(u32::MAX, |files| u32::try_from(files.saturating_sub(SPARE_FILES)).unwrap_or(u32::MAX));
    if room < config.max_streams {
        tracing::warn!(
            open_files = files,
            max_streams = config.max_streams,
            "the system allows too few open files for so many streams: there will be {} at most; raise it with ulimit -n",
            room.max(1)
        );
    }
    StreamLimits {
        per_owner: config.max_streams_per_owner,
        per_node: config.max_streams.min(room.max(1)),
        lifetime_secs: config.stream_lifetime_secs,
        idle_secs: config.stream_idle_secs,
    }
}

/// Raises the number of open files to what the system allows at most, and returns it; none if there is no limit.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the number of open files could not be raised");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// The keys of cookies: given, or one made once and kept in the data folder, or in the database where nodes share one.
async fn cookie_keys(data: &DataConfig, store: &Store) -> Result<CookieKeys, StartError> {
    if let Some(secrets) = &data.secret {
        return CookieKeys::parse(secrets).ok_or(StartError::Secret);
    }
    let path = data.data_dir.join("secret.key");
    if store.is_shared() {
        // That of a node which ran alone before goes on to be valid.
        let own = std::fs::read(&path).ok().filter(|bytes| bytes.len() >= 64);
        let candidate = own.unwrap_or_else(|| Key::generate().master().to_vec());
        let key = store.cookie_key(&candidate).await?;
        return CookieKeys::one(&key).ok_or(StartError::Secret);
    }
    let broken = |error| StartError::Folder { path: path.display().to_string(), error };
    let key = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Key::generate().master().to_vec();
            write_private(&path, &key).map_err(broken)?;
            key
        }
        Err(error) => return Err(broken(error)),
    };
    CookieKeys::one(&key).ok_or_else(|| {
        broken(std::io::Error::other("secret.key is shorter than 64 bytes; remove it to have a new one made"))
    })
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
