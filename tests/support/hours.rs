//! Hours of status streams in seconds: a hub whose clock is advanced by hand, a worker that changes sessions until they end and
//! others take their places, and clients that keep streams open as browsers do, without a network. Every event is checked.
//! Used by `tests/hours.rs` and by `benches/hub`.
#![allow(dead_code, unreachable_pub, reason = "each program uses a part")]

use futures::{executor::block_on, future};
use hark::{
    model::{EventId, Segment, SessionId, Stage, State, Status, Timestamp},
    server::{
        event::Event,
        owner::Owner,
        shares::Standing,
        store::{SEGMENT_PAGE, recent_cutoff_at},
        stream::{Hub, Kind, Outgoing, Source, SourceFuture, StatusStream, StreamLimits},
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use uuid::Uuid;

/// The hub's clock is advanced by this much at a time, as a node does it.
pub const STEP: Duration = Duration::from_millis(250);
/// Every so many changes of a session, one is a segment.
const CHANGES_PER_SEGMENT: u64 = 15;
/// Every so many clients, one reads only every few seconds.
const SLOW_EVERY: usize = 20;
const SLOW_INTERVAL: Duration = Duration::from_secs(4);
/// Every so many clients, one leaves its streams again and again: it closes them, or reads nothing any more.
const LEAVES_EVERY: usize = 10;
/// How long a client reads nothing, which is longer than the hub lets it.
const STALL: Duration = Duration::from_secs(15);
/// The longest silence of a stream that is open: heartbeats come every 15 s, and streams are checked every second.
const SILENCE: Duration = Duration::from_secs(17);

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub owners: usize,
    pub sessions: usize,
    /// Streams: one of all sessions for each owner, the others of single sessions.
    pub streams: usize,
    /// Between two changes of a session; a multiple of [`STEP`].
    pub interval: Duration,
    /// From the first change of a session to its end, plus or minus a fifth.
    pub life: Duration,
}

/// What the clients have counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub published: u64,
    pub delivered: u64,
    /// The changes that were replaced by a newer one while a stream was open.
    pub conflated: u64,
    pub segments: u64,
    pub heartbeats: u64,
    pub opened: u64,
    /// How streams ended, and how often.
    pub ends: BTreeMap<&'static str, u64>,
    /// The sessions whose stream ended before it had told the last change and all segments.
    pub missed: u64,
    /// Events that came twice, late or with a gap before them, and ended sessions told of long after their end.
    pub wrong: u64,
    /// Streams that were silent for longer than they may be, and streams that ended without a reason.
    pub broken: u64,
    /// What went wrong first.
    pub troubles: Vec<String>,
}

impl Counts {
    fn trouble(&mut self, what: impl FnOnce() -> String) {
        if self.troubles.len() < 20 {
            self.troubles.push(what());
        }
    }
}

/// The world of one hub.
pub struct Hours {
    pub hub: Arc<Hub>,
    pub counts: Counts,
    scale: Scale,
    stored: Arc<Stored>,
    owners: Vec<Owner>,
    slots: Vec<Session>,
    clients: Vec<Client>,
    /// Since the hub was made.
    now: Duration,
    /// How many ids were given to sessions.
    ids: u128,
    publishes: bool,
    rng: StdRng,
}

/// A session that is being transcribed.
#[derive(Clone, Copy, Debug)]
struct Session {
    id: SessionId,
    owner: usize,
    version: u64,
    segments: u32,
    ends: Duration,
}

/// The store of this world. A session leaves it once nobody is told of it any more.
#[derive(Default)]
struct Stored(Mutex<StoredState>);

#[derive(Default)]
struct StoredState {
    now: Timestamp,
    sessions: HashMap<SessionId, (Owner, Status)>,
}

impl Stored {
    fn state(&self) -> MutexGuard<'_, StoredState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredState {
    fn is_recent(&self, status: &Status) -> bool {
        !status.state.is_terminal() || status.timestamp >= recent_cutoff_at(self.now)
    }
}

