//! The bus carries every change from where it was stored to everyone who watches. `sessions`, `jobs` and `outside`
//! publish; the hub fans out to streams, and workers receive signals. With `REDIS_URL` changes reach all nodes.

mod inbox;
mod local;
mod reconcile;
mod redis;
mod refusals;
mod signature;
mod watchers;
mod wire;

use super::{event::Event, hours::Hours, owner::Owner, sightings::Sighting, store::Store, telemetry};
use crate::model::{SessionId, Status};
pub use inbox::Inbox;
use local::Local;
pub use local::Signal;
pub use refusals::RefusalLog;
pub use signature::Signer;
use std::{future::Future, sync::Arc};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
pub use watchers::Watchers;
pub use wire::{OutsideMessage, Refusal, Rejection, state_named};

/// Publishes changes to the streams and workers of this node, and to the other nodes if there are any.
#[derive(Clone, Debug)]
pub struct Bus {
    local: Local,
    remote: Option<redis::Publisher>,
    hours: Hours,
}

/// The background work of a bus; started by [`Background::run`].
#[derive(Debug)]
pub struct Background {
    watchers: Arc<dyn Watchers>,
    store: Store,
    remote: Option<redis::Background>,
}

impl Bus {
    /// A bus within this process. `hours` counts the sessions that end.
    #[must_use]
    pub fn alone(watchers: Arc<dyn Watchers>, store: &Store, hours: Hours) -> (Self, Background) {
        let background = Background { watchers: Arc::clone(&watchers), store: store.clone(), remote: None };
        (Self { local: Local::new(watchers), remote: None, hours }, background)
    }

    /// A bus over the Redis at `url`, which need not be running yet. `signer` signs the messages of this node. What
    /// outside workers publish about their sessions goes to `inbox`. `serves_streams` says whether this node has
    /// streams.
    ///
    /// # Errors
    /// If the address isn't valid.
    pub fn over_redis(
        url: &str,
        signer: Signer,
        watchers: Arc<dyn Watchers>,
        store: &Store,
        inbox: Arc<Inbox>,
        serves_streams: bool,
        hours: Hours,
    ) -> Result<(Self, Background), ::redis::RedisError> {
        let local = Local::new(Arc::clone(&watchers));
        let (publisher, remote) = redis::connect(url, signer, &local, store, inbox, serves_streams)?;
        let background = Background { watchers, store: store.clone(), remote: Some(remote) };
        Ok((Self { local, remote: Some(publisher), hours }, background))
    }

    /// Whether the Redis at `url` answers.
    ///
    /// # Errors
    /// If it doesn't within 3 seconds, or the address isn't valid.
    pub async fn probe(url: &str) -> Result<(), ::redis::RedisError> {
        redis::probe(url).await
    }

    /// Publishes a change that this node has stored, and counts the session if it has ended.
    pub fn publish(&self, event: &Event) {
        if let Some(status) = event.new_status().filter(|status| status.state.is_terminal()) {
            self.count_ended(status);
        }
        self.local.publish(event);
        if let Some(remote) = &self.remote {
            remote.publish(event.clone(), true);
        }
    }

    /// Counts a session that has ended and is published by others.
    pub fn count_ended(&self, status: &Status) {
        telemetry::count_ended(status);
        self.hours.session_ended(status);
    }

    /// Publishes several changes, in order.
    pub fn publish_all<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            self.publish(event);
        }
    }

    /// Publishes a change to watchers, not to workers.
    pub fn tell_watchers(&self, event: &Event) {
        self.local.tell_watchers(event);
        if let Some(remote) = &self.remote {
            remote.publish(event.clone(), false);
        }
    }

    /// Publishes a change to the watchers of this node only: whoever published it over Redis has reached the other
    /// nodes too.
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

    /// Tells the other nodes what this one saw of a page.
    pub fn tell_of_page(&self, sighting: Sighting) {
        if let Some(remote) = &self.remote {
            remote.tell_of_page(sighting);
        }
    }

    /// The newest status that this node's watchers have.
    #[must_use]
    pub fn newest(&self, id: SessionId) -> Option<(Owner, Status)> {
        self.local.watchers().newest(id)
    }

    /// Whether that status came to this node as a change, and not from the store.
    #[must_use]
    pub fn is_announced(&self, id: SessionId) -> bool {
        self.local.watchers().is_announced(id)
    }

    /// Takes in a status of an outside worker's session that was read from the store, for the watchers of this node, and
    /// keeps it in memory if there are any.
    pub fn keep(&self, owner: &Owner, status: &Status) {
        self.local.watchers().keep(owner, status);
    }

    /// Whether this node's watchers have a status of a session.
    #[must_use]
    pub fn is_known(&self, id: SessionId) -> bool {
        self.local.watchers().version_of(id).is_some()
    }

    /// Subscribes a worker to the signals from now on.
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
    /// Carries changes between the nodes, and compares what is watched with the store, until `stop`.
    pub fn run(self, stop: CancellationToken) -> impl Future<Output = ()> + Send {
        let Self { watchers, store, remote } = self;
        async move {
            let frequency = match &remote {
                Some(remote) => reconcile::Frequency::UnlessConnected(remote.connected()),
                None if store.is_shared() => reconcile::Frequency::EverySecond,
                None => reconcile::Frequency::Rarely,
            };
            let carry = async {
                if let Some(remote) = remote {
                    remote.run(&stop).await;
                }
            };
            let compare = reconcile::run(&*watchers, &store, frequency, &stop);
            tokio::join!(carry, compare);
        }
    }
}

/// Counts a message that came over Redis by its outcome.
pub fn count(result: Result<(), Rejection>) {
    let outcome = result.map_or_else(Rejection::as_str, |()| "taken");
    metrics::counter!("hark_bus_messages_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{State, Timestamp, figures::Range},
        server::{
            config::FiguresConfig,
            stream::{Hub, StreamLimits},
        },
    };
    use metrics_exporter_prometheus::PrometheusBuilder;
    use uuid::Uuid;

    #[tokio::test]
    async fn every_published_end_of_a_session_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
        let hours = Hours::new(FiguresConfig::default());
        let (bus, _background) = Bus::alone(Arc::new(Hub::new(StreamLimits::default())), &store, hours.clone());
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
        hours.store(&store, Timestamp::now()).await.unwrap();
        let kept = hours.calculate(&store, Range::Hour, Timestamp::now()).await.unwrap().current.sessions;
        assert_eq!((kept.completed, kept.cancelled, kept.failed), (0, 2, 1));
    }
}
