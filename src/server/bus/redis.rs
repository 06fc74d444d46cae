//! The bus between nodes, on Redis or Valkey. One connection publishes and one listens, however many sessions are
//! watched. Called by `bus`.

mod link;
mod listener;
mod publisher;

use super::{Inbox, Signer, local::Local};
use crate::server::store::Store;
use link::answer;
use listener::Listener;
pub(super) use publisher::Publisher;
use publisher::{Outgoing, WAITING, publish};
use redis::{Client, RedisError};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Both connections, to be kept going.
#[derive(Debug)]
pub(super) struct Background {
    client: Client,
    signer: Signer,
    queue: mpsc::Receiver<Outgoing>,
    waiting_bytes: Arc<AtomicUsize>,
    publishes: Arc<AtomicBool>,
    listener: Listener,
}

/// Prepares the connections to the Redis at `url`.
///
/// # Errors
/// If the address can't be one.
pub(super) fn connect(
    url: &str,
    signer: Signer,
    local: &Local,
    store: &Store,
    foreign: Arc<Inbox>,
    watched: bool,
) -> Result<(Publisher, Background), RedisError> {
    let client = Client::open(url)?;
    let (send, queue) = mpsc::channel(WAITING);
    let (connected, listens) = watch::channel(false);
    let publishes = Arc::new(AtomicBool::new(false));
    let (subscribe, to_subscribe) = mpsc::unbounded_channel();
    if watched {
        local.watchers().subscribe_remote(subscribe);
    }
    let (reads, rows) = mpsc::unbounded_channel();
    let listener = Listener {
        local: local.clone(),
        signer: signer.clone(),
        store: store.clone(),
        foreign,
        to_subscribe,
        reads,
        rows,
        connected,
        sessions: HashMap::new(),
        early_bytes: 0,
        watched,
    };
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let publisher = Publisher {
        queue: send,
        waiting_bytes: Arc::clone(&waiting_bytes),
        publishes: Arc::clone(&publishes),
        listens,
    };
    Ok((publisher, Background { client, signer, queue, waiting_bytes, publishes, listener }))
}

/// Whether the Redis at `url` answers.
///
/// # Errors
/// If it doesn't within 3 seconds, or the address can't be one.
pub(super) async fn probe(url: &str) -> Result<(), RedisError> {
    let client = Client::open(url)?;
    answer(async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async(&mut connection).await
    })
    .await
}

impl Background {
    /// Whether changes of other nodes are heard.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.listener.connected.subscribe()
    }

    /// Publishes and listens until `stop`; then publishes what is left, for the last words of a node matter most.
    pub(super) async fn run(self, stop: &CancellationToken) {
        let Self { client, signer, queue, waiting_bytes, publishes, mut listener } = self;
        let publish = publish(&client, &signer, queue, &waiting_bytes, &publishes, stop);
        let listen = stop.run_until_cancelled(listener.run(&client));
        tokio::join!(publish, listen);
    }
}