impl Source for Stored {
    fn session(&self, id: SessionId) -> SourceFuture<Option<(Owner, Status)>> {
        Box::pin(future::ready(Ok(self.state().sessions.get(&id).cloned())))
    }

    fn segments(&self, id: SessionId, from: u32) -> SourceFuture<Vec<Segment>> {
        let until = self.state().sessions.get(&id).map_or(0, |(_, status)| status.segments);
        Box::pin(future::ready(Ok((from..until.min(from + SEGMENT_PAGE)).map(segment).collect())))
    }

    fn statuses(&self, owner: &Owner) -> SourceFuture<Vec<Status>> {
        let state = self.state();
        let theirs = state.sessions.values().filter(|(whose, status)| whose == owner && state.is_recent(status));
        Box::pin(future::ready(Ok(theirs.map(|(_, status)| status.clone()).collect())))
    }

    fn is_signed_in(&self, _: &str) -> SourceFuture<bool> {
        Box::pin(future::ready(Ok(true)))
    }
}

fn segment(index: u32) -> Segment {
    let start = f64::from(index);
    Segment::new(index, start, start + 1.0, &format!("line {index}"))
}

/// A client that keeps a stream open.
struct Client {
    subject: Subject,
    owner: usize,
    /// Whether it reads only every few seconds, and whether it leaves its streams.
    is_slow: bool,
    leaves: bool,
    stream: Option<StatusStream>,
    task: Arc<Task>,
    waker: Waker,
    /// The id of the last event, as an `EventSource` keeps it.
    last: EventId,
    known: HashMap<SessionId, Known>,
    /// The sessions that this stream has told of, if it is one of all sessions.
    told: HashSet<SessionId>,
    /// Why the server ends the stream, once it has said so.
    bye: Option<&'static str>,
    /// When it opens its next stream, leaves the one that is open, reads again, and when something came last.
    opens: Duration,
    leaves_at: Duration,
    reads: Duration,
    heard: Duration,
    stalls: bool,
    retry: Duration,
}

#[derive(Clone, Copy)]
enum Subject {
    /// The sessions of a slot, one after the other; the one that the client watches now.
    Slot(usize, SessionId),
    Owner,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    version: u64,
    segments: u32,
    ended: bool,
}

/// Notes that a client's task was woken, so that only those are polled that would be.
#[derive(Default)]
struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// The data of events, as far as it is checked.
#[derive(Deserialize)]
struct StatusData {
    session_id: SessionId,
    version: u64,
    status: State,
    segments: u32,
    timestamp: Timestamp,
}

#[derive(Deserialize)]
struct SegmentData {
    session_id: SessionId,
    index: u32,
}

impl Hours {
    /// Makes the sessions. The first streams open with the first step. Everything random follows from `seed`, except what the
    /// hub decides.
    pub fn new(scale: Scale, limits: StreamLimits, seed: u64) -> Self {
        let stored = Arc::new(Stored::default());
        let owners: Vec<Owner> = (0..scale.owners).map(|n| Owner::from_store(format!("owner-{n}"))).collect();
        let mut hours = Self {
            hub: Arc::new(Hub::new(limits)),
            counts: Counts::default(),
            scale,
            stored,
            owners,
            slots: Vec::new(),
            clients: Vec::new(),
            now: Duration::ZERO,
            ids: 0,
            publishes: true,
            rng: StdRng::seed_from_u64(seed),
        };
        for n in 0..scale.sessions {
            // The first sessions are at any point of their lives.
            let life = scale.life.mul_f64(hours.rng.random_range(0.1..1.0));
            let session = hours.session(n % scale.owners, life);
            hours.store(&session, State::Queued);
            hours.slots.push(session);
        }
        for n in 0..scale.streams {
            let (owner, subject) = match n.checked_sub(scale.owners) {
                None => (n, Subject::Owner),
                Some(n) => {
                    let slot = n % scale.sessions;
                    (hours.slots[slot].owner, Subject::Slot(slot, hours.slots[slot].id))
                }
            };
            hours.clients.push(Client::new(n, owner, subject));
        }
        hours
    }

