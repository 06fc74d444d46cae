//! Who watches what, and the fan-out: a change is encoded once, kept as the newest of its session, and every stream
//! that watches is woken to take a clone. One sweep a tick looks after heartbeats, lifetimes and stuck clients.

use super::{
    Bye, Frame, Outgoing,
    lock::{lock, read, write},
    meters::{Meters, Scope},
    permits::{Most, Refusal, StreamPermit, StreamPermits},
    slot::{Close, Slot},
    socket::Peer,
    ticks::{Clock, PER_SECOND, Ticks},
    topic::{OwnerTopic, SessionTopic, segment_frame},
};
use crate::{
    model::{SegmentEvent, SessionId, State, Status, Timestamp},
    server::{
        event::{Change, Event},
        owner::Owner,
        shares::Standing,
    },
};
use rand::RngExt;
use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedSender;

/// A stream that has been silent for this long sends a heartbeat, so that both ends notice a dead connection.
const HEARTBEAT: Ticks = 15 * PER_SECOND;
/// A client that takes nothing in for this long is cut off.
const STUCK: Ticks = 10 * PER_SECOND;
/// What nobody watches, asks for or publishes to is forgotten after this long. Longer than the store may lag behind.
const LINGER: Ticks = 60 * PER_SECOND;
/// How many sessions or owners the sweep looks at before it lets others go on.
const STEP: usize = 64;

/// How long a client should wait before it reconnects, in milliseconds. Random, so that a thousand clients don't come
/// back at once.
const RETRY_MS: RangeInclusive<u32> = 250..=750;
/// The same after a refusal: places don't become free within a second.
const RETRY_REFUSED_MS: RangeInclusive<u32> = 20_000..=40_000;

/// How streams end, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Of one owner, on this node.
    pub per_owner: u32,
    /// Of the newcomers at one address, on this node.
    pub per_address: u32,
    /// Of all newcomers, on this node.
    pub newcomers: u32,
    /// On this node.
    pub per_node: u32,
    /// Seconds a stream lives, plus or minus a fifth.
    pub lifetime_secs: u32,
    /// Seconds without any event but heartbeats after which a stream is closed if nothing it tells of is running.
    pub idle_secs: u32,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { per_owner: 6, per_address: 32, newcomers: 10_000, per_node: 20_000, lifetime_secs: 300, idle_secs: 300 }
    }
}

type Topic<T> = Arc<Mutex<T>>;

/// All streams of this node, and what they tell of.
#[derive(Debug)]
pub struct Hub {
    limits: StreamLimits,
    sessions: RwLock<HashMap<SessionId, Topic<SessionTopic>>>,
    owners: RwLock<HashMap<Owner, Topic<OwnerTopic>>>,
    permits: Arc<StreamPermits>,
    closed: AtomicBool,
    /// Told of each session that begins to be held, where changes also come from other nodes.
    wants: OnceLock<UnboundedSender<SessionId>>,
    clock: Clock,
    started: Instant,
    beat: Mutex<Frame>,
    pub(super) meters: Meters,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(StreamLimits::default())
    }
}

