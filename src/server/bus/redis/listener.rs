//! Listens for the changes of other nodes and for what outside workers publish: over one connection, for the sessions that
//! somebody watches here. Redis keeps nothing for who isn't there, so after every subscription what it is about is read
//! from the store.

use super::{
    super::{
        Inbox, Rejection, Signal, Signer, count,
        inbox::Said,
        local::Local,
        wire::{self, NodeNotice},
    },
    link::{ANSWER, Pause, RETRY, answer, closed, silent},
};
use crate::{
    model::{EngineId, Session, SessionId, State},
    server::{
        event::{Change, Event},
        owner::Owner,
        store::Store,
    },
};
use futures::StreamExt;
use redis::{Client, Msg, RedisError, aio::PubSubSink};
use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time,
};

/// Channels named in one command.
const STEP: usize = 500;
/// How often a quiet connection is asked whether it is alive, and unneeded subscriptions are given up.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes of messages that may wait until the store has told whose their sessions are. More come only if it doesn't answer.
const EARLY_BYTES: usize = 32 * 1024 * 1024;

/// A session that this node listens for.
#[derive(Debug)]
pub(super) enum Subscribed {
    /// The store hasn't told yet whose it is; what came meanwhile.
    Asked(Said),
    /// Its owner, and whether its worker is outside Hark.
    Known { owner: Owner, outside: bool },
    /// There is none.
    Nobody,
}

/// What the store tells of sessions.
pub(super) type Rows = Result<Vec<(Session, Owner)>, sqlx::Error>;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: Local,
    pub(super) signer: Signer,
    pub(super) store: Store,
    pub(super) foreign: Arc<Inbox>,
    pub(super) wants: mpsc::UnboundedReceiver<SessionId>,
    pub(super) reads: mpsc::UnboundedSender<(Vec<SessionId>, Rows)>,
    pub(super) rows: mpsc::UnboundedReceiver<(Vec<SessionId>, Rows)>,
    pub(super) connected: watch::Sender<bool>,
    pub(super) sessions: HashMap<SessionId, Subscribed>,
    /// Bytes of messages taken in for sessions of which the store hasn't told yet.
    pub(super) early_bytes: usize,
    pub(super) watched: bool,
}

impl Listener {
    /// Listens for as long as it is polled; connects again whenever the connection breaks off.
    pub(super) async fn run(&mut self, client: &Client) {
        let mut pause = Pause::default();
        loop {
            match answer(client.get_async_pubsub()).await {
                Ok(pubsub) => {
                    let (sink, messages) = pubsub.split();
                    if let Err(error) = self.listen(sink, messages, &mut pause).await {
                        tracing::warn!(%error, "the connection to Redis broke off; watchers are told from the store meanwhile");
                    }
                    self.connected.send_replace(false);
                }
                Err(error) => pause.tell("Redis can't be reached; watchers are told from the store meanwhile", &error),
            }
            time::sleep(pause.next()).await;
        }
    }