    /// A new session, which lives this long.
    fn session(&mut self, owner: usize, life: Duration) -> Session {
        self.ids += 1;
        let id = SessionId(Uuid::from_u128(self.ids));
        Session { id, owner, version: 1, segments: 0, ends: self.now + life }
    }

    /// Stores the status of a session and returns it.
    fn store(&self, session: &Session, state: State) -> Status {
        let mut stored = self.stored.state();
        let status = Status {
            version: session.version,
            segments: session.segments,
            message: format!("Transcribing part {}", session.version),
            ..Status::new(session.id, state, Some(Stage::Transcribing), stored.now)
        };
        stored.sessions.insert(session.id, (self.owners[session.owner].clone(), status.clone()));
        status
    }

    /// The time of this world.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    /// Lets [`STEP`] pass: sessions change, the hub looks after its streams, and clients read.
    fn step(&mut self) {
        self.now += STEP;
        let time = Timestamp(i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX));
        {
            let mut stored = self.stored.state();
            stored.now = time;
            if self.now.subsec_nanos() == 0 && self.now.as_secs().is_multiple_of(60) {
                let cutoff = recent_cutoff_at(time);
                stored.sessions.retain(|_, (_, status)| !status.state.is_terminal() || status.timestamp >= cutoff);
            }
        }
        if self.publishes {
            let steps = (self.now.as_millis() / STEP.as_millis()) as usize;
            let interval = (self.scale.interval.as_millis() / STEP.as_millis()).max(1) as usize;
            for slot in (steps % interval..self.slots.len()).step_by(interval) {
                self.change(slot);
            }
        }
        block_on(self.hub.tick_at(self.now, time));
        let mut clients = std::mem::take(&mut self.clients);
        for client in &mut clients {
            client.step(self);
        }
        self.clients = clients;
    }

    /// Changes a session, or ends it and begins the next one.
    fn change(&mut self, slot: usize) {
        let mut session = self.slots[slot];
        let owner = self.owners[session.owner].clone();
        session.version += 1;
        self.counts.published += 1;
        if self.now >= session.ends {
            let status = self.store(&session, State::Completed);
            self.hub.publish(&Event::status(owner, status));
            let life = self.scale.life.mul_f64(self.rng.random_range(0.8..1.2));
            let next = self.session(session.owner, life);
            self.hub.publish(&Event::status(self.owners[next.owner].clone(), self.store(&next, State::Queued)));
            self.slots[slot] = next;
            return;
        }
        let event = if session.version.is_multiple_of(CHANGES_PER_SEGMENT) {
            let segment = segment(session.segments);
            session.segments += 1;
            Event::segment(owner, &segment, self.store(&session, State::Processing))
        } else {
            Event::status(owner, self.store(&session, State::Processing))
        };
        self.hub.publish(&event);
        self.slots[slot] = session;
    }

    /// From now on nothing changes, and no client leaves. After a minute all must know everything.
    pub fn settle(&mut self) {
        self.publishes = false;
        for client in &mut self.clients {
            client.leaves = false;
            client.leaves_at = Duration::MAX;
        }
    }

    /// The clients that don't know the newest status and all segments of what they watch.
    pub fn behind(&self) -> usize {
        let is_behind = |client: &Client, session: &Session| {
            let known = client.known.get(&session.id).copied().unwrap_or_default();
            (known.version, known.segments) != (session.version, session.segments)
        };
        let behind = self.clients.iter().filter(|client| match client.subject {
            Subject::Slot(slot, _) => is_behind(client, &self.slots[slot]),
            Subject::Owner => self.slots.iter().any(|s| s.owner == client.owner && is_behind(client, s)),
        });
        behind.count()
    }

    /// The clients that have a stream.
    pub fn open(&self) -> usize {
        self.clients.iter().filter(|client| client.stream.is_some()).count()
    }

    /// Closes all streams, and opens no more.
    pub fn close_streams(&mut self) {
        self.clients.clear();
    }

    /// How many sessions and owners the hub still holds.
    pub fn held(&self) -> usize {
        let nobody = Owner::from_store("nobody".to_owned());
        let sessions = (1..=self.ids).filter(|id| self.hub.is_held(&nobody, SessionId(Uuid::from_u128(*id)))).count();
        let no_session = SessionId(Uuid::from_u128(0));
        sessions + self.owners.iter().filter(|owner| self.hub.is_held(owner, no_session)).count()
    }
}

