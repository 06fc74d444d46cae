//! Publishes this node's changes: what is given to the [`Publisher`] goes to Redis over one connection, in batches.

use super::{
    super::{
        Signer,
        wire::{self, NodeNotice},
    },
    link::{ANSWER, Pause, answer},
};
use crate::server::{
    event::{Change, Event},
    owner::Owner,
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

/// Changes that may wait to be published, and the bytes of their texts. More come only while Redis doesn't answer, and then
/// the store tells them.
pub(super) const WAITING: usize = 8192;
const WAITING_BYTES: usize = 32 * 1024 * 1024;
/// Changes published in one go.
const BATCH: usize = 512;

/// Gives changes to Redis. Never waits: what can't be taken in is dropped and counted.
#[derive(Clone, Debug)]
pub(in crate::server::bus) struct Publisher {
    pub(super) queue: mpsc::Sender<Outgoing>,
    pub(super) waiting_bytes: Arc<AtomicUsize>,
    pub(super) publishes: Arc<AtomicBool>,
    pub(super) listens: watch::Receiver<bool>,
}

#[derive(Debug)]
pub(super) enum Outgoing {
    Event(Box<Event>, bool),
    Notice(NodeNotice),
}

impl Outgoing {
    /// Bytes of its texts, about: what else it takes is bounded by the number of messages.
    fn size(&self) -> usize {
        let Self::Event(event, _) = self else { return 0 };
        let status = event.new_status();
        let segment = match &event.change {
            Change::Segment(segment, _) => segment.text.len(),
            Change::Status(_) | Change::Deleted(_) => 0,
        };
        let error = status.and_then(|status| status.error.as_ref());
        segment + status.map_or(0, |status| status.message.len()) + error.map_or(0, |error| error.message.len())
    }
}

impl Publisher {
    /// Publishes a change. `news`: whether nodes that don't listen for the session must hear of it too.
    pub(in crate::server::bus) fn publish(&self, event: Event, news: bool) {
        self.send(Outgoing::Event(Box::new(event), news));
    }

    pub(in crate::server::bus) fn log_out(&self, owner: Owner) {
        self.send(Outgoing::Notice(NodeNotice::LoggedOut { owner: owner.as_str().to_owned() }));
    }

    pub(in crate::server::bus) fn is_connected(&self) -> bool {
        self.publishes.load(Relaxed) && *self.listens.borrow()
    }

    fn send(&self, out: Outgoing) {
        let size = out.size();
        let fits = self.waiting_bytes.fetch_add(size, Relaxed) + size <= WAITING_BYTES;
        if !fits || self.queue.try_send(out).is_err() {
            self.waiting_bytes.fetch_sub(size, Relaxed);
            metrics::counter!("hark_bus_dropped_total").increment(1);
        }
    }
}

/// Publishes what comes over `queue`, until `stop` and then what is left.
pub(super) async fn publish(
    client: &Client,
    signer: &Signer,
    mut queue: mpsc::Receiver<Outgoing>,
    waiting_bytes: &AtomicUsize,
    publishes: &AtomicBool,
    stop: &CancellationToken,
) {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    let mut connection: Option<MultiplexedConnection> = None;
    let mut pause = Pause::default();
    // Whether something was dropped that others must look for in the store.
    let mut lost = false;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if connection.is_none() {
            match answer(client.get_multiplexed_async_connection_with_config(&config)).await {
                Ok(open) => {
                    tracing::info!("changes are published to Redis");
                    publishes.store(true, Relaxed);
                    pause = Pause::default();
                    connection = Some(open);
                    if std::mem::take(&mut lost) {
                        batch.push(Outgoing::Notice(NodeNotice::Compare));
                    }
                }
                Err(error) => {
                    if stop.is_cancelled() {
                        return;
                    }
                    pause.tell("Redis can't be reached, so changes don't get to other nodes at once", &error);
                    time::sleep(pause.next()).await;
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
                    waiting_bytes.fetch_sub(batch.iter().map(Outgoing::size).sum(), Relaxed);
                }
                // Told after everything that was published before the node went down.
                () = stop.cancelled() => return,
            }
        }
        let mut pipe = redis::pipe();
        for out in batch.drain(..) {
            let messages = match out {
                Outgoing::Event(event, news) => wire::messages(&event, news, signer),
                Outgoing::Notice(news) => vec![wire::notice(&news, signer)],
            };
            for (channel, payload) in messages {
                pipe.cmd("PUBLISH").arg(channel).arg(payload).ignore();
            }
        }
        if let Some(open) = &mut connection
            && let Err(error) = pipe.query_async::<()>(open).await
        {
            tracing::warn!(%error, "Redis took no changes; connecting again");
            metrics::counter!("hark_bus_dropped_total").increment(pipe.cmd_iter().count() as u64);
            publishes.store(false, Relaxed);
            connection = None;
            lost = true;
        }
    }
}