    async fn listen(
        &mut self,
        mut sink: PubSubSink,
        mut messages: impl StreamExt<Item = Msg> + Unpin,
        pause: &mut Pause,
    ) -> Result<(), RedisError> {
        self.sessions.clear();
        self.early_bytes = 0;
        let messages = &mut messages;
        self.answered(messages, sink.subscribe(wire::NODES)).await?;
        let held: Vec<SessionId> = self.local.watchers().held().into_keys().collect();
        if self.watched {
            self.subscribe(&mut sink, messages, held).await?;
        }
        // Everything that is held is compared with the store now that nothing can be missed any more.
        self.connected.send_replace(true);
        *pause = Pause::default();
        tracing::info!(sessions = self.sessions.len(), "changes of other nodes are heard through Redis");
        let mut wanted = Vec::new();
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.hear(&message),
                    None => return Err(closed()),
                },
                Some((ids, rows)) = self.rows.recv() => self.learn(ids, rows),
                n = self.wants.recv_many(&mut wanted, STEP), if self.watched => {
                    if n > 0 {
                        self.subscribe(&mut sink, messages, std::mem::take(&mut wanted)).await?;
                    }
                }
                _ = looks.tick() => {
                    self.answered(messages, sink.ping::<redis::Value>()).await?;
                    if self.watched {
                        self.tidy(&mut sink, messages).await?;
                    }
                }
            }
        }
    }

    /// Waits for the answer to a command and hears messages meanwhile. The answer stands behind those that are under way,
    /// which may take long, but as long as any come the connection is alive.
    async fn answered<T>(
        &mut self,
        messages: &mut (impl StreamExt<Item = Msg> + Unpin),
        asked: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        let mut asked = pin!(asked);
        loop {
            tokio::select! {
                answer = &mut asked => return answer,
                message = messages.next() => self.hear(&message.ok_or_else(closed)?),
                () = time::sleep(ANSWER) => return Err(silent()),
            }
        }
    }

    /// Listens for sessions, and then reads them: what was published before is in the store.
    async fn subscribe(
        &mut self,
        sink: &mut PubSubSink,
        messages: &mut (impl StreamExt<Item = Msg> + Unpin),
        ids: Vec<SessionId>,
    ) -> Result<(), RedisError> {
        let mut new: Vec<SessionId> = ids.into_iter().filter(|id| !self.sessions.contains_key(id)).collect();
        new.sort_unstable();
        new.dedup();
        for step in new.chunks(STEP) {
            let channels: Vec<String> = step.iter().map(|id| wire::channel(*id)).collect();
            // Before Redis is asked: the first messages may come with its answer.
            self.sessions.extend(step.iter().map(|id| (*id, Subscribed::Asked(Said::default()))));
            self.answered(messages, sink.subscribe(&channels)).await?;
            self.read(step.to_vec(), Duration::ZERO);
        }
        metrics::gauge!("hark_bus_subscriptions").set(self.sessions.len() as f64);
        Ok(())
    }

    /// Gives up what nobody holds any more, and takes up what was missed.
    async fn tidy(
        &mut self,
        sink: &mut PubSubSink,
        messages: &mut (impl StreamExt<Item = Msg> + Unpin),
    ) -> Result<(), RedisError> {
        let held = self.local.watchers().held();
        let unneeded: Vec<SessionId> = self.sessions.keys().filter(|id| !held.contains_key(id)).copied().collect();
        for step in unneeded.chunks(STEP) {
            let channels: Vec<String> = step.iter().map(|id| wire::channel(*id)).collect();
            self.answered(messages, sink.unsubscribe(&channels)).await?;
            for id in step {
                if let Some(Subscribed::Asked(waiting)) = self.sessions.remove(id) {
                    self.early_bytes -= waiting.bytes();
                }
            }
        }
        self.subscribe(sink, messages, held.into_keys().collect()).await
    }

    /// Reads sessions from the store `after` a while, for [`Listener::learn`].
    fn read(&self, ids: Vec<SessionId>, after: Duration) {
        let (store, reads) = (self.store.clone(), self.reads.clone());
        tokio::spawn(async move {
            time::sleep(after).await;
            let rows = store.find_many(&ids).await;
            let _ = reads.send((ids, rows)); // fails when the node goes down
        });
    }

    fn learn(&mut self, ids: Vec<SessionId>, rows: Rows) {
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "sessions could not be read from the store; trying again");
                self.read(ids, RETRY.1);
                return;
            }
        };
        let mut early = Vec::new();
        for (session, owner) in rows {
            self.local.watchers().refresh(&owner, &session.status);
            let known = Subscribed::Known { owner, outside: session.engine == EngineId::External };
            if let Some(subscribed) = self.sessions.get_mut(&session.id)
                && let Subscribed::Asked(waiting) = std::mem::replace(subscribed, known)
            {
                self.early_bytes -= waiting.bytes();
                early.extend(waiting.into_payloads().map(|payload| (session.id, payload)));
            }
        }
        for id in ids {
            if let Some(subscribed) = self.sessions.get_mut(&id)
                && let Subscribed::Asked(waiting) = subscribed
            {
                self.early_bytes -= waiting.bytes();
                *subscribed = Subscribed::Nobody;
            }
        }
        for (id, payload) in early {
            self.take_in(id, &payload);
        }
    }

    fn hear(&mut self, message: &Msg) {
        let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
        if payload.len() > wire::MAX_MESSAGE {
            count(Err(Rejection::Oversized));
        } else if channel == wire::NODES {
            match wire::read_notice(payload, &self.signer) {
                Ok(notice) => self.notice(notice),
                Err(rejection) => count(Err(rejection)),
            }
        } else if let Some(id) = wire::session_of(channel) {
            self.take_in(id, payload);
        } else {
            count(Err(Rejection::Foreign));
        }
    }

    fn take_in(&mut self, id: SessionId, payload: &[u8]) {
        match self.sessions.get_mut(&id) {
            Some(Subscribed::Asked(waiting)) if self.early_bytes + payload.len() <= EARLY_BYTES => {
                let before = waiting.bytes();
                if let Err(rejection) = waiting.put(id, payload) {
                    count(Err(rejection));
                }
                self.early_bytes = self.early_bytes - before + waiting.bytes();
            }
            Some(Subscribed::Asked(_)) => metrics::counter!("hark_bus_dropped_total").increment(1),
            Some(Subscribed::Known { outside: true, .. }) => {
                match self.foreign.put(id, payload) {
                    Ok(true) => {} // counted when it has been looked at
                    Ok(false) => metrics::counter!("hark_bus_dropped_total").increment(1),
                    Err(rejection) => count(Err(rejection)),
                }
            }
            Some(Subscribed::Known { owner, outside: false }) => {
                match wire::read(id, payload, &self.signer) {
                    Ok(change) => {
                        let older = matches!(&change, Change::Status(status)
                            if self.local.watchers().version_of(id).is_some_and(|known| status.version < known));
                        let news = self.local.tell_watchers(&Event { owner: owner.clone(), change });
                        // What is just known already is most often this node's own.
                        if news || older {
                            count(if news { Ok(()) } else { Err(Rejection::Stale) });
                        }
                    }
                    Err(rejection) => count(Err(rejection)),
                }
            }
            Some(Subscribed::Nobody) | None => count(Err(Rejection::Foreign)),
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
                // Also what this node listens for: its own message may have been the one that got lost.
                if self.watched && self.local.watchers().is_held(&Owner::from_store(owner), session_id) {
                    self.read(vec![session_id], Duration::ZERO);
                }
            }
            NodeNotice::Deleted { session_id, owner } => {
                self.local.publish(&Event { owner: Owner::from_store(owner), change: Change::Deleted(session_id) });
            }
            NodeNotice::LoggedOut { owner } => self.local.log_out(&Owner::from_store(owner)),
            // The comparison begins anew when the connection does.
            NodeNotice::Compare => drop(self.connected.send_replace(true)),
        }
    }
}