impl Client {
    fn new(n: usize, owner: usize, subject: Subject) -> Self {
        let task = Arc::new(Task::default());
        Self {
            subject,
            owner,
            is_slow: n % SLOW_EVERY == 1,
            leaves: n % LEAVES_EVERY == 2,
            stream: None,
            waker: Waker::from(Arc::clone(&task)),
            task,
            last: EventId::default(),
            known: HashMap::new(),
            told: HashSet::new(),
            bye: None,
            opens: Duration::ZERO,
            leaves_at: Duration::MAX,
            reads: Duration::ZERO,
            heard: Duration::ZERO,
            stalls: false,
            retry: Duration::from_millis(500),
        }
    }

    fn step(&mut self, hours: &mut Hours) {
        let now = hours.now;
        if self.stream.is_none() && now >= self.opens {
            self.open(hours);
        }
        if self.stream.is_some() && now >= self.leaves_at {
            self.leaves_at = Duration::MAX;
            if hours.rng.random() {
                self.end(hours, "left by the client");
                return;
            }
            self.stalls = true;
            self.reads = now + STALL;
        }
        if self.stream.is_some() && now >= self.reads && self.task.0.swap(false, Relaxed) {
            if self.is_slow {
                self.reads = now + SLOW_INTERVAL;
            }
            self.read(hours);
        }
        if self.stream.is_some() && !self.stalls && now > self.heard + SILENCE + SLOW_INTERVAL {
            hours.counts.broken += 1;
            hours.counts.trouble(|| "a stream was silent for too long".to_owned());
            self.heard = now;
        }
    }

    fn open(&mut self, hours: &mut Hours) {
        let owner = &hours.owners[self.owner];
        let Ok(permit) = hours.hub.admit(owner, Standing::Known) else {
            hours.counts.broken += 1;
            hours.counts.trouble(|| "a stream was refused".to_owned());
            self.opens = hours.now + self.retry;
            return;
        };
        let source: Arc<dyn Source> = Arc::clone(&hours.stored) as _;
        if let Subject::Slot(slot, watched) = &mut self.subject {
            let current = hours.slots[*slot].id;
            if *watched != current && self.known.get(watched).is_none_or(|known| known.ended) {
                // The session that it watched has ended, and it watches the next one.
                self.known.clear();
                self.last = EventId::default();
                *watched = current;
            }
        }
        self.stream = Some(match self.subject {
            Subject::Slot(_, id) => StatusStream::of_session(&hours.hub, source, permit, id, self.last, None),
            Subject::Owner => StatusStream::of_owner(&hours.hub, source, permit, owner.clone(), None),
        });
        hours.counts.opened += 1;
        self.task.0.store(true, Relaxed);
        self.heard = hours.now;
        self.reads = hours.now;
        if self.leaves {
            self.leaves_at = hours.now + Duration::from_secs_f64(hours.rng.random_range(10.0..120.0));
        }
    }

    /// Closes the stream, and notes when to open the next one.
    fn end(&mut self, hours: &mut Hours, why: &'static str) {
        self.stream = None;
        self.told.clear();
        self.bye = None;
        self.stalls = false;
        self.opens = hours.now + self.retry;
        *hours.counts.ends.entry(why).or_default() += 1;
        // Sessions that ended long ago are told of no more.
        if matches!(self.subject, Subject::Owner) {
            let stored = hours.stored.state();
            self.known.retain(|id, _| stored.sessions.contains_key(id));
        }
    }

