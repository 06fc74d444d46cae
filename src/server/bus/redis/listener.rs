//! Receives the changes of other nodes and the messages of outside workers over one connection, for the sessions that
//! somebody watches here. Redis doesn't keep messages for later subscribers, so after every subscription the sessions
//! are read from the store.

use super::{
    super::{
        Inbox, Rejection, Signal, Signer, count,
        inbox::SessionMessages,
        local::Local,
        wire::{self, NodeNotice},
    },
    link::{Backoff, RESPONSE_TIMEOUT, RETRY_WAIT, connection_closed, count_error, timed_out, with_timeout},
};
use crate::{
    model::{EngineId, Session, SessionId, State, Title},
    server::{
        event::{Change, Event},
        owner::Owner,
        store::{self, Store},
    },
};
use futures::StreamExt;
use redis::{Client, Msg, RedisError, aio::PubSubSink};
use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time,
};

/// The most channels named in one command.
const BATCH: usize = 500;
/// How often the connection is checked with a ping, and unneeded subscriptions are dropped.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of messages that may wait until their sessions were read from the store. More come only if the store doesn't
/// answer.
const MAX_BUFFERED_BYTES: usize = 32 * 1024 * 1024;

/// A session that this node has subscribed to.
#[derive(Debug)]
pub(super) enum Subscribed {
    /// It is being read from the store; with the messages that came meanwhile.
    Loading(SessionMessages),
    /// It was read: its owner, and whether its worker is outside Hark.
    Known { owner: Owner, outside: bool },
    /// There is no such session.
    Unknown,
}

/// Sessions and owners as read from the store.
pub(super) type Rows = Result<Vec<(Session, Owner)>, sqlx::Error>;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: Local,
    pub(super) signer: Signer,
    pub(super) store: Store,
    pub(super) inbox: Arc<Inbox>,
    pub(super) to_subscribe: mpsc::UnboundedReceiver<SessionId>,
    pub(super) loaded_sender: mpsc::UnboundedSender<(Vec<SessionId>, Rows)>,
    pub(super) loaded_receiver: mpsc::UnboundedReceiver<(Vec<SessionId>, Rows)>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) sessions: HashMap<SessionId, Subscribed>,
    /// Bytes of the messages that wait for their sessions to be read.
    pub(super) buffered_bytes: usize,
    pub(super) serves_streams: bool,
}

impl Listener {
    /// Runs until it is dropped; connects again whenever the connection breaks.
    pub(super) async fn run(&mut self, client: &Client) {
        let mut backoff = Backoff::default();
        loop {
            match with_timeout(client.get_async_pubsub()).await {
                Ok(pubsub) => {
                    let (sink, messages) = pubsub.split();
                    if let Err(error) = self.listen(sink, messages, &mut backoff).await {
                        count_error();
                        tracing::warn!(%error, "the connection to Redis broke; connecting again, and reading changes from the store every second until then");
                    }
                    self.connected.send_replace(false);
                }
                Err(error) => {
                    count_error();
                    backoff.warn_once(
                        "Redis can't be reached; changes of other nodes are read from the store every second",
                        &error,
                    );
                }
            }
            time::sleep(backoff.next()).await;
        }
    }

