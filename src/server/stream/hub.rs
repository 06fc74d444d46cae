//! The hub knows who watches what and fans changes out: a change is encoded once, kept as the newest of its session,
//! and every stream that watches is woken to take a clone. A sweep every second handles heartbeats, lifetimes and
//! stalled clients.

use super::{
    Bye, Frame, Kind, Outgoing,
    lock::{lock, read, write},
    meters::{Meters, Scope},
    permits::{PermitLimits, Refusal, StreamPermit, StreamPermits},
    slot::{CloseReason, Slot},
    socket::Peer,
    ticks::{Clock, PER_SECOND, Ticks},
    topic::{DashboardTopic, Latest, LatestDashboard, ModelsTopic, OwnerTopic, SessionTopic, segment_frame},
};
use crate::{
    model::{
        SegmentEvent, SessionId, State, Status, Timestamp, dashboard::Dashboard, figures::Range, page::ModelsInfo,
    },
    server::{
        event::{Change, Event},
        hours::StreamTotals,
        owner::Owner,
        shares::Standing,
        sightings::Sightings,
        store::recent_cutoff_at,
        telemetry::{lines, traces::Delivery},
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
use tracing::Span;

/// A client that reads nothing for this long is disconnected.
const STALL_TIMEOUT: Ticks = 10 * PER_SECOND;
/// A topic that nobody watches, asks for or publishes to is dropped after this long. Longer than the store may lag
/// behind.
const TOPIC_IDLE_TIMEOUT: Ticks = 60 * PER_SECOND;
/// The dashboard's watchers hear of it at least this often, so that they know when it was counted.
const DASHBOARD_INTERVAL: Ticks = 10 * PER_SECOND;
/// How many topics the sweep checks before it yields to other tasks.
const SWEEP_BATCH: usize = 64;

/// How long a client should wait before it reconnects, in milliseconds. Random, so that a thousand clients don't come
/// back at once.
const RETRY_MS: RangeInclusive<u32> = 250..=750;
/// The same after a refusal: what it was for doesn't end within a second.
const RETRY_REFUSED_MS: RangeInclusive<u32> = 20_000..=40_000;

/// How long streams live, and how many there may be.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Of one owner, on this node.
    pub per_owner: u32,
    /// Of the newcomers at one address, on this node.
    pub per_address: u32,
    /// Of all newcomers, on this node.
    pub newcomers: u32,
    /// Of all, on this node.
    pub per_node: u32,
    /// Seconds a stream lives, plus or minus a fifth.
    pub lifetime_secs: u32,
    /// Seconds without any event but heartbeats after which a stream is closed, unless a session that it covers is
    /// processing.
    pub idle_secs: u32,
    /// Seconds of silence after which a stream sends a heartbeat, so that both ends notice a dead connection. A stream of
    /// all sessions, which is what pages read, waits for [`BUSY_HEARTBEAT_SECS`] at most while one of them is processing.
    pub heartbeat_secs: u32,
}

/// The longest silence of a stream of all sessions while one of them is processing. Such a session has news every second,
/// so few of these heartbeats are ever sent; a page notices a dead connection after two. Programs, which read streams of
/// single sessions, may have workers that report every few seconds: a heartbeat between any two reports would double
/// what is sent, for nobody who looks at it.
const BUSY_HEARTBEAT_SECS: u32 = 3;

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            per_owner: 6,
            per_address: 32,
            newcomers: 10_000,
            per_node: 20_000,
            lifetime_secs: 300,
            idle_secs: 300,
            heartbeat_secs: 15,
        }
    }
}

type Topic<T> = Arc<Mutex<T>>;

