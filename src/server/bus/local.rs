//! The bus within one process: a call to the watchers, and a broadcast to the workers.

use super::Watchers;
use crate::{
    model::{SessionId, State},
    server::{
        event::{Change, Event},
        owner::Owner,
    },
};
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many signals are buffered: enough for a burst of cancellations. A worker that lags reads the store anyway.
const SIGNAL_CAPACITY: usize = 256;

/// A change that workers react to at once. Missing one does no harm, because a worker finds the same in the store at
/// its next poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A session waits in the queue.
    Queued,
    /// A session was cancelled or deleted: stop working on it.
    Stop(SessionId),
}

impl Signal {
    /// The signal for a change, if workers need one.
    #[must_use]
    pub fn of(change: &Change) -> Option<Self> {
        match change {
            Change::Deleted(id) => Some(Self::Stop(*id)),
            Change::Status(status) if status.state == State::Cancelled => Some(Self::Stop(status.session_id)),
            Change::Status(status) if status.state == State::Queued => Some(Self::Queued),
            Change::Status(_) | Change::Segment(..) | Change::Renamed(..) => None,
        }
    }
}

/// The streams and workers of this process.
#[derive(Clone, Debug)]
pub(super) struct Local {
    watchers: Arc<dyn Watchers>,
    signals: broadcast::Sender<Signal>,
}

impl Local {
    pub(super) fn new(watchers: Arc<dyn Watchers>) -> Self {
        Self { watchers, signals: broadcast::channel(SIGNAL_CAPACITY).0 }
    }

    pub(super) fn watchers(&self) -> &dyn Watchers {
        &*self.watchers
    }

    pub(super) fn publish(&self, event: &Event) {
        self.tell_watchers(event);
        if let Some(signal) = Signal::of(&event.change) {
            self.signal(signal);
        }
    }

    /// Returns whether it was new to any of them.
    pub(super) fn tell_watchers(&self, event: &Event) -> bool {
        self.watchers.publish(event)
    }

    pub(super) fn signal(&self, signal: Signal) {
        let _ = self.signals.send(signal); // fails when no worker is subscribed, which is fine
    }

    pub(super) fn log_out(&self, owner: &Owner) {
        self.watchers.log_out(owner);
    }

    pub(super) fn signals(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }
}