impl Hub {
    /// A hub without streams. Its [`Hub::tick`] must be called four times a second.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            sessions: RwLock::default(),
            owners: RwLock::default(),
            permits: Arc::new(StreamPermits::new(Most {
                owner: limits.per_owner,
                address: limits.per_address,
                newcomers: limits.newcomers,
                node: limits.per_node,
            })),
            closed: AtomicBool::new(false),
            wants: OnceLock::new(),
            // Not from 0, which a slot takes for "never".
            clock: Arc::new(AtomicU32::new(1)),
            started: Instant::now(),
            beat: Mutex::new(Frame::heartbeat(Timestamp::now())),
            meters: Meters::new(),
        }
    }

    /// How many streams are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.permits.taken()
    }

    /// What a connection needs so that a stuck stream on it can be cut off.
    #[must_use]
    pub fn peer(&self) -> Arc<Peer> {
        Arc::new(Peer::new(Arc::clone(&self.clock)))
    }

    /// Leave for a stream of this owner.
    ///
    /// # Errors
    /// If the owner, its address, all newcomers or the node have as many as they may have.
    pub fn admit(&self, owner: &Owner, standing: Standing) -> Result<StreamPermit, Refusal> {
        let permit = StreamPermits::take(&self.permits, owner, standing);
        if let Err(refusal) = &permit {
            self.meters.refused(*refusal);
        }
        permit
    }

    /// Whose session it is, if the hub holds it.
    #[must_use]
    pub fn owner_of(&self, id: SessionId) -> Option<Owner> {
        let topics = read(&self.sessions);
        let topic = lock(topics.get(&id)?);
        topic.owner.clone().filter(|_| !topic.gone && topic.latest.is_some())
    }

    /// The newest status of a session, if the hub holds it: owner, version, segments announced, whether it has ended,
    /// and the JSON.
    #[must_use]
    pub fn current(&self, id: SessionId) -> Option<Current> {
        let topics = read(&self.sessions);
        let mut topic = lock(topics.get(&id)?);
        topic.used = self.now();
        let latest = topic.latest.as_ref().filter(|_| !topic.gone)?;
        Some(Current {
            owner: topic.owner.clone()?,
            version: latest.version,
            segments: latest.segments,
            ended: latest.state.is_terminal(),
            frame: latest.out.frame.clone(),
        })
    }

    /// From now on changes come from other nodes too: `wants` is told which sessions to listen for, and what is published
    /// here is kept only if somebody watches it or asks for it.
    pub fn listen_beyond(&self, wants: UnboundedSender<SessionId>) {
        // A second call would come from a second bus, which a node doesn't have.
        let _ = self.wants.set(wants);
    }

    fn want(&self, id: SessionId) {
        if let Some(wants) = self.wants.get() {
            let _ = wants.send(id); // fails when the node goes down, and then it doesn't matter
        }
    }

    /// The sessions that are watched or asked for and haven't ended, with the version and the number of segments that
    /// the least informed of their watchers has been told.
    #[must_use]
    pub fn held(&self) -> HashMap<SessionId, (u64, u32)> {
        let mut held = HashMap::new();
        for (id, topic) in self.topics() {
            let topic = lock(&topic);
            if !topic.gone && !topic.latest.as_ref().is_some_and(|latest| latest.state.is_terminal()) {
                held.insert(id, (topic.version(), topic.segments()));
            }
        }
        for topic in self.owner_topics() {
            for (id, version, segments) in lock(&topic).open() {
                let least = held.entry(id).or_insert((version, segments));
                *least = (least.0.min(version), least.1.min(segments));
            }
        }
        held
    }

    /// The owners whose sessions are watched or asked for as a whole.
    #[must_use]
    pub fn held_owners(&self) -> Vec<Owner> {
        let topics = read(&self.owners);
        topics.iter().filter(|(_, topic)| lock(topic).loaded).map(|(owner, _)| owner.clone()).collect()
    }

    /// The version of a session's newest status as the watchers of its owner know it; none if they don't know it.
    #[must_use]
    pub fn known_to_owner(&self, owner: &Owner, id: SessionId) -> Option<u64> {
        read(&self.owners).get(owner).and_then(|topic| lock(topic).version_of(id))
    }

    /// Whether anybody here watches a session or asks for it, alone or with all others of its owner.
    #[must_use]
    pub fn is_held(&self, owner: &Owner, id: SessionId) -> bool {
        read(&self.sessions).contains_key(&id) || read(&self.owners).contains_key(owner)
    }

    /// The version of a session's newest status, if the hub holds it.
    #[must_use]
    pub fn version_of(&self, id: SessionId) -> Option<u64> {
        read(&self.sessions).get(&id).and_then(|topic| lock(topic).latest.as_ref().map(|latest| latest.version))
    }

    /// The newest status of a session, if the hub holds it, with all segments that were announced.
    #[must_use]
    pub fn newest(&self, id: SessionId) -> Option<(Owner, Status)> {
        let topics = read(&self.sessions);
        let topic = lock(topics.get(&id)?);
        let latest = topic.latest.as_ref().filter(|_| !topic.gone)?;
        let mut status: Status = serde_json::from_slice(&latest.out.frame.json()).ok()?;
        status.segments = topic.segments();
        Some((topic.owner.clone()?, status))
    }

    /// Takes in the status of a session as the store has it, for all who watch it in any way.
    pub fn refresh(&self, owner: &Owner, status: &Status) {
        self.learn(owner, status);
        let out = Outgoing::stored(Frame::status(status));
        self.offer_to_owner(owner, status, &out, self.now());
    }

    /// Takes out a session that is gone, whoever owns it.
    pub fn forget(&self, id: SessionId) {
        if let Some(topic) = write(&self.sessions).remove(&id) {
            let mut topic = lock(&topic);
            topic.gone = true;
            topic.wake(self.now());
        }
        for topic in self.owner_topics() {
            lock(&topic).remove(id);
        }
    }

    /// Begins to hold a session. Do this before reading it from the store, and hand what was read to [`Hub::learn`].
    pub fn hold(&self, id: SessionId) {
        self.with_session(id, |topic| topic.used = self.now());
        self.want(id);
    }

    /// Takes in the status of a session as the store has it.
    pub fn learn(&self, owner: &Owner, status: &Status) {
        if let Some(topic) = read(&self.sessions).get(&status.session_id) {
            let mut topic = lock(topic);
            if topic.offer(owner, status, Outgoing::stored(Frame::status(status))) {
                topic.wake(self.now());
            }
        }
    }

    /// The newest statuses of an owner's sessions and a tag that changes with them, if the hub holds them.
    #[must_use]
    pub fn list(&self, owner: &Owner, since: Timestamp) -> Option<(u64, Vec<Frame>)> {
        let topics = read(&self.owners);
        let mut topic = lock(topics.get(owner)?);
        topic.used = self.now();
        topic.prune(since);
        topic.loaded.then(|| topic.statuses())
    }

    /// Begins to hold an owner's sessions. Do this before reading them, and hand them to [`Hub::learn_list`].
    pub fn hold_list(&self, owner: &Owner) {
        let mut topics = write(&self.owners);
        lock(topics.entry(owner.clone()).or_default()).used = self.now();
    }

    /// Takes in the statuses of an owner's sessions as the store has them.
    pub fn learn_list(&self, owner: &Owner, statuses: &[Status]) {
        let topics = read(&self.owners);
        let Some(mut topic) = topics.get(owner).map(|topic| lock(topic)) else { return };
        for status in statuses {
            topic.offer(status, &Outgoing::stored(Frame::status(status)));
            if !status.state.is_terminal() {
                self.want(status.session_id);
            }
        }
        topic.loaded = true;
        topic.wake(self.now());
    }

    /// Hands a change to every stream that watches. Returns whether it was news to any of them.
    pub fn publish(&self, event: &Event) -> bool {
        let published = Instant::now();
        match &event.change {
            Change::Status(status) => self.publish_status(&event.owner, status, published),
            Change::Segment(segment, Some(status)) => {
                let heard = self.publish_segment(&event.owner, segment, Some(status.version - 1), published);
                self.publish_status(&event.owner, status, published) || heard
            }
            Change::Segment(segment, None) => self.publish_segment(&event.owner, segment, None, published),
            Change::Deleted(id) => {
                if let Some(topic) = write(&self.sessions).remove(id) {
                    let mut topic = lock(&topic);
                    topic.gone = true;
                    topic.wake(self.now());
                }
                if let Some(topic) = read(&self.owners).get(&event.owner) {
                    lock(topic).remove(*id);
                }
                true
            }
        }
    }

    fn publish_status(&self, owner: &Owner, status: &Status, published: Instant) -> bool {
        let out = Outgoing { frame: Frame::status(status), published: Some(published) };
        let now = self.now();
        let known = self.if_held(owner, status.session_id, |topic| {
            topic.used = now;
            let news = topic.offer(owner, status, out.clone());
            if news {
                topic.wake(now);
            }
            news
        });
        // A session that was ended may be queued again.
        if known.is_some() && status.state == State::Queued {
            self.want(status.session_id);
        }
        self.offer_to_owner(owner, status, &out, now) || known == Some(true)
    }

    fn offer_to_owner(&self, owner: &Owner, status: &Status, out: &Outgoing, now: Ticks) -> bool {
        let topics = read(&self.owners);
        let Some(mut topic) = topics.get(owner).map(|topic| lock(topic)) else { return false };
        let open = topic.is_open(status.session_id);
        if !topic.offer(status, out) {
            return false;
        }
        topic.wake(now);
        if !open && !status.state.is_terminal() {
            self.want(status.session_id);
        }
        true
    }

    fn publish_segment(&self, owner: &Owner, segment: &SegmentEvent, version: Option<u64>, published: Instant) -> bool {
        let now = self.now();
        let announced = self.if_held(owner, segment.session_id, |topic| {
            topic.used = now;
            let version = version.unwrap_or_else(|| topic.version());
            let out = segment_frame(segment, version, published);
            topic.announce(segment.index, version, &out).then(|| {
                topic.wake(now);
                out
            })
        });
        let Some(out) = announced.flatten() else { return false };
        if let Some(topic) = read(&self.owners).get(owner) {
            let mut topic = lock(topic);
            topic.announce(&out);
            topic.wake(now);
        }
        true
    }

    /// Ends every stream with a `bye`, and those that come later.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        let now = self.now();
        for (_, topic) in self.topics() {
            lock(&topic).watchers.iter().for_each(|(_, slot)| slot.close(Close::Shutdown, now));
        }
        for topic in read(&self.owners).values() {
            lock(topic).watchers.iter().for_each(|(_, slot)| slot.close(Close::Shutdown, now));
        }
    }

    /// Ends the streams of an owner who logged out.
    pub fn log_out(&self, owner: &Owner) {
        let now = self.now();
        for topic in read(&self.sessions).values() {
            let topic = lock(topic);
            if topic.owner.as_ref() == Some(owner) {
                topic.watchers.iter().for_each(|(_, slot)| slot.close(Close::Logout, now));
            }
        }
        if let Some(topic) = read(&self.owners).get(owner) {
            lock(topic).watchers.iter().for_each(|(_, slot)| slot.close(Close::Logout, now));
        }
    }

    /// Moves the hub's clock on, and every second looks after the streams. Call it four times a second; more or fewer
    /// calls change only how finely it looks.
    pub async fn tick(&self) {
        let before = self.now();
        self.set_clock(self.started.elapsed());
        if before / PER_SECOND != self.now() / PER_SECOND {
            self.sweep().await;
        }
    }

    fn set_clock(&self, since_start: Duration) {
        let ticks = since_start.as_millis() * u128::from(PER_SECOND) / 1000 + 1;
        self.clock.store(u32::try_from(ticks).unwrap_or(u32::MAX), Relaxed);
    }

    /// Goes round in small steps, so that changes don't wait for it.
    async fn sweep(&self) {
        let now = self.now();
        *lock(&self.beat) = Frame::heartbeat(Timestamp::now());
        let old = |used: Ticks| now.saturating_sub(used) >= LINGER;
        let forgotten = |topic: &SessionTopic| topic.watchers.is_empty() && old(topic.used);
        let mut out = Vec::new();
        for step in self.topics().chunks(STEP) {
            for (id, topic) in step {
                let topic = lock(topic);
                let running = topic.is_running();
                topic.watchers.iter().for_each(|(_, slot)| self.look_after(slot, running, now));
                if forgotten(&topic) {
                    out.push(*id);
                }
            }
            tokio::task::yield_now().await;
        }
        if !out.is_empty() {
            let mut sessions = write(&self.sessions);
            for id in out {
                if sessions.get(&id).is_some_and(|topic| forgotten(&lock(topic))) {
                    sessions.remove(&id);
                }
            }
        }
        self.meters.entries(Scope::Session, read(&self.sessions).len());
        let forgotten = |topic: &OwnerTopic| topic.watchers.is_empty() && old(topic.used);
        let mut any_forgotten = false;
        for step in self.owner_topics().chunks(STEP) {
            for topic in step {
                let topic = lock(topic);
                let running = topic.is_running();
                topic.watchers.iter().for_each(|(_, slot)| self.look_after(slot, running, now));
                any_forgotten |= forgotten(&topic);
            }
            tokio::task::yield_now().await;
        }
        if any_forgotten {
            write(&self.owners).retain(|_, topic| !forgotten(&lock(topic)));
        }
        self.meters.entries(Scope::Owner, read(&self.owners).len());
    }

    /// Ends a stream whose time has come, or has it send a heartbeat.
    fn look_after(&self, slot: &Slot, running: bool, now: Ticks) {
        let quiet = |since: Ticks| now.saturating_sub(since);
        let idle = self.limits.idle_secs.saturating_mul(PER_SECOND);
        if slot.stuck_since().is_some_and(|since| quiet(since) >= STUCK) {
            slot.close(Close::Stalled, now);
        } else if now >= slot.expires {
            slot.close(Close::Lifetime, now);
        } else if !running && quiet(slot.last_told()) >= idle {
            slot.close(Close::Idle, now);
        } else if quiet(slot.last_sent()) >= HEARTBEAT {
            slot.beat(now);
        }
    }

    fn owner_topics(&self) -> Vec<Topic<OwnerTopic>> {
        read(&self.owners).values().cloned().collect()
    }

    fn topics(&self) -> Vec<(SessionId, Topic<SessionTopic>)> {
        read(&self.sessions).iter().map(|(id, topic)| (*id, Arc::clone(topic))).collect()
    }

    // For streams

    pub(super) fn now(&self) -> Ticks {
        self.clock.load(Relaxed)
    }

    pub(super) fn heartbeat(&self) -> Frame {
        lock(&self.beat).clone()
    }

    fn slot(&self, peer: Option<Arc<Peer>>) -> Arc<Slot> {
        let now = self.now();
        let lifetime = self.limits.lifetime_secs.saturating_mul(PER_SECOND);
        let spread = lifetime / 5;
        let expires = now.saturating_add(rand::rng().random_range(lifetime - spread..=lifetime + spread));
        if let Some(peer) = &peer {
            peer.streams();
        }
        Arc::new(Slot::new(now, expires, peer))
    }

    pub(super) fn watch_session(self: &Arc<Self>, id: SessionId, peer: Option<Arc<Peer>>) -> Watch<SessionTopic> {
        let slot = self.slot(peer);
        let mut topics = write(&self.sessions);
        let topic = Arc::clone(topics.entry(id).or_default());
        let key = lock(&topic).watchers.insert(Arc::clone(&slot));
        drop(topics);
        self.want(id);
        self.watching(topic, slot, key)
    }

    pub(super) fn watch_owner(self: &Arc<Self>, owner: &Owner, peer: Option<Arc<Peer>>) -> Watch<OwnerTopic> {
        let slot = self.slot(peer);
        let mut topics = write(&self.owners);
        let topic = Arc::clone(topics.entry(owner.clone()).or_default());
        let key = lock(&topic).watchers.insert(Arc::clone(&slot));
        drop(topics);
        self.watching(topic, slot, key)
    }

    fn watching<T: Watched>(self: &Arc<Self>, topic: Topic<T>, slot: Arc<Slot>, key: usize) -> Watch<T> {
        self.meters.opened(T::SCOPE);
        if self.closed.load(Relaxed) {
            slot.close(Close::Shutdown, self.now());
        }
        Watch { hub: Arc::clone(self), topic, slot, key: key as u32, end: Close::Client }
    }

    /// Changes a session's topic for a change that is published: made if there is none, so that polls find it here. With
    /// other nodes only if somebody here watches it or asks for it, for each has to be listened for.
    fn if_held<R>(&self, owner: &Owner, id: SessionId, change: impl FnOnce(&mut SessionTopic) -> R) -> Option<R> {
        (self.wants.get().is_none() || self.is_held(owner, id)).then(|| self.with_session(id, change))
    }

    /// Changes a session's topic, made if there is none. The table stays locked meanwhile, so that the sweep can't take
    /// out what is being changed.
    fn with_session<R>(&self, id: SessionId, change: impl FnOnce(&mut SessionTopic) -> R) -> R {
        {
            let topics = read(&self.sessions);
            if let Some(topic) = topics.get(&id) {
                return change(&mut lock(topic));
            }
        }
        let mut topics = write(&self.sessions);
        change(&mut lock(topics.entry(id).or_default()))
    }
}