/// All streams of this node, and the topics that they watch.
#[derive(Debug)]
pub struct Hub {
    limits: StreamLimits,
    sessions: RwLock<HashMap<SessionId, Topic<SessionTopic>>>,
    owners: RwLock<HashMap<Owner, Topic<OwnerTopic>>>,
    models: Topic<ModelsTopic>,
    /// One for each range.
    dashboards: [Topic<DashboardTopic>; Range::ALL.len()],
    permits: Arc<StreamPermits>,
    closed: AtomicBool,
    /// Receives the id of each session that the hub begins to hold. Set if changes also come from other nodes.
    subscribe: OnceLock<UnboundedSender<SessionId>>,
    clock: Clock,
    started: Instant,
    /// The heartbeats of streams that cover nothing that is processing, and of those that do.
    heartbeats: Mutex<[Frame; 2]>,
    pub(super) meters: Meters,
    /// Whether what streams do is measured.
    pub(super) is_measured: bool,
    /// The node's span, which names it in the lines about streams. A span in each stream would take 40 bytes.
    pub(super) span: Span,
    sightings: Sightings,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(StreamLimits::default())
    }
}

impl Hub {
    /// Makes a hub without streams. [`Hub::tick`] must be called four times a second.
    #[must_use]
    pub fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            sessions: RwLock::default(),
            owners: RwLock::default(),
            models: Topic::default(),
            dashboards: Default::default(),
            permits: Arc::new(StreamPermits::new(PermitLimits {
                owner: limits.per_owner,
                address: limits.per_address,
                newcomers: limits.newcomers,
                node: limits.per_node,
            })),
            closed: AtomicBool::new(false),
            subscribe: OnceLock::new(),
            // Starts at 1, because a slot takes 0 for "never".
            clock: Arc::new(AtomicU32::new(1)),
            started: Instant::now(),
            heartbeats: Mutex::new(heartbeats(&limits, Timestamp::now())),
            meters: Meters::new(),
            is_measured: true,
            span: Span::current(),
            sightings: Sightings::default(),
        }
    }

    /// The same, whose streams are not measured.
    #[must_use]
    pub fn unmeasured(limits: StreamLimits) -> Self {
        Self { is_measured: false, ..Self::new(limits) }
    }

    /// The pages that this node and the others saw.
    #[must_use]
    pub fn sightings(&self) -> &Sightings {
        &self.sightings
    }

    /// How many streams are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.permits.taken()
    }

    /// What was counted of streams since the node started.
    #[must_use]
    pub fn totals(&self) -> StreamTotals {
        self.meters.totals()
    }

    /// The state of a new connection, by which a stalled stream on it can be disconnected.
    #[must_use]
    pub fn peer(&self) -> Arc<Peer> {
        Arc::new(Peer::new(Arc::clone(&self.clock)))
    }

    /// Takes a permit for a stream of this owner.
    ///
    /// # Errors
    /// If the limit of the owner, its address, all newcomers or the node is reached.
    pub fn admit(&self, owner: &Owner, standing: Standing) -> Result<StreamPermit, Refusal> {
        let permit = StreamPermits::take(&self.permits, owner, standing);
        if let Err(refusal) = &permit {
            self.meters.refused(*refusal);
            if lines::REFUSED_STREAMS.admit() {
                let (limit, owner) = (refusal.as_str(), owner.pseudonym());
                tracing::info!(limit, owner, "a status stream was refused: the limit of {limit} is reached");
            }
        }
        permit
    }

    /// The owner of a session, if the hub holds it.
    #[must_use]
    pub fn owner_of(&self, id: SessionId) -> Option<Owner> {
        let topics = read(&self.sessions);
        let topic = lock(topics.get(&id)?);
        topic.owner.clone().filter(|_| !topic.gone && topic.latest.is_some())
    }

    /// The newest status of a session, if the hub holds it: owner, version, segments announced, whether it has ended,
    /// and the JSON, which counts all these segments.
    #[must_use]
    pub fn current(&self, id: SessionId) -> Option<Current> {
        let topics = read(&self.sessions);
        let mut topic = lock(topics.get(&id)?);
        topic.used = self.now();
        if topic.gone {
            return None;
        }
        let (owner, segments) = (topic.owner.clone()?, topic.segments());
        let latest = topic.latest.as_ref()?;
        Some(Current {
            owner,
            version: latest.version,
            segments,
            ended: latest.state.is_terminal(),
            frame: latest.counting(segments),
        })
    }

    /// Says that changes come from other nodes too. From now on, `subscribe` receives the ids of the sessions to
    /// subscribe to, and changes published here are kept only if somebody watches or asks for them.
    pub fn subscribe_remote(&self, subscribe: UnboundedSender<SessionId>) {
        // Ignored: a second call would come from a second bus, which a node doesn't have.
        let _ = self.subscribe.set(subscribe);
    }

    fn request_subscription(&self, id: SessionId) {
        if let Some(subscribe) = self.subscribe.get() {
            let _ = subscribe.send(id); // fails only while the node stops
        }
    }

    /// The sessions that are watched or asked for and haven't ended, with the lowest version and number of segments
    /// that any of their watchers knows.
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

    /// The owners of whom all sessions are watched or asked for.
    #[must_use]
    pub fn held_owners(&self) -> Vec<Owner> {
        let topics = read(&self.owners);
        topics.iter().filter(|(_, topic)| lock(topic).loaded).map(|(owner, _)| owner.clone()).collect()
    }

    /// The version of a session that the watchers of all its owner's sessions know, if any.
    #[must_use]
    pub fn known_to_owner(&self, owner: &Owner, id: SessionId) -> Option<u64> {
        read(&self.owners).get(owner).and_then(|topic| lock(topic).version_of(id))
    }

    /// Whether anybody here watches or asks for a session, alone or with all others of its owner.
    #[must_use]
    pub fn is_held(&self, owner: &Owner, id: SessionId) -> bool {
        read(&self.sessions).contains_key(&id) || read(&self.owners).contains_key(owner)
    }

    /// The version of a session's newest status, if the hub holds it.
    #[must_use]
    pub fn version_of(&self, id: SessionId) -> Option<u64> {
        read(&self.sessions).get(&id).and_then(|topic| lock(topic).latest.as_ref().map(|latest| latest.version))
    }

    /// Owner and newest status of a session, if the hub holds it; its count of segments includes all that were
    /// announced.
    #[must_use]
    pub fn newest(&self, id: SessionId) -> Option<(Owner, Status)> {
        let topics = read(&self.sessions);
        let topic = lock(topics.get(&id)?);
        let latest = topic.latest.as_ref().filter(|_| !topic.gone)?;
        let mut status: Status = serde_json::from_slice(&latest.out.frame.json()).ok()?;
        status.segments = topic.segments();
        Some((topic.owner.clone()?, status))
    }

    /// Whether the newest status of a session came as a change, and not from the store.
    #[must_use]
    pub fn is_announced(&self, id: SessionId) -> bool {
        let topics = read(&self.sessions);
        topics.get(&id).is_some_and(|topic| lock(topic).latest.as_ref().is_some_and(|l| l.out.published.is_some()))
    }

    /// Takes in a status read from the store, for the watchers of its session and of all its owner's sessions.
    pub fn refresh(&self, owner: &Owner, status: &Status) {
        self.learn(owner, status);
        let out = Outgoing::stored(Frame::status(status));
        self.offer_to_owner(owner, status, &out, self.now());
    }

    /// The same, and holds the session if anybody watches it, alone or with all others of its owner: the next changes come
    /// as messages that say only what is new.
    pub fn keep(&self, owner: &Owner, status: &Status) {
        if self.is_held(owner, status.session_id) {
            self.with_session(status.session_id, |topic| topic.used = self.now());
        }
        self.refresh(owner, status);
    }

    /// Drops a session that was deleted, whoever owns it.
    pub fn forget(&self, id: SessionId) {
        if let Some(topic) = write(&self.sessions).remove(&id) {
            let mut topic = lock(&topic);
            topic.gone = true;
            topic.wake(self.now());
        }
        for topic in self.owner_topics() {
            let mut topic = lock(&topic);
            if topic.remove(id) {
                topic.notice(id, Outgoing::stored(Frame::deleted(id)), self.now());
            }
        }
    }

    /// Begins to hold a session. Call this before reading the session from the store, and pass what was read to
    /// [`Hub::learn`].
    pub fn hold(&self, id: SessionId) {
        self.with_session(id, |topic| topic.used = self.now());
        self.request_subscription(id);
    }

    /// Takes in a status read from the store, for the watchers of its session.
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

    /// Begins to hold an owner's sessions. Call this before reading them from the store, and pass them to
    /// [`Hub::learn_list`].
    pub fn hold_list(&self, owner: &Owner) {
        let mut topics = write(&self.owners);
        lock(topics.entry(owner.clone()).or_default()).used = self.now();
    }

    /// Takes in the statuses of an owner's sessions, read from the store. The hub may hold newer ones, because progress of
    /// outside workers is stored late.
    pub fn learn_list(&self, owner: &Owner, statuses: &[Status]) {
        let ids: Vec<SessionId> = statuses.iter().map(|status| status.session_id).collect();
        let newest = |(id, topic): (SessionId, Topic<SessionTopic>)| {
            let topic = lock(&topic);
            let (latest, segments) = (topic.latest.clone()?, topic.segments());
            let out = Outgoing::stored(latest.out.frame.clone());
            Some((id, Latest { out, segments, ..latest }))
        };
        let held: Vec<(SessionId, Latest)> = self.topics_of(&ids).into_iter().filter_map(newest).collect();
        let topics = read(&self.owners);
        let Some(mut topic) = topics.get(owner).map(|topic| lock(topic)) else { return };
        for status in statuses {
            topic.offer(status, &Outgoing::stored(Frame::status(status)));
            if !status.state.is_terminal() {
                self.request_subscription(status.session_id);
            }
        }
        for (id, latest) in held {
            topic.adopt(id, latest);
        }
        topic.loaded = true;
        topic.wake(self.now());
    }

    /// Publishes a change to every stream that watches. Returns whether it was new to any of them.
    pub fn publish(&self, event: &Event) -> bool {
        let published = Instant::now();
        match &event.change {
            Change::Status(status) => self.publish_status(&event.owner, status, published),
            Change::Segment(segment, Some(status)) => {
                let segment_is_new = self.publish_segment(&event.owner, segment, Some(status.version - 1), published);
                self.publish_status(&event.owner, status, published) || segment_is_new
            }
            Change::Segment(segment, None) => self.publish_segment(&event.owner, segment, None, published),
            Change::Deleted(id) => {
                if let Some(topic) = write(&self.sessions).remove(id) {
                    let mut topic = lock(&topic);
                    topic.gone = true;
                    topic.wake(self.now());
                }
                self.notify_owner(&event.owner, *id, Frame::deleted(*id), published);
                true
            }
            Change::Renamed(id, title) => self.notify_owner(&event.owner, *id, Frame::renamed(*id, title), published),
        }
    }

    /// Sends the watchers of all an owner's sessions something about one of them that isn't in its status. Returns whether
    /// anybody watches or asks for them.
    fn notify_owner(&self, owner: &Owner, id: SessionId, frame: Frame, published: Instant) -> bool {
        let topics = read(&self.owners);
        let Some(mut topic) = topics.get(owner).map(|topic| lock(topic)) else { return false };
        if frame.kind() == Kind::Deleted {
            topic.remove(id);
        }
        topic.notice(id, Outgoing::live(frame, published, None), self.now());
        true
    }

    fn publish_status(&self, owner: &Owner, status: &Status, published: Instant) -> bool {
        // The end stands for all statuses, which come every second.
        let ends = status.state.is_terminal();
        let delivery = if ends { Delivery::begin(status.session_id, "end", published) } else { None };
        let out = Outgoing::live(Frame::status(status), published, delivery);
        let now = self.now();
        let is_new = self.if_held(owner, status.session_id, |topic| {
            topic.used = now;
            let is_new = topic.offer(owner, status, out.clone());
            if is_new {
                topic.wake(now);
            }
            is_new
        });
        // A session that had ended may be queued again.
        if is_new.is_some() && status.state == State::Queued {
            self.request_subscription(status.session_id);
        }
        self.offer_to_owner(owner, status, &out, now) || is_new == Some(true)
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
            self.request_subscription(status.session_id);
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
            if version.is_none() {
                topic.count(segment.session_id, segment.index + 1);
            }
            topic.wake(now);
        }
        true
    }

    /// Publishes what is known of Whisper's models, if it is new. Returns its version and its JSON.
    pub fn publish_models(&self, info: &ModelsInfo) -> (u64, bytes::Bytes) {
        let mut topic = lock(&self.models);
        // Begins with the time, so that versions grow over restarts too.
        let version = topic.latest.as_ref().map_or(Timestamp::now().0.unsigned_abs(), |(version, _)| version + 1);
        let frame = Frame::models(info, version);
        if let Some((known, out)) = topic.latest.as_ref().filter(|(_, out)| out.frame.json() == frame.json()) {
            return (*known, out.frame.json());
        }
        let json = frame.json();
        topic.latest = Some((version, Outgoing::live(frame, Instant::now(), None)));
        topic.running = info.is_running();
        let now = self.now();
        topic.watchers.iter().for_each(|(_, slot)| slot.wake(now));
        (version, json)
    }

    /// Whether a model is on its way, as far as was published.
    #[must_use]
    pub fn models_are_running(&self) -> bool {
        lock(&self.models).running
    }

    /// Whether anybody watches the models.
    #[must_use]
    pub fn models_are_watched(&self) -> bool {
        !lock(&self.models).watchers.is_empty()
    }

    /// Publishes the dashboard of a range, if it says something new or nothing was published for a while.
    pub fn publish_dashboard(&self, dashboard: Dashboard) {
        let now = self.now();
        let mut topic = lock(self.dashboard(dashboard.range));
        let number = match &topic.latest {
            Some(latest) if latest.dashboard.says_the_same(&dashboard) && now < latest.at + DASHBOARD_INTERVAL => {
                return;
            }
            Some(latest) => latest.number + 1,
            None => 1,
        };
        let out = Outgoing::stored(Frame::overview(&dashboard));
        topic.latest = Some(LatestDashboard { number, dashboard, at: now, out });
        topic.watchers.iter().for_each(|(_, slot)| slot.wake(now));
    }

    /// The ranges whose dashboards are watched.
    #[must_use]
    pub fn watched_dashboards(&self) -> Vec<Range> {
        Range::ALL.into_iter().filter(|range| !lock(self.dashboard(*range)).watchers.is_empty()).collect()
    }

    /// Ends the streams of all administrators, because one has signed out. The others come back.
    pub fn end_dashboards(&self) {
        self.close_dashboards(CloseReason::Logout);
    }

    fn close_dashboards(&self, why: CloseReason) {
        let now = self.now();
        for topic in &self.dashboards {
            lock(topic).watchers.iter().for_each(|(_, slot)| slot.close(why, now));
        }
    }

    fn dashboard(&self, range: Range) -> &Topic<DashboardTopic> {
        &self.dashboards[range as usize]
    }

    /// Ends all streams with a `bye`, those that are opened later too.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        let now = self.now();
        for (_, topic) in self.topics() {
            lock(&topic).watchers.iter().for_each(|(_, slot)| slot.close(CloseReason::Shutdown, now));
        }
        for topic in read(&self.owners).values() {
            lock(topic).watchers.iter().for_each(|(_, slot)| slot.close(CloseReason::Shutdown, now));
        }
        lock(&self.models).watchers.iter().for_each(|(_, slot)| slot.close(CloseReason::Shutdown, now));
        self.close_dashboards(CloseReason::Shutdown);
    }

    /// Ends the streams of an owner who logged out.
    pub fn log_out(&self, owner: &Owner) {
        let now = self.now();
        for topic in read(&self.sessions).values() {
            let topic = lock(topic);
            if topic.owner.as_ref() == Some(owner) {
                topic.watchers.iter().for_each(|(_, slot)| slot.close(CloseReason::Logout, now));
            }
        }
        if let Some(topic) = read(&self.owners).get(owner) {
            lock(topic).watchers.iter().for_each(|(_, slot)| slot.close(CloseReason::Logout, now));
        }
    }

    /// Advances the hub's clock, and checks the streams once a second. Call it four times a second; another rate
    /// changes only the precision.
    pub async fn tick(&self) {
        self.tick_at(self.started.elapsed(), Timestamp::now()).await;
    }

    /// As [`Hub::tick`], by another clock than the system's: so long after the hub was made, at this time. For tests and
    /// measurements, in which hours pass in seconds.
    pub async fn tick_at(&self, since_start: Duration, time: Timestamp) {
        let before = self.now();
        self.set_clock(since_start);
        if before / PER_SECOND != self.now() / PER_SECOND {
            self.sweep(time).await;
        }
    }

    fn set_clock(&self, since_start: Duration) {
        let ticks = since_start.as_millis() * u128::from(PER_SECOND) / 1000 + 1;
        self.clock.store(u32::try_from(ticks).unwrap_or(u32::MAX), Relaxed);
    }

    /// Checks all topics in small batches, so that changes don't wait for it.
    async fn sweep(&self, time: Timestamp) {
        let now = self.now();
        *lock(&self.heartbeats) = heartbeats(&self.limits, time);
        let is_old = |used: Ticks| now.saturating_sub(used) >= TOPIC_IDLE_TIMEOUT;
        let is_expired = |topic: &SessionTopic| topic.watchers.is_empty() && is_old(topic.used);
        // Only their ids, which lie side by side: to take hold of a hundred thousand topics would take many milliseconds.
        let ids: Vec<SessionId> = read(&self.sessions).keys().copied().collect();
        for step in ids.chunks(SWEEP_BATCH) {
            let mut expired = Vec::new();
            for (id, topic) in self.topics_of(step) {
                let topic = lock(&topic);
                let running = topic.is_running();
                topic.watchers.iter().for_each(|(_, slot)| self.check_stream(slot, running, false, now));
                if is_expired(&topic) {
                    expired.push(id);
                }
            }
            if !expired.is_empty() {
                let mut sessions = write(&self.sessions);
                for id in expired {
                    if sessions.get(&id).is_some_and(|topic| is_expired(&lock(topic))) {
                        sessions.remove(&id);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        self.meters.entries(Scope::Session, read(&self.sessions).len());
        let is_expired = |topic: &OwnerTopic| topic.watchers.is_empty() && is_old(topic.used);
        let owners: Vec<Owner> = read(&self.owners).keys().cloned().collect();
        for step in owners.chunks(SWEEP_BATCH) {
            let mut expired = Vec::new();
            for owner in step {
                let Some(topic) = read(&self.owners).get(owner).cloned() else { continue };
                let mut topic = lock(&topic);
                topic.expire_notices(now);
                topic.prune(recent_cutoff_at(time));
                let running = topic.is_running();
                topic.watchers.iter().for_each(|(_, slot)| self.check_stream(slot, running, running, now));
                if is_expired(&topic) {
                    expired.push(owner);
                }
            }
            if !expired.is_empty() {
                let mut owners = write(&self.owners);
                for owner in expired {
                    if owners.get(owner).is_some_and(|topic| is_expired(&lock(topic))) {
                        owners.remove(owner);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        self.meters.entries(Scope::Owner, read(&self.owners).len());
        let topic = lock(&self.models);
        topic.watchers.iter().for_each(|(_, slot)| self.check_stream(slot, topic.running, false, now));
        drop(topic);
        for topic in &self.dashboards {
            // Something comes every few seconds, so none is idle.
            lock(topic).watchers.iter().for_each(|(_, slot)| self.check_stream(slot, true, false, now));
        }
    }

    /// Ends a stream that has reached a limit, or requests a heartbeat.
    /// `running`: something may happen at any time, so the stream isn't idle. `busy`: a session is processing.
    fn check_stream(&self, slot: &Slot, running: bool, busy: bool, now: Ticks) {
        let elapsed = |since: Ticks| now.saturating_sub(since);
        let idle = self.limits.idle_secs.saturating_mul(PER_SECOND);
        if slot.stalled_since().is_some_and(|since| elapsed(since) >= STALL_TIMEOUT) {
            slot.close(CloseReason::Stalled, now);
        } else if now >= slot.expires {
            slot.close(CloseReason::Lifetime, now);
        } else if !running && elapsed(slot.last_event()) >= idle {
            slot.close(CloseReason::Idle, now);
        } else {
            // What the last heartbeat promised is kept, also once nothing is processing any more.
            let secs = heartbeat_secs(&self.limits, busy || slot.beats_fast());
            if elapsed(slot.last_sent()) >= secs.saturating_mul(PER_SECOND) {
                slot.request_heartbeat(busy, now);
            }
        }
    }

    fn owner_topics(&self) -> Vec<Topic<OwnerTopic>> {
        read(&self.owners).values().cloned().collect()
    }

    /// Those of these sessions that the hub still holds.
    fn topics_of(&self, ids: &[SessionId]) -> Vec<(SessionId, Topic<SessionTopic>)> {
        let topics = read(&self.sessions);
        ids.iter().filter_map(|id| Some((*id, Arc::clone(topics.get(id)?)))).collect()
    }

    fn topics(&self) -> Vec<(SessionId, Topic<SessionTopic>)> {
        read(&self.sessions).iter().map(|(id, topic)| (*id, Arc::clone(topic))).collect()
    }

    // For streams

    /// Microseconds from the hub's start to a time.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn now(&self) -> Ticks {
        self.clock.load(Relaxed)
    }

    /// The heartbeat of a stream, by whether it promises another one soon.
    pub(super) fn heartbeat(&self, fast: bool) -> Frame {
        lock(&self.heartbeats)[usize::from(fast)].clone()
    }

    fn slot(&self, peer: Option<Arc<Peer>>) -> Arc<Slot> {
        let now = self.now();
        let lifetime = self.limits.lifetime_secs.saturating_mul(PER_SECOND);
        let spread = lifetime / 5;
        let expires = now.saturating_add(rand::rng().random_range(lifetime - spread..=lifetime + spread));
        if let Some(peer) = &peer {
            peer.mark_stream();
        }
        Arc::new(Slot::new(now, expires, peer))
    }

    pub(super) fn watch_session(self: &Arc<Self>, id: SessionId, peer: Option<Arc<Peer>>) -> Watch<SessionTopic> {
        let slot = self.slot(peer);
        let mut topics = write(&self.sessions);
        let topic = Arc::clone(topics.entry(id).or_default());
        let key = lock(&topic).watchers.insert(Arc::clone(&slot));
        drop(topics);
        self.request_subscription(id);
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

    pub(super) fn watch_models(self: &Arc<Self>, peer: Option<Arc<Peer>>) -> Watch<ModelsTopic> {
        let slot = self.slot(peer);
        let topic = Arc::clone(&self.models);
        let key = lock(&topic).watchers.insert(Arc::clone(&slot));
        self.watching(topic, slot, key)
    }

    pub(super) fn watch_dashboard(self: &Arc<Self>, range: Range, peer: Option<Arc<Peer>>) -> Watch<DashboardTopic> {
        let slot = self.slot(peer);
        let topic = Arc::clone(self.dashboard(range));
        let key = lock(&topic).watchers.insert(Arc::clone(&slot));
        self.watching(topic, slot, key)
    }

    fn watching<T: Watched>(self: &Arc<Self>, topic: Topic<T>, slot: Arc<Slot>, key: usize) -> Watch<T> {
        self.meters.opened(T::SCOPE);
        if self.closed.load(Relaxed) {
            slot.close(CloseReason::Shutdown, self.now());
        }
        Watch { hub: Arc::clone(self), topic, slot, key: key as u32, end_reason: CloseReason::Client }
    }

    /// Updates a session's topic with a published change. A missing topic is made, so that polls are answered from
    /// here; with other nodes only if somebody here watches or asks for the session, because each topic needs a
    /// subscription.
    fn if_held<R>(&self, owner: &Owner, id: SessionId, change: impl FnOnce(&mut SessionTopic) -> R) -> Option<R> {
        (self.subscribe.get().is_none() || self.is_held(owner, id)).then(|| self.with_session(id, change))
    }

    /// Updates a session's topic, made if there is none. The table stays locked meanwhile, so that the sweep can't drop
    /// the topic.
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
    /// Its `status` event; [`Frame::json`] is the status alone.
    pub frame: Frame,
}

/// A topic that can be watched.
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

impl Watched for ModelsTopic {
    const SCOPE: Scope = Scope::Models;
    fn watchers(&mut self) -> &mut slab::Slab<Arc<Slot>> {
        &mut self.watchers
    }
}

impl Watched for DashboardTopic {
    const SCOPE: Scope = Scope::Dashboard;
    fn watchers(&mut self) -> &mut slab::Slab<Arc<Slot>> {
        &mut self.watchers
    }
}

/// A stream's registration in the hub. Dropping it removes the stream.
pub(super) struct Watch<T: Watched> {
    pub(super) hub: Arc<Hub>,
    pub(super) topic: Topic<T>,
    pub(super) slot: Arc<Slot>,
    key: u32,
    /// Why the stream ended. A stream that is dropped without another reason ended because its client went away.
    pub(super) end_reason: CloseReason,
}

impl<T: Watched> Drop for Watch<T> {
    fn drop(&mut self) {
        lock(&self.topic).watchers().try_remove(self.key as usize);
        self.hub.meters.closed(T::SCOPE, self.close_reason());
    }
}

impl<T: Watched> Watch<T> {
    pub(super) fn close_reason(&self) -> CloseReason {
        self.slot.closing().unwrap_or(self.end_reason)
    }
}

/// After how many seconds of silence a stream sends a heartbeat.
fn heartbeat_secs(limits: &StreamLimits, busy: bool) -> u32 {
    if busy { limits.heartbeat_secs.min(BUSY_HEARTBEAT_SECS) } else { limits.heartbeat_secs }
}

/// The heartbeats of this second. Streams are checked once a second, so a heartbeat comes up to a second late.
fn heartbeats(limits: &StreamLimits, now: Timestamp) -> [Frame; 2] {
    [false, true].map(|busy| Frame::heartbeat(now, heartbeat_secs(limits, busy) + 1))
}

/// A `bye` with a random wait before the reconnect.
pub(super) fn bye(reason: Bye) -> Frame {
    let refused = matches!(reason, Bye::Limit | Bye::Polling);
    let range = if refused { RETRY_REFUSED_MS } else { RETRY_MS };
    Frame::bye(reason, rand::rng().random_range(range))
}

/// The first frame of a stream.
pub(super) fn retry() -> Frame {
    Frame::retry(rand::rng().random_range(RETRY_MS))
}
