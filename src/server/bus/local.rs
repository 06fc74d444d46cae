//! The bus within one process: a call to the hub, and a broadcast to the workers.

use super::{Change, Event};
use crate::model::{SessionId, State};
use crate::server::stream::Hub;
use std::sync::Arc;
use tokio::sync::broadcast;

/// What a worker must react to at once. Missing one is no harm: the store tells the same at the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A session waits in the queue.
    Queued,
    /// A session was cancelled or deleted: stop working on it.
    Stop(SessionId),
}

/// Publishes changes to the streams and workers of this process.
#[derive(Clone, Debug)]
pub struct Bus {
    hub: Arc<Hub>,
    signals: broadcast::Sender<Signal>,
}

impl Bus {
    /// A bus that fans out through `hub`.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        // Deep enough for a burst of cancellations; a worker that lags looks into the store anyway.
        let (signals, _) = broadcast::channel(256);
        Self { hub, signals }
    }

    /// Announces a change that has been stored.
    pub fn publish(&self, event: &Event) {
        let signal = match &event.change {
            Change::Deleted(id) => Some(Signal::Stop(*id)),
            Change::Status(status) if status.state == State::Cancelled => Some(Signal::Stop(status.session_id)),
            Change::Status(status) if status.state == State::Queued => Some(Signal::Queued),
            Change::Status(_) | Change::Segment(..) => None,
        };
        self.hub.publish(event);
        if let Some(signal) = signal {
            let _ = self.signals.send(signal); // fails when no worker listens, which is fine
        }
    }

    /// Announces several changes, in order.
    pub fn publish_all<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            self.publish(event);
        }
    }

    /// What a worker must hear from now on.
    #[must_use]
    pub fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }
}