/// A session's newest status as the hub holds it.
#[derive(Clone, Debug)]
pub struct Current {
    pub owner: Owner,
    pub version: u64,
    pub segments: u32,
    pub ended: bool,
    /// Its event; [`Frame::json`] is the status.
    pub frame: Frame,
}

/// What can be watched.
pub(super) trait Watched {
    const SCOPE: Scope;
    fn watchers(&mut self) -> &mut slab::Slab<Arc<Slot>>;
}

impl Watched for SessionTopic {
    const SCOPE: Scope = Scope::Session;
    fn watchers(&mut self) -> &mut slab::Slab<Arc<Slot>> {
        &mut self.watchers
    }
}

impl Watched for OwnerTopic {
    const SCOPE: Scope = Scope::Owner;
    fn watchers(&mut self) -> &mut slab::Slab<Arc<Slot>> {
        &mut self.watchers
    }
}

/// A stream's place in the hub. Dropping it takes the stream out.
pub(super) struct Watch<T: Watched> {
    pub(super) hub: Arc<Hub>,
    pub(super) topic: Topic<T>,
    pub(super) slot: Arc<Slot>,
    key: u32,
    /// Why it ended, as far as is known: that of a stream which is dropped is that its client went away.
    pub(super) end: Close,
}

impl<T: Watched> Drop for Watch<T> {
    fn drop(&mut self) {
        lock(&self.topic).watchers().try_remove(self.key as usize);
        let why = self.slot.closing().unwrap_or(self.end);
        self.hub.meters.closed(T::SCOPE, why);
    }
}

/// A `bye` with a wait of its own.
pub(super) fn bye(reason: Bye) -> Frame {
    let range = if reason == Bye::Limit { RETRY_REFUSED_MS } else { RETRY_MS };
    Frame::bye(reason, rand::rng().random_range(range))
}

/// The first words of a stream.
pub(super) fn retry() -> Frame {
    Frame::retry(rand::rng().random_range(RETRY_MS))
}
