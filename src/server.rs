//! The server: assembles a node and runs it until told to stop.
//! `main` and the tests call [`Node::start`] and [`Node::serve`].

pub mod audio;
pub mod bus;
pub mod config;
pub mod doctor;
pub mod error;
pub mod http;
pub mod jobs;
pub mod media;
pub mod owner;
pub mod pages;
pub mod router;
pub mod sessions;
pub mod speech;
pub mod state;
pub mod store;
pub mod stream;
pub mod telemetry;

use crate::model::Timestamp;
use axum_extra::extract::cookie::Key;
use bus::Bus;
use config::{DataConfig, ServeConfig};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use leptos::config::LeptosOptions;
use media::Media;
use rustix::fs::{FlockOperation, flock};
use speech::Engines;
use state::AppState;
use std::{fs::File, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};
use store::Store;
use stream::{Bye, Hub};
use tokio::{net::TcpListener, time};
use tokio_util::sync::CancellationToken;

/// Streams send a heartbeat this often, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long open requests have to finish once the node is told to stop.
const GRACE: Duration = Duration::from_secs(8);
/// hyper's read buffer for a connection: a request's head is small, and thousands of streams are open at once.
const READ_BUFFER: usize = 16 * 1024;

/// A node that has its data folder and is ready to serve.
pub struct Node {
    pub state: AppState,
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
    #[error("HARK_SECRET must be at least 128 hexadecimal digits; make one with: openssl rand -hex 64")]
    Secret,
    #[error("the database can't be opened: {0}")]
    Store(#[from] sqlx::Error),
    #[error("the recordings can't be opened: {0}")]
    Media(#[from] object_store::Error),
}

impl Node {
    /// Opens the data folder and takes back what an earlier run left unfinished.
    ///
    /// # Errors
    /// If the folder, the key or the database can't be used.
    pub async fn start(config: ServeConfig, leptos: LeptosOptions) -> Result<Self, StartError> {
        let folder = config.data.data_dir.clone();
        let broken = |error| StartError::Folder { path: folder.display().to_string(), error };
        std::fs::create_dir_all(&folder).map_err(broken)?;
        let lock = File::create(folder.join("hark.lock")).map_err(broken)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StartError::InUse(folder.display().to_string()))?;
        let cookie_key = cookie_key(&config.data)?;
        let store = Store::open(&folder.join("hark.sqlite")).await?;
        let media = Media::open(&folder)?;
        let hub = Arc::new(Hub::default());
        let engines = Arc::new(Engines::from_config(&config.engines, &folder));
        let state = AppState {
            bus: Bus::new(Arc::clone(&hub)),
            hub,
            store,
            media,
            engines,
            limits: config.limits,
            jobs: config.jobs,
            cookie_key,
            leptos,
            metrics: telemetry::metrics(),
        };
        jobs::recover(&state).await?;
        Ok(Self { state, _lock: lock })
    }

    /// Serves `listener` and works on sessions until `stop`; then says goodbye to the streams, hands running sessions
    /// back to the queue, and returns.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let workers = jobs::run(self.state.clone(), stop.clone());
        let heartbeat = {
            let hub = Arc::clone(&self.state.hub);
            let stop = stop.clone();
            async move {
                let mut ticks = time::interval(HEARTBEAT);
                while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                    hub.heartbeat(Timestamp::now());
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
        tokio::join!(accept(&self.state, listener, &stop), workers, heartbeat, upkeep);
        self.state.store.close().await;
    }
}

async fn accept(state: &AppState, listener: TcpListener, stop: &CancellationToken) {
    let router = router::router(state.clone());
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(READ_BUFFER);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors: waiting gives others time to close theirs.
                time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    state.hub.close(Bye::Shutdown);
    if time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!(grace_secs = GRACE.as_secs(), "some requests did not end in time and were cut off");
    }
}

/// The key that signs cookies: given, or made once and kept in the data folder.
fn cookie_key(data: &DataConfig) -> Result<Key, StartError> {
    if let Some(secret) = &data.secret {
        let bytes = unhex(secret.trim()).filter(|b| b.len() >= 64).ok_or(StartError::Secret)?;
        return Ok(Key::from(&bytes));
    }
    let path = data.data_dir.join("secret.key");
    let broken = |error| StartError::Folder { path: path.display().to_string(), error };
    match std::fs::read(&path) {
        Ok(bytes) if bytes.len() >= 64 => Ok(Key::from(&bytes)),
        Ok(_) => {
            Err(broken(std::io::Error::other("secret.key is shorter than 64 bytes; remove it to have a new one made")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = Key::generate();
            write_private(&path, key.master()).map_err(broken)?;
            Ok(key)
        }
        Err(error) => Err(broken(error)),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    digits.filter(|d| d.len() % 2 == 0).map(|d| d.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
