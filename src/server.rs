//! The server: assembles a node and runs it until told to stop.
//! `main` and the tests call [`Node::start`] and [`Node::serve`].

mod accept;
pub mod address;
pub mod audio;
pub mod body;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
mod counts;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod event;
pub mod folders;
pub mod guard;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod keys;
pub mod manage;
pub mod media;
pub mod outside;
pub mod owner;
pub mod pages;
pub mod retention;
pub mod router;
pub mod sessions;
pub mod shares;
pub mod space;
pub mod speech;
pub mod state;
pub mod store;
pub mod stream;
pub mod stuck;
pub mod telemetry;
pub mod uploads;

use audio::Decoders;
use bus::{Bus, Inbox, Signer};
use config::{DataConfig, ServeConfig};
use connections::ConnectionLimits;
use cookie::Key;
use disk::{Ballast, DiskWatch};
use keys::CookieKeys;
use leptos::config::LeptosOptions;
use media::{Media, OpenError};
use outside::Outside;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use shares::Shares;
use speech::Engines;
use state::{AppState, Parts};
use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};
use store::{QueueLimits, Share, Store};
use stream::{Hub, StreamLimits};
use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;
use uploads::UploadPermits;

/// How often the hub looks at its clock.
const TICK: Duration = Duration::from_millis(250);
/// How long the last changes may take to reach the other nodes.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// File descriptors kept free of connections, for the database, recordings and engines, and of status streams, for
/// other requests; but no more than a quarter of all for each.
const NODE_FILES: u64 = 256;
const REQUEST_FILES: u64 = 256;
/// Connections of operators, where they have an address of their own.
const MONITOR_CONNECTIONS: u32 = 32;

/// A node that has its data folder and is ready to serve.
pub struct Node {
    pub state: AppState,
    bus: bus::Background,
    heard: Arc<Inbox>,
    connections: ConnectionLimits,
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
        folders::make_folder(&folder).map_err(broken)?;
        if folders::is_open_to_others(&folder) {
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
        let database = folder.join("hark.sqlite");
        let ballast = Ballast::new(config.data.database_url.is_none().then(|| database.clone()));
        let store = match &config.data.database_url {
            Some(url) => Store::connect(url).await?,
            None => match Store::open(&database).await {
                // Opening takes some room too, and without the sessions nobody could delete any.
                Err(_) if ballast.release() => Store::open(&database).await?,
                opened => opened?,
            },
        };
        let cookie_keys = cookie_keys(&config.data, &store).await?;
        let media = Media::open(&folder, config.data.recordings_url.as_ref(), config.limits.min_free_bytes).await?;
        let metrics = telemetry::metrics();
        let room = Room::of_system(&config);
        let limits = if watched { room.streams(&config) } else { StreamLimits::default() };
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
        let decoders = Decoders::new(&config.decode, config.engines.engine_program.as_deref());
        tokio::spawn(check_decoders(decoders.clone()));
        let shares = Shares::new(&config.shares, cookie_keys.masters().next().unwrap_or_default());
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
            decoders,
            queue: queue_limits(&config),
            shares,
            kept: config.kept,
            limits: config.limits,
            network: config.network,
            streams: config.streams,
            outside_config: config.outside,
            jobs: config.jobs,
            reports: http::ReportLimits::default(),
            session_gauges: http::SessionGauges::default(),
            monitored_elsewhere: monitor.is_some(),
            cookie_keys: Arc::new(cookie_keys),
            leptos,
            metrics,
            uploads: Arc::new(UploadPermits::new(&config.uploads, room.uploads)),
            upload_config: config.uploads,
            http: config.http,
        });
        jobs::recover(&state).await?;
        Ok(Self { state, bus: background, heard, connections: room.connections, monitor, _lock: lock })
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
        let workers = jobs::run(self.state.clone(), stop.clone());
        let outside = jobs::look_after_outside(self.state.clone(), stop.clone());
        let retention = retention::run(self.state.clone(), stop.clone());
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
        let disk = self.state.disk.run(&self.state.media, &stop);
        let foreign = outside::listen(self.state.clone(), self.heard, stop.clone());
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
        self.state.store.close().await;
    }
}

/// Answers operators on an address of their own until `stop`, if there is one.
async fn serve_monitor(state: AppState, listener: Option<TcpListener>, spare: u32, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    let limits = ConnectionLimits { all: MONITOR_CONNECTIONS, per_address: MONITOR_CONNECTIONS, spare };
    accept::accept(&state, router::monitor(state.clone()), limits, listener, &stop).await;
}

/// Says what this machine lacks to confine decoders.
async fn check_decoders(decoders: Decoders) {
    let missing = decoders.check().await;
    if !missing.is_empty() {
        tracing::warn!("recordings are decoded with fewer limits than Hark could set: {}", missing.join("; "));
    }
}

/// What a node may have open: what is set, as far as the system allows so many open files.
struct Room {
    connections: ConnectionLimits,
    streams: u32,
    uploads: u32,
}

impl Room {
    fn of_system(config: &ServeConfig) -> Self {
        let files = raise_file_limit();
        let room = Self::of(files, config);
        let wanted = config.http.max_connections.unwrap_or_default().max(config.streams.max_streams);
        if room.connections.all < wanted || room.streams < config.streams.max_streams {
            tracing::warn!(
                open_files = files,
                max_streams = config.streams.max_streams,
                max_connections = config.http.max_connections,
                "the system allows too few open files for so many: there will be {} connections at most, and {} status \
                 streams among them; raise it with ulimit -n",
                room.connections.all,
                room.streams
            );
        }
        room
    }

    fn of(files: Option<u64>, config: &ServeConfig) -> Self {
        let files = files.unwrap_or(u64::MAX);
        let [node, requests] = [NODE_FILES, REQUEST_FILES].map(|kept| kept.min(files / 4));
        let spare = config.http.spare_connections.min(small(files / 16)).max(1);
        let connections = small(files - node - u64::from(spare)).min(config.http.max_connections.unwrap_or(u32::MAX));
        let streams = small(files - node - u64::from(spare) - requests).min(config.streams.max_streams);
        Self {
            connections: ConnectionLimits {
                all: connections.max(1),
                per_address: config.http.max_connections_per_address,
                spare,
            },
            streams: streams.max(1),
            // Each has a scratch file, and another while it is looked at.
            uploads: small(node / 2),
        }
    }

    fn streams(&self, config: &ServeConfig) -> StreamLimits {
        let (shares, config) = (&config.shares, &config.streams);
        StreamLimits {
            per_owner: config.max_streams_per_owner,
            per_address: shares.max_streams_per_address,
            newcomers: shares.of_newcomers(self.streams),
            per_node: self.streams,
            lifetime_secs: config.stream_lifetime_secs,
            idle_secs: config.stream_idle_secs,
        }
    }
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
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

/// The limits of the queue, and of what is kept.
fn queue_limits(config: &ServeConfig) -> QueueLimits {
    let (limits, shares) = (&config.limits, &config.shares);
    let share = |sessions, hours: f64| Share { sessions, seconds: hours * 3600.0 };
    QueueLimits {
        all: share(limits.max_queue, shares.max_queue_hours),
        owner: share(limits.max_queue_per_owner, shares.max_queue_hours_per_owner),
        address: share(shares.max_queue_per_address, shares.max_queue_hours_per_address),
        newcomers: share(
            shares.of_newcomers(limits.max_queue),
            shares.max_queue_hours * f64::from(shares.newcomer_percent) / 100.0,
        ),
        unknown_secs: limits.max_duration,
        bytes_per_owner: config.kept.max_bytes_per_owner,
    }
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
