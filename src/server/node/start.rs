//! Starts a node: opens the data folder, the database and the storage, and connects the parts.

use super::{Node, capacity::Capacity};
use crate::server::{
    admin::Admins,
    alerts,
    arms::Arms,
    audio::Decoders,
    backup,
    bus::{Bus, Inbox, Signer, Watchers},
    clock_watch::ClockWatch,
    cluster::{Cluster, JoinError},
    config::{DataConfig, ServeConfig},
    copies::Copies,
    dashboard::Dashboards,
    disk::{Ballast, DiskWatch},
    folders,
    hours::Hours,
    identity::Identities,
    jobs::{self, Workers},
    keys::CookieKeys,
    load::LoadMeter,
    media::{OpenError, Recordings},
    outside::Outside,
    page_files::PageFiles,
    page_tokens::PageTokens,
    registry::{NodeIdentity, Registry},
    report_limits::ReportLimits,
    resumable::Resumable,
    secret::{KEY_FILE, KEY_FILE_BEFORE},
    sessions::Sessions,
    shares::Shares,
    speech::Engines,
    state::{AppState, Services, Settings},
    store::{Connections, DATABASE_FILE, DatabaseOpenError, QueueLimits, Share, Store},
    stream::{Hub, StreamLimits},
    telemetry,
    uploads::UploadPermits,
};
use axum::http::uri::Authority;
use cookie::Key;
use leptos::config::LeptosOptions;
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, time};

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}", folders::unusable(data, path, error))]
    Folder { data: PathBuf, path: PathBuf, error: std::io::Error },
    #[error(
        "the data folder '{0}' is in use by another Hark. Stop that one, or choose another folder with HARK_DATA_DIR"
    )]
    InUse(String),
    #[error(
        "HARK_SECRET must be at least 128 hexadecimal digits, or several such with commas between; \
         make one with: openssl rand -hex 64"
    )]
    Secret,
    #[error("the database can't be used: {0}")]
    Store(#[from] sqlx::Error),
    #[error("the database can't be opened: {error}. See {setting}")]
    Database { error: DatabaseOpenError, setting: &'static str },
    #[error(transparent)]
    Cluster(#[from] JoinError),
    #[error("recordings can't be kept: {0}")]
    Recordings(#[from] OpenError),
    #[error("REDIS_URL isn't an address like redis://host:6379/ ({0})")]
    Redis(#[from] redis::RedisError),
    #[error(
        "'hark worker' shares its sessions with other nodes, so it needs DATABASE_URL; \
         an SQLite database can have only one node, 'hark serve'"
    )]
    WorkerAlone,
    #[error("{0}")]
    Admin(String),
    #[error("{0}")]
    Alerts(String),
    #[error("{addr} can't be listened on: {error}. Choose another address with HARK_MONITOR_ADDR")]
    Monitor { addr: std::net::SocketAddr, error: std::io::Error },
}

/// How often a node tries to lock its data folder, and the pause in between.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Opens a node. `serves_streams`: whether it serves pages and streams.
pub(super) async fn open(
    config: ServeConfig,
    leptos: LeptosOptions,
    files: PageFiles,
    serves_streams: bool,
) -> Result<Node, StartError> {
    config.admin.check(!config.network.trusted_proxies.is_empty()).map_err(StartError::Admin)?;
    // First, because handles of metrics made before would count nothing.
    let metrics = if config.monitoring { telemetry::metrics() } else { telemetry::no_metrics() };
    let folder = config.data.data_dir.clone();
    let unusable = |path: &Path, error| StartError::Folder { data: folder.clone(), path: path.to_owned(), error };
    let folder_error = |error| unusable(&folder, error);
    folders::make_folder(&folder).map_err(folder_error)?;
    if folders::is_open_to_others(&folder) {
        let shown = folder.display();
        tracing::warn!(
            "other users of this machine may enter the data folder {shown}, which holds recordings and keys; \
                 close it with: chmod 700 {shown}"
        );
    }
    let lock_file = folder.join("hark.lock");
    let lock = File::create(&lock_file).map_err(|error| unusable(&lock_file, error))?;
    if !take(&lock).await {
        return Err(StartError::InUse(folder.display().to_string()));
    }
    if backup::complete_restore(&folder).map_err(folder_error)? {
        tracing::info!("a restore that had been interrupted was completed");
    }
    warn_of_hosts(&config);
    let alerts = alerts::Setup::new(&config.alerts, config.alert_thresholds.clone()).map_err(StartError::Alerts)?;
    if alerts.is_some() && !config.monitoring {
        return Err(StartError::Alerts(
            "alerts need figures: leave HARK_MONITORING on, or the settings of alerts out".to_owned(),
        ));
    }
    let monitor = match config.monitor_addr {
        Some(addr) => {
            let bound = TcpListener::bind(addr).await;
            Some(bound.map_err(|error| StartError::Monitor { addr, error })?)
        }
        None => None,
    };
    let database = folder.join(DATABASE_FILE);
    let ballast = Ballast::new(config.data.database_url.is_none().then(|| database.clone()));
    let store = open_store(&config, &database, &ballast).await?;
    let clock = Arc::new(ClockWatch::default());
    clock.check(&store).await;
    let cookie_keys = cookie_keys(&config.data, &store).await?;
    let media = Recordings::open(&folder, config.data.recordings_url.as_ref(), config.limits.min_free_bytes).await?;
    let cluster = Arc::new(Cluster::join(&store, &cookie_keys, &media, &config.data).await?);
    // For `hark secret rotate`, which replaces no key that hasn't signed yet. A full disk keeps no node from starting.
    if let Some(signing) = cookie_keys.fingerprints().first()
        && let Err(error) = store.note_signing_key(signing).await
    {
        tracing::warn!(%error, "that the key signs could not be noted, so 'hark secret rotate' will take it for new");
    }
    let capacity = Capacity::of_system(&config, serves_streams);
    let limits = if serves_streams { capacity.streams(&config) } else { StreamLimits::default() };
    let hub = Arc::new(if config.monitoring { Hub::new(limits) } else { Hub::unmeasured(limits) });
    let watchers = Arc::clone(&hub) as Arc<dyn Watchers>;
    let inbox = Arc::new(Inbox::default());
    let hours = Hours::new(config.figures.clone());
    let (bus, background) = match &config.data.redis_url {
        Some(url) => {
            telemetry::begin_redis_metrics();
            let signer = Signer::new(cookie_keys.masters());
            Bus::over_redis(url, signer, watchers, &store, Arc::clone(&inbox), serves_streams, hours.clone())?
        }
        None => Bus::alone(watchers, &store, hours.clone()),
    };
    if store.is_shared() && config.data.redis_url.is_none() {
        tracing::warn!("without REDIS_URL, changes of other nodes on this database are seen up to a second late");
    }
    let decoders = Decoders::new(&config.decode, config.engines.engine_program.as_deref());
    tokio::spawn(check_decoders(decoders.clone()));
    let outside = Arc::new(Outside::new(store.clone(), bus.clone(), Arc::clone(&hub), &config.outside).await?);
    let cookie_keys = Arc::new(cookie_keys);
    let engines = Engines::from_config(&config.engines, &folder, config.jobs.workers);
    let engines = if config.engines.model_fetch { engines.with_sources(config.models.clone()) } else { engines };
    let may_change = config.http.model_changes_by_visitors;
    let engines = if may_change { engines.with_downloads(config.models.clone()) } else { engines };
    let max_duration = config.limits.max_duration;
    let copies =
        Copies::new(store.clone(), media.clone(), decoders.clone(), &config.decode, &config.kept, max_duration);
    let sessions = Arc::new(Sessions {
        store: store.clone(),
        media,
        bus: bus.clone(),
        engines,
        decoders,
        copies,
        cluster,
        registry: Registry::new(NodeIdentity {
            name: config.name(),
            serves: serves_streams,
            workers: config.jobs.workers,
            cookie_keys: cookie_keys.fingerprints(),
        }),
        hours: hours.clone(),
        disk: DiskWatch::new(config.limits.min_free_bytes, ballast),
        outside: Arc::clone(&outside),
        shares: Shares::new(&config.shares, cookie_keys.masters().next().unwrap_or_default()),
        queue: queue_limits(&config),
        limits: config.limits,
        kept: config.kept,
    });
    let proxies = config.network.trusted_proxies.clone();
    let admins = Admins::new(store.clone(), Arc::clone(&cookie_keys), config.admin, proxies);
    let workers = Workers::new(Arc::clone(&sessions), config.jobs);
    let uploads = Arc::new(UploadPermits::new(&config.uploads, capacity.uploads));
    let resumable =
        Resumable::new(Arc::clone(&sessions), Arc::clone(&uploads), config.uploads.clone(), config.resumable);
    let dashboards = Dashboards::new(Arc::clone(&sessions), hours.clone(), Arc::clone(&hub), metrics.clone());
    let state = AppState::new(Services {
        load: Arc::new(LoadMeter::new(Arc::clone(&hub), Arc::clone(&uploads), limits.per_node)),
        hours,
        sessions,
        outside,
        identities: Arc::new(Identities::new(store.clone(), bus, Arc::clone(&cookie_keys))),
        admins: Arc::new(admins),
        dashboards: Arc::new(dashboards),
        hub,
        source: Arc::new(store),
        arms: Arms::new(&config.rollout),
        page_tokens: Arc::new(PageTokens::new(cookie_keys.masters())),
        cookie_keys,
        uploads,
        resumable: Arc::new(resumable),
        reports: Arc::new(ReportLimits::new(config.rollout.max_reports_per_address)),
        clock,
        session_gauges: Arc::default(),
        metrics,
        settings: Settings {
            http: config.http,
            network: config.network,
            streams: config.streams,
            uploads: config.uploads,
            health: config.health,
            exports: config.exports,
            worker_token: config.outside.worker_token,
            separate_monitor: monitor.is_some(),
            monitoring: config.monitoring,
            leptos,
            files,
        },
    });
    jobs::recover(&workers).await?;
    let connections = capacity.connections;
    let public_url = config.alerts.public_url;
    Ok(Node { state, workers, bus: background, inbox, connections, alerts, public_url, monitor, _lock: lock })
}

/// Warns if the address that people use is one of those that are refused.
fn warn_of_hosts(config: &ServeConfig) {
    let hosts = &config.http.hosts;
    let Some(url) = config.alerts.public_url.as_ref().filter(|_| !hosts.is_empty()) else { return };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let named = format!("{}{port}", url.host_str().unwrap_or_default());
    if !named.parse::<Authority>().is_ok_and(|named| hosts.iter().any(|host| host.matches(&named))) {
        tracing::warn!(
            "HARK_HOSTS doesn't have '{named}', the host of HARK_PUBLIC_URL, so requests for it are refused; add it"
        );
    }
}

/// Locks a file, if no other node has it. A process that the node before was just starting holds that node's lock until it has
/// become another program, so this tries for a second.
async fn take(lock: &File) -> bool {
    for _ in 0..LOCK_TRIES {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        time::sleep(LOCK_PAUSE).await;
    }
    false
}

/// Opens the shared database, or this node's own file.
async fn open_store(config: &ServeConfig, file: &Path, ballast: &Ballast) -> Result<Store, StartError> {
    let (opened, setting) = match &config.data.database_url {
        Some(url) => (Store::connect_with(url, connections(config)).await, "DATABASE_URL"),
        None => {
            let opened = match Store::open(file).await {
                // Opening needs room too, and nobody could delete sessions without it.
                Err(error) if ballast.release_after(&error) => Store::open(file).await,
                opened => opened,
            };
            (opened, "HARK_DATA_DIR")
        }
    };
    opened.map_err(|error| StartError::Database { error, setting })
}

fn connections(config: &ServeConfig) -> Connections {
    let config = &config.database;
    Connections {
        max: config.database_connections,
        wait: Duration::from_secs(config.database_wait_secs.into()),
        silence: Duration::from_millis(config.database_silence_ms.into()),
    }
}

/// Logs what this machine lacks to confine decoders.
async fn check_decoders(decoders: Decoders) {
    let missing = decoders.check().await;
    if !missing.is_empty() {
        tracing::warn!("decoders run with fewer restrictions than Hark would set: {}", missing.join("; "));
    }
}

/// The limits of the queue, and of the recordings that an owner may keep.
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

/// The keys of cookies: from the settings, or one that was generated and is kept in the data folder, or in a shared
/// database.
async fn cookie_keys(data: &DataConfig, store: &Store) -> Result<CookieKeys, StartError> {
    if let Some(secrets) = &data.secret {
        return CookieKeys::parse(secrets).ok_or(StartError::Secret);
    }
    let path = data.data_dir.join(KEY_FILE);
    if store.is_shared() {
        // A node that ran alone before brings its key along, so that it stays valid.
        let own = std::fs::read(&path).ok().filter(|bytes| bytes.len() >= 64);
        let candidate = own.unwrap_or_else(|| Key::generate().master().to_vec());
        store.cookie_key(&candidate).await?;
        return CookieKeys::several(&store.generated_keys().await?).ok_or(StartError::Secret);
    }
    let folder_error = |error| StartError::Folder { data: data.data_dir.clone(), path: path.clone(), error };
    let key = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Key::generate().master().to_vec();
            folders::write_private(&path, &key).map_err(folder_error)?;
            key
        }
        Err(error) => return Err(folder_error(error)),
    };
    let before = std::fs::read(data.data_dir.join(KEY_FILE_BEFORE)).ok().filter(|bytes| bytes.len() >= 64);
    CookieKeys::several(&[key].into_iter().chain(before).collect::<Vec<_>>()).ok_or_else(|| {
        folder_error(std::io::Error::other("secret.key is shorter than 64 bytes; remove it to have a new one made"))
    })
}