    async fn listen(
        &mut self,
        mut sink: PubSubSink,
        mut messages: impl StreamExt<Item = Msg> + Unpin,
        backoff: &mut Backoff,
    ) -> Result<(), RedisError> {
        self.sessions.clear();
        self.buffered_bytes = 0;
        let messages = &mut messages;
        self.await_reply(messages, sink.subscribe(wire::NODES)).await?;
        let held: Vec<SessionId> = self.local.watchers().held().into_keys().collect();
        if self.serves_streams {
            self.subscribe(&mut sink, messages, held).await?;
        }
        // From here on nothing is missed, so everything that is held is compared with the store once.
        self.connected.send_replace(true);
        *backoff = Backoff::default();
        tracing::info!(sessions = self.sessions.len(), "connected to Redis: receiving the changes of other nodes");
        let mut wanted = Vec::new();
        let mut pings = time::interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.handle(&message),
                    None => return Err(connection_closed()),
                },
                Some((ids, rows)) = self.loaded_receiver.recv() => self.loaded(ids, rows),
                n = self.to_subscribe.recv_many(&mut wanted, BATCH), if self.serves_streams => {
                    if n > 0 {
                        self.subscribe(&mut sink, messages, std::mem::take(&mut wanted)).await?;
                    }
                }
                _ = pings.tick() => {
                    let sent = time::Instant::now();
                    self.await_reply(messages, sink.ping::<redis::Value>()).await?;
                    metrics::histogram!("hark_redis_ping_seconds").record(sent.elapsed());
                    if self.serves_streams {
                        self.prune_subscriptions(&mut sink, messages).await?;
                    }
                }
            }
        }
    }

    /// Waits for the reply to a command and handles messages meanwhile. The reply comes after the messages that are
    /// already on their way, which may take long; but while any arrive, the connection is alive.
    async fn await_reply<T>(
        &mut self,
        messages: &mut (impl StreamExt<Item = Msg> + Unpin),
        reply: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        let mut reply = pin!(reply);
        loop {
            tokio::select! {
                answer = &mut reply => return answer,
                message = messages.next() => self.handle(&message.ok_or_else(connection_closed)?),
                () = time::sleep(RESPONSE_TIMEOUT) => return Err(timed_out()),
            }
        }
    }

    /// Subscribes to sessions, and then reads them: what was published before is in the store.
    async fn subscribe(
        &mut self,
        sink: &mut PubSubSink,
        messages: &mut (impl StreamExt<Item = Msg> + Unpin),
        ids: Vec<SessionId>,
    ) -> Result<(), RedisError> {
        let mut new: Vec<SessionId> = ids.into_iter().filter(|id| !self.sessions.contains_key(id)).collect();
        new.sort_unstable();
        new.dedup();
        for step in new.chunks(BATCH) {
            let channels: Vec<String> = step.iter().map(|id| wire::channel(*id)).collect();
            // Entered before Redis is asked, because the first messages may come with its reply.
            self.sessions.extend(step.iter().map(|id| (*id, Subscribed::Loading(SessionMessages::default()))));
            self.await_reply(messages, sink.subscribe(&channels)).await?;
            self.read(step.to_vec(), Duration::ZERO);
        }
        metrics::gauge!("hark_bus_subscriptions").set(self.sessions.len() as f64);
        Ok(())
    }

    /// Unsubscribes from sessions that nobody holds any more, and subscribes to held ones that are missing.
    async fn prune_subscriptions(
        &mut self,
        sink: &mut PubSubSink,
        messages: &mut (impl StreamExt<Item = Msg> + Unpin),
    ) -> Result<(), RedisError> {
        let held = self.local.watchers().held();
        let unneeded: Vec<SessionId> = self.sessions.keys().filter(|id| !held.contains_key(id)).copied().collect();
        for step in unneeded.chunks(BATCH) {
            let channels: Vec<String> = step.iter().map(|id| wire::channel(*id)).collect();
            self.await_reply(messages, sink.unsubscribe(&channels)).await?;
            for id in step {
                if let Some(Subscribed::Loading(waiting)) = self.sessions.remove(id) {
                    self.buffered_bytes -= waiting.bytes();
                }
            }
        }
        self.subscribe(sink, messages, held.into_keys().collect()).await
    }

    /// Reads sessions from the store after `delay`, for [`Listener::loaded`].
    fn read(&self, ids: Vec<SessionId>, delay: Duration) {
        let (store, loaded) = (self.store.clone(), self.loaded_sender.clone());
        tokio::spawn(async move {
            time::sleep(delay).await;
            let rows = store.find_many(&ids).await;
            let _ = loaded.send((ids, rows)); // fails only while the node stops
        });
    }

    fn loaded(&mut self, ids: Vec<SessionId>, rows: Rows) {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                if !store::is_away(&error) {
                    tracing::warn!(%error, "sessions could not be read from the store; trying again");
                }
                self.read(ids, RETRY_WAIT.1);
                return;
            }
        };
        let mut buffered = Vec::new();
        for (session, owner) in rows {
            let outside = session.engine == EngineId::External;
            if outside {
                self.local.watchers().keep(&owner, &session.status);
            } else {
                self.local.watchers().refresh(&owner, &session.status);
            }
            let known = Subscribed::Known { owner, outside };
            if let Some(subscribed) = self.sessions.get_mut(&session.id)
                && let Subscribed::Loading(waiting) = std::mem::replace(subscribed, known)
            {
                self.buffered_bytes -= waiting.bytes();
                buffered.extend(waiting.into_payloads().map(|payload| (session.id, payload)));
            }
        }
        for id in ids {
            if let Some(subscribed) = self.sessions.get_mut(&id)
                && let Subscribed::Loading(waiting) = subscribed
            {
                self.buffered_bytes -= waiting.bytes();
                *subscribed = Subscribed::Unknown;
            }
        }
        for (id, payload) in buffered {
            self.handle_session_message(id, &payload);
        }
    }

    fn handle(&mut self, message: &Msg) {
        let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if payload.len() > wire::MAX_MESSAGE {
            count(Err(Rejection::Oversized));
            if let Some(id) = wire::session_of(channel)
                && matches!(self.sessions.get(&id), Some(Subscribed::Known { outside: true, .. }))
            {
                self.inbox.refuse_oversized(id, payload.len());
            }
        } else if channel == wire::NODES {
            match wire::parse_notice(payload, &self.signer) {
                Ok(notice) => self.notice(notice),
                Err(rejection) => count(Err(rejection)),
            }
        } else if let Some(id) = wire::session_of(channel) {
            self.handle_session_message(id, payload);
        } else {
            count(Err(Rejection::Foreign));
        }
    }

    fn handle_session_message(&mut self, id: SessionId, payload: &[u8]) {
        match self.sessions.get_mut(&id) {
            Some(Subscribed::Loading(waiting)) if self.buffered_bytes + payload.len() <= MAX_BUFFERED_BYTES => {
                let before = waiting.bytes();
                // It isn't known yet whether its worker is outside Hark, so this isn't logged.
                if let Err(refusal) = waiting.put(id, payload) {
                    count(Err(refusal.rejection));
                }
                self.buffered_bytes = self.buffered_bytes - before + waiting.bytes();
            }
            Some(Subscribed::Loading(_)) => metrics::counter!("hark_bus_dropped_total").increment(1),
            Some(Subscribed::Known { outside: true, .. }) => {
                match self.inbox.put(id, payload) {
                    Ok(true) => {} // counted when it is processed
                    Ok(false) => metrics::counter!("hark_bus_dropped_total").increment(1),
                    Err(rejection) => count(Err(rejection)),
                }
            }
            Some(Subscribed::Known { owner, outside: false }) => {
                match wire::parse(id, payload, &self.signer) {
                    Ok(change) => {
                        let is_older = matches!(&change, Change::Status(status)
                            if self.local.watchers().version_of(id).is_some_and(|known| status.version < known));
                        let is_new = self.local.tell_watchers(&Event { owner: owner.clone(), change });
                        // A change that is neither new nor older is usually this node's own, which isn't counted.
                        if is_new || is_older {
                            count(if is_new { Ok(()) } else { Err(Rejection::Stale) });
                        }
                    }
                    Err(rejection) => count(Err(rejection)),
                }
            }
            Some(Subscribed::Unknown) | None => count(Err(Rejection::Foreign)),
        }
    }

    fn notice(&mut self, notice: NodeNotice) {
        match notice {
            NodeNotice::Changed { session_id, owner, status } => {
                let signal = match status {
                    State::Queued => Some(Signal::Queued),
                    State::Cancelled => Some(Signal::Stop(session_id)),
                    State::Processing | State::Completed | State::Failed => None,
                };
                if let Some(signal) = signal {
                    self.local.signal(signal);
                }
                // Read even if this node has subscribed to it, because the message on its own channel may be lost.
                if self.serves_streams && self.local.watchers().is_held(&Owner::from_store(owner), session_id) {
                    self.read(vec![session_id], Duration::ZERO);
                }
            }
            NodeNotice::Renamed { session_id, owner, title } => {
                if let Ok(title) = Title::new(&title) {
                    let owner = Owner::from_store(owner);
                    self.local.publish(&Event { owner, change: Change::Renamed(session_id, title) });
                }
            }
            NodeNotice::Deleted { session_id, owner } => {
                self.local.publish(&Event { owner: Owner::from_store(owner), change: Change::Deleted(session_id) });
            }
            NodeNotice::LoggedOut { owner } => self.local.log_out(&Owner::from_store(owner)),
            NodeNotice::Page(sighting) => {
                if self.serves_streams {
                    self.local.watchers().hear_of_page(&sighting);
                }
            }
            // Setting it makes `reconcile` compare at once, as after a new connection.
            NodeNotice::Compare => drop(self.connected.send_replace(true)),
        }
    }
}