    /// Reads what the stream has now.
    fn read(&mut self, hours: &mut Hours) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        loop {
            let Some(stream) = &mut self.stream else { return };
            match stream.poll_next(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Some(out)) => {
                    self.heard = hours.now;
                    self.take(hours, &out);
                }
                Poll::Ready(None) => {
                    let ended = match self.subject {
                        Subject::Slot(_, id) => self.known.get(&id).is_some_and(|known| known.ended),
                        Subject::Owner => false,
                    };
                    let why = match self.bye {
                        Some(why) => why,
                        None if ended => "its session was completed",
                        None if self.stalls => "cut off, because the client read nothing",
                        None => {
                            hours.counts.broken += 1;
                            hours.counts.trouble(|| "a stream ended without a reason".to_owned());
                            "without a reason"
                        }
                    };
                    self.end(hours, why);
                    return;
                }
            }
        }
    }

    /// Checks an event.
    fn take(&mut self, hours: &mut Hours, out: &Outgoing) {
        let counts = &mut hours.counts;
        let text = std::str::from_utf8(out.frame.text()).unwrap_or_default();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.last = id.parse().unwrap_or_default(),
                Some(("retry", ms)) => self.retry = Duration::from_millis(ms.parse().unwrap_or(500)),
                _ => {}
            }
        }
        let is_alone = matches!(self.subject, Subject::Slot(..));
        match out.frame.kind() {
            Kind::Heartbeat => counts.heartbeats += 1,
            Kind::Bye => {
                self.bye = Some(match text {
                    _ if text.contains("lifetime") => "lifetime",
                    _ if text.contains("idle") => "idle",
                    _ => "another bye",
                });
            }
            Kind::Segment => {
                let Ok(segment) = serde_json::from_slice::<SegmentData>(&out.frame.json()) else {
                    counts.wrong += 1;
                    return counts.trouble(|| format!("a segment can't be read: {text}"));
                };
                let known = self.known.entry(segment.session_id).or_default();
                if segment.index == known.segments {
                    known.segments += 1;
                    counts.segments += 1;
                } else if is_alone || (segment.index > known.segments && self.told.contains(&segment.session_id)) {
                    let known = *known;
                    counts.wrong += 1;
                    counts.trouble(|| format!("segment {} came after {known:?}", segment.index));
                }
            }
            Kind::Status => {
                let Ok(status) = serde_json::from_slice::<StatusData>(&out.frame.json()) else {
                    counts.wrong += 1;
                    return counts.trouble(|| format!("a status can't be read: {text}"));
                };
                let is_first = !is_alone && self.told.insert(status.session_id);
                let known = self.known.entry(status.session_id).or_default();
                let before = *known;
                // A stream of all sessions begins with what its client may know already.
                let is_late = status.version < before.version || (status.version == before.version && !is_first);
                let now = Timestamp(i64::try_from(hours.now.as_millis()).unwrap_or(i64::MAX));
                // Once a second the hub forgets sessions that ended long ago.
                let is_old = is_first
                    && status.status.is_terminal()
                    && status.timestamp < recent_cutoff_at(now).plus_seconds(-2.0);
                // Segments that came while the client was away are fetched: see `benches/endurance`.
                let is_hole = is_alone && status.segments > before.segments;
                if is_late || is_old || is_hole {
                    counts.wrong += 1;
                    counts.trouble(|| format!("late {is_late}, old {is_old}, hole {is_hole}: {text} after {before:?}"));
                }
                if status.version > before.version {
                    counts.delivered += 1;
                    if !is_first && before.version > 0 {
                        counts.conflated += status.version - before.version - 1;
                    }
                }
                *known = Known {
                    version: status.version,
                    segments: known.segments.max(status.segments),
                    ended: status.status.is_terminal(),
                };
                if known.ended {
                    let known = *known;
                    let stored = hours.stored.state().sessions.get(&status.session_id).cloned();
                    let is_all =
                        stored.is_none_or(|(_, last)| (known.version, known.segments) == (last.version, last.segments));
                    if !is_all {
                        counts.missed += 1;
                        counts.trouble(|| format!("a session ended with {known:?}"));
                    }
                }
            }
            _ => {}
        }
    }
}
