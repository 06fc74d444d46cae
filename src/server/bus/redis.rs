//! The bus between nodes, over Redis or Valkey. One connection publishes and one subscribes, however many sessions are
//! watched. Called by `bus`.

mod link;
mod listener;
mod publisher;

use super::{Inbox, Signer, local::Local};
use crate::server::store::Store;
use link::with_timeout;
use listener::Listener;
pub(super) use publisher::Publisher;
use publisher::{QUEUE_CAPACITY, QueuedMessage, publish};
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

/// The background work of both connections.
#[derive(Debug)]
pub(super) struct Background {
    client: Client,
    signer: Signer,
    queue: mpsc::Receiver<QueuedMessage>,
    queued_bytes: Arc<AtomicUsize>,
    publisher_connected: Arc<AtomicBool>,
    listener: Listener,
}

/// Prepares the connections to the Redis at `url`.
///
/// # Errors
/// If the address isn't valid.
pub(super) fn connect(
    url: &str,
    signer: Signer,
    local: &Local,
    store: &Store,
    inbox: Arc<Inbox>,
    serves_streams: bool,
) -> Result<(Publisher, Background), RedisError> {
    let client = Client::open(url)?;
    let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
    let (connected, listener_connected) = watch::channel(false);
    let publisher_connected = Arc::new(AtomicBool::new(false));
    let (subscribe, to_subscribe) = mpsc::unbounded_channel();
    if serves_streams {
        local.watchers().subscribe_remote(subscribe);
    }
    let (loaded_sender, loaded_receiver) = mpsc::unbounded_channel();
    let listener = Listener {
        local: local.clone(),
        signer: signer.clone(),
        store: store.clone(),
        inbox,
        to_subscribe,
        loaded_sender,
        loaded_receiver,
        connected,
        sessions: HashMap::new(),
        buffered_bytes: 0,
        serves_streams,
    };
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let publisher = Publisher {
        queue: sender,
        queued_bytes: Arc::clone(&queued_bytes),
        publisher_connected: Arc::clone(&publisher_connected),
        listener_connected,
    };
    Ok((publisher, Background { client, signer, queue, queued_bytes, publisher_connected, listener }))
}

/// Whether the Redis at `url` answers.
///
/// # Errors
/// If it doesn't within 3 seconds, or the address isn't valid.
pub(super) async fn probe(url: &str) -> Result<(), RedisError> {
    let client = Client::open(url)?;
    with_timeout(async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async(&mut connection).await
    })
    .await
}

impl Background {
    /// Whether changes of other nodes are received.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.listener.connected.subscribe()
    }

    /// Publishes and listens until `stop`; then publishes what is still queued, because other nodes must learn how the
    /// sessions of this node ended.
    pub(super) async fn run(self, stop: &CancellationToken) {
        let Self { client, signer, queue, queued_bytes, publisher_connected, mut listener } = self;
        let publish = publish(&client, &signer, queue, &queued_bytes, &publisher_connected, stop);
        let listen = stop.run_until_cancelled(listener.run(&client));
        tokio::join!(publish, listen);
    }
}
