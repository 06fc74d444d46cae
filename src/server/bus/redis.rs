//! The bus between nodes, on Redis or Valkey. One connection publishes and one listens, however many sessions are
//! watched. Redis keeps nothing for who isn't there, so after every subscription what it is about is read from the store.

use super::{
    Inbox, Rejection, Signal, Signer, count,
    inbox::Said,
    local::Local,
    wire::{self, NodeNotice},
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
use rand::RngExt;
use redis::{
    AsyncConnectionConfig, Client, Msg, RedisError,
    aio::{MultiplexedConnection, PubSubSink},
};
use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;

/// Changes that may wait to be published, and the bytes of their texts. More come only while Redis doesn't answer, and then
/// the store tells them.
const WAITING: usize = 8192;
const WAITING_BYTES: usize = 32 * 1024 * 1024;
/// Changes published in one go.
const BATCH: usize = 512;
/// Channels named in one command.
const STEP: usize = 500;
/// How long Redis may take to answer before the connection counts as dead.
const ANSWER: Duration = Duration::from_secs(3);
/// How often a quiet connection is asked whether it is alive, and unneeded subscriptions are given up.
const LOOK: Duration = Duration::from_secs(5);
/// First and longest wait before another try to connect; doubled each time, and random up to a half.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Bytes of messages that may wait until the store has told whose their sessions are. More come only if it doesn't answer.
const EARLY_BYTES: usize = 32 * 1024 * 1024;

/// Gives changes to Redis. Never waits: what can't be taken in is dropped and counted.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    queue: mpsc::Sender<Outgoing>,
    waiting_bytes: Arc<AtomicUsize>,
    publishes: Arc<AtomicBool>,
    listens: watch::Receiver<bool>,
}

#[derive(Debug)]
enum Outgoing {
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
    let (want, wants) = mpsc::unbounded_channel();
    if watched {
        local.watchers().listen_beyond(want);
    }
    let (reads, rows) = mpsc::unbounded_channel();
    let listener = Listener {
        local: local.clone(),
        signer: signer.clone(),
        store: store.clone(),
        foreign,
        wants,
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

impl Publisher {
    /// Publishes a change. `news`: whether nodes that don't listen for the session must hear of it too.
    pub(super) fn publish(&self, event: Event, news: bool) {
        self.send(Outgoing::Event(Box::new(event), news));
    }

    pub(super) fn log_out(&self, owner: Owner) {
        self.send(Outgoing::Notice(NodeNotice::LoggedOut { owner: owner.as_str().to_owned() }));
    }

    pub(super) fn is_connected(&self) -> bool {
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

// Publishing

async fn publish(
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

/// How long to wait before the next try, and whether to speak of it.
#[derive(Debug, Default)]
struct Pause(Duration);

impl Pause {
    fn next(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(RETRY.0, RETRY.1);
        self.0.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Once, until a try succeeds.
    fn tell(&self, what: &str, error: &RedisError) {
        if self.0.is_zero() {
            tracing::warn!(%error, "{what}; trying on");
        }
    }
}

// Listening

/// A session that this node listens for.
#[derive(Debug)]
enum Subscribed {
    /// The store hasn't told yet whose it is; what came meanwhile.
    Asked(Said),
    /// Its owner, and whether its worker is outside Hark.
    Known { owner: Owner, outside: bool },
    /// There is none.
    Nobody,
}

type Rows = Result<Vec<(Session, Owner)>, sqlx::Error>;

#[derive(Debug)]
struct Listener {
    local: Local,
    signer: Signer,
    store: Store,
    foreign: Arc<Inbox>,
    wants: mpsc::UnboundedReceiver<SessionId>,
    reads: mpsc::UnboundedSender<(Vec<SessionId>, Rows)>,
    rows: mpsc::UnboundedReceiver<(Vec<SessionId>, Rows)>,
    connected: watch::Sender<bool>,
    sessions: HashMap<SessionId, Subscribed>,
    /// Bytes of messages taken in for sessions of which the store hasn't told yet.
    early_bytes: usize,
    watched: bool,
}

impl Listener {
    async fn run(&mut self, client: &Client) {
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
            let rows = store.many(&ids).await;
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

async fn answer<T>(asked: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    match time::timeout(ANSWER, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(silent()),
    }
}

fn silent() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "Redis didn't answer in time"))
}

fn closed() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "closed by Redis"))
}
