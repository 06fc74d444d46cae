//! Publishes this node's changes: [`Publisher`] queues them, and they go to Redis over one connection, in batches.

use super::{
    super::{
        Signer,
        wire::{self, NodeNotice},
    },
    link::{Backoff, RESPONSE_TIMEOUT, count_error, with_timeout},
};
use crate::server::{
    event::{Change, Event},
    owner::Owner,
    sightings::Sighting,
};
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;

/// How many changes may be queued, and how many bytes their texts may have. More come only while Redis doesn't answer,
/// and then other nodes read them from the store.
pub(super) const QUEUE_CAPACITY: usize = 8192;
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;
/// The most changes published at once.
const BATCH: usize = 512;

/// Queues changes for Redis. It never waits: what doesn't fit is dropped and counted.
#[derive(Clone, Debug)]
pub(in crate::server::bus) struct Publisher {
    pub(super) queue: mpsc::Sender<QueuedMessage>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) publisher_connected: Arc<AtomicBool>,
    pub(super) listener_connected: watch::Receiver<bool>,
}

#[derive(Debug)]
pub(super) enum QueuedMessage {
    Event(Box<Event>, bool),
    Notice(NodeNotice),
}

impl QueuedMessage {
    /// The bytes of its texts, roughly. The rest of its memory is limited by [`QUEUE_CAPACITY`].
    fn size(&self) -> usize {
        let Self::Event(event, _) = self else { return 0 };
        let status = event.new_status();
        let segment = match &event.change {
            Change::Segment(segment, _) => segment.text.len(),
            Change::Renamed(_, title) => title.as_str().len(),
            Change::Status(_) | Change::Deleted(_) => 0,
        };
        let error = status.and_then(|status| status.error.as_ref());
        segment + status.map_or(0, |status| status.message.len()) + error.map_or(0, |error| error.message.len())
    }
}

impl Publisher {
    /// Publishes a change. `notify_all`: whether nodes without a subscription to the session must learn of it too.
    pub(in crate::server::bus) fn publish(&self, event: Event, notify_all: bool) {
        self.send(QueuedMessage::Event(Box::new(event), notify_all));
    }

    pub(in crate::server::bus) fn log_out(&self, owner: Owner) {
        self.send(QueuedMessage::Notice(NodeNotice::LoggedOut { owner: owner.as_str().to_owned() }));
    }

    pub(in crate::server::bus) fn tell_of_page(&self, sighting: Sighting) {
        self.send(QueuedMessage::Notice(NodeNotice::Page(sighting)));
    }

    pub(in crate::server::bus) fn is_connected(&self) -> bool {
        self.publisher_connected.load(Relaxed) && *self.listener_connected.borrow()
    }

    fn send(&self, out: QueuedMessage) {
        let size = out.size();
        let fits = self.queued_bytes.fetch_add(size, Relaxed) + size <= MAX_QUEUED_BYTES;
        if !fits || self.queue.try_send(out).is_err() {
            self.queued_bytes.fetch_sub(size, Relaxed);
            metrics::counter!("hark_bus_dropped_total").increment(1);
        }
    }
}

/// Publishes what is queued, until `stop`, and then the rest of the queue.
pub(super) async fn publish(
    client: &Client,
    signer: &Signer,
    mut queue: mpsc::Receiver<QueuedMessage>,
    queued_bytes: &AtomicUsize,
    publisher_connected: &AtomicBool,
    stop: &CancellationToken,
) {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let mut connection: Option<MultiplexedConnection> = None;
    let mut backoff = Backoff::default();
    // Whether a batch was lost, so that other nodes must compare with the store.
    let mut lost = false;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if connection.is_none() {
            match with_timeout(client.get_multiplexed_async_connection_with_config(&config)).await {
                Ok(open) => {
                    tracing::info!("connected to Redis: publishing changes");
                    publisher_connected.store(true, Relaxed);
                    backoff = Backoff::default();
                    connection = Some(open);
                    if std::mem::take(&mut lost) {
                        batch.push(QueuedMessage::Notice(NodeNotice::Compare));
                    }
                }
                Err(error) => {
                    if stop.is_cancelled() {
                        return;
                    }
                    count_error();
                    backoff.warn_once("Redis can't be reached; other nodes see changes up to a second late", &error);
                    time::sleep(backoff.next()).await;
                    continue;
                }
            }
        }
        if batch.is_empty() {
            tokio::select! {
                biased;
                n = queue.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        return;
                    }
                    queued_bytes.fetch_sub(batch.iter().map(QueuedMessage::size).sum(), Relaxed);
                }
                // `biased` checks this last, so the queue is empty by then.
                () = stop.cancelled() => return,
            }
        }
        let mut pipe = redis::pipe();
        for out in batch.drain(..) {
            let messages = match out {
                QueuedMessage::Event(event, notify_all) => wire::messages(&event, notify_all, signer),
                QueuedMessage::Notice(notice) => vec![wire::notice(&notice, signer)],
            };
            for (channel, payload) in messages {
                pipe.cmd("PUBLISH").arg(channel).arg(payload).ignore();
            }
        }
        if let Some(open) = &mut connection
            && let Err(error) = pipe.query_async::<()>(open).await
        {
            count_error();
            tracing::warn!(%error, "changes could not be published to Redis and were dropped; connecting again");
            metrics::counter!("hark_bus_dropped_total").increment(pipe.cmd_iter().count() as u64);
            publisher_connected.store(false, Relaxed);
            connection = None;
            lost = true;
        }
    }
}
