//! Carries every change from where it was stored to everyone who watches. `sessions`, `jobs` and `outside` publish; the
//! hub fans out to streams, and workers listen for what concerns them. With `REDIS_URL` it reaches all nodes.

mod inbox;
mod local;
mod reconcile;
mod redis;
mod signature;
mod watchers;
mod wire;

use super::{event::Event, owner::Owner, store::Store, telemetry};
use crate::model::{SessionId, Status};
pub use inbox::Inbox;
use local::Local;
pub use local::Signal;
pub use signature::Signer;
use std::{future::Future, sync::Arc};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
pub use watchers::Watchers;
pub use wire::{Foreign, Rejection};

/// Publishes changes to the streams and workers of this node, and to the other nodes if there are any.
#[derive(Clone, Debug)]
pub struct Bus {
    local: Local,
    remote: Option<redis::Publisher>,
}

/// What a bus does in the background, to be given to [`Background::run`].
#[derive(Debug)]
pub struct Background {
    watchers: Arc<dyn Watchers>,
    store: Store,
    remote: Option<redis::Background>,
}

impl Bus {
    /// A bus within this process.
    #[must_use]
    pub fn alone(watchers: Arc<dyn Watchers>, store: &Store) -> (Self, Background) {
        let background = Background { watchers: Arc::clone(&watchers), store: store.clone(), remote: None };
        (Self { local: Local::new(watchers), remote: None }, background)
    }

    /// A bus over the Redis at `url`, which need not be there yet. What nodes say there is signed by `signer`. What workers
    /// in other languages publish for sessions of outside workers goes to `foreign`. `watched` tells whether this node has
    /// streams at all.
    ///
    /// # Errors
    /// If the address can't be one.
    pub fn over_redis(
        url: &str,
        signer: Signer,
        watchers: Arc<dyn Watchers>,
        store: &Store,
        foreign: Arc<Inbox>,
        watched: bool,
    ) -> Result<(Self, Background), ::redis::RedisError> {
        let local = Local::new(Arc::clone(&watchers));
        let (publisher, remote) = redis::connect(url, signer, &local, store, foreign, watched)?;
        let background = Background { watchers, store: store.clone(), remote: Some(remote) };
        Ok((Self { local, remote: Some(publisher) }, background))
    }

    /// Whether the Redis at `url` answers.
    ///
    /// # Errors
    /// If it doesn't within 3 seconds, or the address can't be one.
    pub async fn probe(url: &str) -> Result<(), ::redis::RedisError> {
        redis::probe(url).await
    }

    /// Announces a change that this node has stored, and counts it if a session has ended with it.
    pub fn publish(&self, event: &Event) {
        if let Some(status) = event.new_status().filter(|status| status.state.is_terminal()) {
            telemetry::count_ended(status.state);
        }
        self.local.publish(event);
        if let Some(remote) = &self.remote {
            remote.publish(event.clone(), true);
        }
    }

    /// Announces several changes, in order.
    pub fn publish_all<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            self.publish(event);
        }
    }

    /// Announces a change that only watchers must hear of, not workers.
    pub fn tell_watchers(&self, event: &Event) {
        self.local.tell_watchers(event);
        if let Some(remote) = &self.remote {
            remote.publish(event.clone(), false);
        }
    }

    /// Shows a change to the watchers of this node; the others hear of it from whoever announced it here.
    pub fn tell_watchers_here(&self, event: &Event) {
        self.local.tell_watchers(event);
    }

    /// Ends the streams of an owner who logged out, on all nodes.
    pub fn log_out(&self, owner: &Owner) {
        self.local.log_out(owner);
        if let Some(remote) = &self.remote {
            remote.log_out(owner.clone());
        }
    }

    /// The newest status that this node's watchers were told.
    #[must_use]
    pub fn newest(&self, id: SessionId) -> Option<(Owner, Status)> {
        self.local.watchers().newest(id)
    }

    /// What a worker must hear from now on.
    #[must_use]
    pub fn signals(&self) -> broadcast::Receiver<Signal> {
        self.local.signals()
    }

    /// Whether changes reach the other nodes, and theirs this one; none if there is only this node.
    #[must_use]
    pub fn is_connected(&self) -> Option<bool> {
        self.remote.as_ref().map(redis::Publisher::is_connected)
    }
}

impl Background {
    /// Carries changes between the nodes, and compares what is watched with the store. Until `stop`.
    pub fn run(self, stop: CancellationToken) -> impl Future<Output = ()> + Send {
        let Self { watchers, store, remote } = self;
        async move {
            let every = match &remote {
                Some(remote) => reconcile::Every::UnlessConnected(remote.connected()),
                None if store.is_shared() => reconcile::Every::Second,
                None => reconcile::Every::Rarely,
            };
            let carry = async {
                if let Some(remote) = remote {
                    remote.run(&stop).await;
                }
            };
            let compare = reconcile::run(&*watchers, &store, every, &stop);
            tokio::join!(carry, compare);
        }
    }
}

/// Counts a message that came over Redis by what became of it.
pub fn count(taken: Result<(), Rejection>) {
    let outcome = taken.map_or_else(Rejection::as_str, |()| "taken");
    metrics::counter!("hark_bus_messages_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{State, Timestamp},
        server::stream::{Hub, StreamLimits},
    };
    use metrics_exporter_prometheus::PrometheusBuilder;
    use uuid::Uuid;

    #[tokio::test]
    async fn an_end_is_counted_wherever_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
        let (bus, _background) = Bus::alone(Arc::new(Hub::new(StreamLimits::default())), &store);
        let recorder = PrometheusBuilder::new().build_recorder();
        let tell = |state| {
            let status = Status::new(SessionId(Uuid::from_u128(7)), state, None, Timestamp(0));
            bus.publish(&Event::status(Owner::from_store("me".to_owned()), status));
        };
        metrics::with_local_recorder(&recorder, || {
            for state in [State::Queued, State::Processing, State::Cancelled, State::Cancelled, State::Failed] {
                tell(state);
            }
        });
        let counts = recorder.handle().render();
        let mut ended: Vec<_> = counts.lines().filter(|line| line.starts_with("hark_sessions_ended_total")).collect();
        ended.sort_unstable();
        let [cancelled, failed] =
            [("cancelled", 2), ("failed", 1)].map(|(s, n)| format!("hark_sessions_ended_total{{status=\"{s}\"}} {n}"));
        assert_eq!(ended, [cancelled, failed]);
    }
}
