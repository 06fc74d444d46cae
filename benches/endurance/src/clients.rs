//! The clients: each keeps a stream open as a browser does, checks every event, and notes how long it had a stream.

use crate::{
    events::{Event, Events, Segment, Status},
    sessions::{Owner, Session, Slot},
};
use hdrhistogram::Histogram;
use load::{Connection, mark};
use rand::RngExt;
use serde::de::DeserializeOwned;
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, sleep_until, timeout};

/// A stream that is silent for this long is dead, as for Hark's own pages.
const SILENCE: Duration = Duration::from_secs(40);
/// How long to wait before the stream is requested again, where the server hasn't said it, in milliseconds.
const RETRY_MS: u64 = 500;
/// After how many seconds a client that breaks off does so, counted from its opening.
const BREAK_OFF_SECS: Range<f64> = 10.0..120.0;

/// What all clients have counted.
#[derive(Debug)]
pub struct Totals {
    pub opened: u64,
    pub is_open: i64,
    /// How streams ended, and how often.
    pub ends: BTreeMap<&'static str, u64>,
    /// The changes that were read; that were replaced by a newer one while the stream was open; and that came and went while
    /// the client had none.
    pub delivered: u64,
    pub conflated: u64,
    pub away: u64,
    pub segments: u64,
    /// The segments that a client of all sessions fetched after it came back.
    pub fetched: u64,
    /// Events that came twice or late, and segments that were left out.
    pub doubled: u64,
    pub holes: u64,
    /// The sessions whose stream ended before it had told the last change and all segments.
    pub missed: u64,
    pub heartbeats: u64,
    /// Time with an open stream; time in which one was being opened for the first time or after an end that the server
    /// had announced; and time without one after it had broken.
    pub live: Duration,
    pub opening: Duration,
    pub missing: Duration,
    /// Nanoseconds from just before a change was sent until it was read.
    pub delay: Histogram<u64>,
    /// What went wrong first, for the report.
    pub troubles: Vec<String>,
}

impl Totals {
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            opened: 0,
            is_open: 0,
            ends: BTreeMap::new(),
            delivered: 0,
            conflated: 0,
            away: 0,
            segments: 0,
            fetched: 0,
            doubled: 0,
            holes: 0,
            missed: 0,
            heartbeats: 0,
            live: Duration::ZERO,
            opening: Duration::ZERO,
            missing: Duration::ZERO,
            delay: Histogram::new_with_bounds(1000, 100_000_000_000, 3).map_err(|e| e.to_string())?,
            troubles: Vec::new(),
        })
    }

    fn trouble(&mut self, what: String) {
        if self.troubles.len() < 20 {
            eprintln!("{what}");
            self.troubles.push(what);
        }
    }
}

/// What a client knows of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub version: u64,
    pub number: i64,
    pub segments: u32,
}

/// What all clients share.
pub struct World {
    pub addr: SocketAddr,
    pub epoch: Instant,
    pub owners: Vec<Owner>,
    pub totals: RefCell<Totals>,
    /// What each client knows of the sessions that it watches.
    pub known: Vec<RefCell<HashMap<String, Known>>>,
}

/// What a client watches.
#[derive(Clone, Debug)]
pub enum Subject {
    /// The sessions of a slot, one after the other.
    Slot(Rc<Slot>),
    /// All sessions of the owner.
    Owner,
}

/// A client, which keeps a stream open for as long as it is polled.
pub struct Client {
    pub n: usize,
    pub owner: usize,
    pub subject: Subject,
    /// Whether it breaks its streams off, again and again.
    pub breaks_off: bool,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the end of its session.
    Completed,
    /// The server announced it.
    Bye,
    /// The client broke it off.
    BrokenOff,
    /// Anything else.
    Failed,
}

/// What is to be done after an event.
enum Then {
    Read,
    Fetch { id: String, after: u32, total: u32 },
    End(End, &'static str),
}

/// Measures the time that a client spends with and without a stream.
struct Times<'a> {
    totals: &'a RefCell<Totals>,
    mode: Mode,
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Live,
    Opening,
    Missing,
    /// The client wants no stream.
    Away,
}

impl<'a> Times<'a> {
    fn begin(totals: &'a RefCell<Totals>) -> Self {
        Self { totals, mode: Mode::Opening, since: Instant::now() }
    }

    fn enter(&mut self, mode: Mode) {
        let spent = self.since.elapsed();
        let mut totals = self.totals.borrow_mut();
        match self.mode {
            Mode::Live => totals.live += spent,
            Mode::Opening => totals.opening += spent,
            Mode::Missing => totals.missing += spent,
            Mode::Away => {}
        }
        totals.is_open += i64::from(mode == Mode::Live) - i64::from(self.mode == Mode::Live);
        self.mode = mode;
        self.since += spent;
    }
}

impl Drop for Times<'_> {
    fn drop(&mut self) {
        self.enter(Mode::Away);
    }
}

impl World {
    /// The clients that don't yet know the last change and all segments of what they watch.
    pub fn behind(&self, clients: &[(usize, Subject)]) -> usize {
        let is_behind = |n: usize, session: &Session| {
            let known = self.known[n].borrow().get(&session.id).copied().unwrap_or_default();
            known.number < session.last.get() || known.segments < session.segments.get()
        };
        let behind = clients.iter().enumerate().filter(|(n, (owner, subject))| match subject {
            Subject::Slot(slot) => is_behind(*n, &slot.current()),
            Subject::Owner => self.owners[*owner].slots.iter().any(|slot| is_behind(*n, &slot.current())),
        });
        behind.count()
    }
}

impl Client {
    /// Keeps streams open.
    pub async fn run(self, world: Rc<World>) {
        match &self.subject {
            Subject::Owner => self.watch(&world, "/api/v1/status/stream", None).await,
            Subject::Slot(slot) => loop {
                let session = slot.current();
                let path = format!("/api/v1/sessions/{}/status/stream", session.id);
                self.watch(&world, &path, Some(&session)).await;
                let known = world.known[self.n].borrow_mut().remove(&session.id).unwrap_or_default();
                if (known.number, known.segments) != (session.last.get(), session.segments.get()) {
                    let mut totals = world.totals.borrow_mut();
                    totals.missed += 1;
                    totals.trouble(format!("a stream ended with {known:?} of {session:?}"));
                }
                slot.after(&session).await;
            },
        }
    }

    /// Keeps one stream open until what it watches has ended.
    async fn watch(&self, world: &World, path: &str, session: Option<&Session>) {
        let mut times = Times::begin(&world.totals);
        let (mut last, mut retry_ms) = (None, RETRY_MS);
        loop {
            let (end, why) = self.follow(world, path, &mut last, &mut retry_ms, &mut times).await;
            *world.totals.borrow_mut().ends.entry(why).or_default() += 1;
            match end {
                End::Completed => break,
                // The time until another one delivers is missing, also if that one was announced.
                _ if times.mode == Mode::Missing => {}
                End::Bye => times.enter(Mode::Opening),
                End::BrokenOff => times.enter(Mode::Away),
                End::Failed => times.enter(Mode::Missing),
            }
            sleep(Duration::from_millis(retry_ms)).await;
            if end == End::BrokenOff && times.mode == Mode::Away {
                times.enter(Mode::Opening);
            }
        }
        drop(times);
        // An EventSource doesn't know that this was the end, and asks again.
        sleep(Duration::from_millis(retry_ms)).await;
        let cookie = &world.owners[self.owner].cookie;
        let code = Events::open(world.addr, path, cookie, last.as_deref()).await.map(|answer| answer.code);
        if !matches!(code, Ok(204)) {
            let mut totals = world.totals.borrow_mut();
            totals.doubled += 1;
            totals.trouble(format!("after the end of {session:?} the answer wasn't 204 but {code:?}"));
        }
    }

    /// Opens a stream and reads it to its end.
    async fn follow(
        &self,
        world: &World,
        path: &str,
        last: &mut Option<String>,
        retry_ms: &mut u64,
        times: &mut Times<'_>,
    ) -> (End, &'static str) {
        let opened = Instant::now();
        world.totals.borrow_mut().opened += 1;
        let break_off = self.breaks_off.then(|| rand::rng().random_range(BREAK_OFF_SECS));
        let break_off = opened + break_off.map_or(Duration::from_secs(86_400 * 365), Duration::from_secs_f64);
        let cookie = &world.owners[self.owner].cookie;
        let mut events = match timeout(SILENCE, Events::open(world.addr, path, cookie, last.as_deref())).await {
            Ok(Ok(events)) if events.code == 200 => events,
            Ok(Ok(events)) => {
                world.totals.borrow_mut().trouble(format!("a stream was refused with {}", events.code));
                return (End::Failed, "refused");
            }
            Ok(Err(error)) => {
                world.totals.borrow_mut().trouble(format!("a stream could not be opened: {error}"));
                return (End::Failed, "not opened");
            }
            Err(_) => return (End::Failed, "not answered"),
        };
        // The sessions of which this stream has told the status already.
        let mut told = HashSet::new();
        loop {
            let next = tokio::select! {
                next = timeout(SILENCE, events.next()) => next,
                () = sleep_until(break_off.into()) => {
                    events.break_off(rand::random());
                    return (End::BrokenOff, "broken off by the client");
                }
            };
            let event = match next {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return (End::Failed, "ended without a word"),
                Ok(Err(error)) => {
                    world.totals.borrow_mut().trouble(format!("a stream broke off: {error}"));
                    return (End::Failed, "broke");
                }
                Err(_) => {
                    world.totals.borrow_mut().trouble(format!("a stream of {path} was silent for {SILENCE:?}"));
                    return (End::Failed, "silent");
                }
            };
            *retry_ms = events.retry_ms.unwrap_or(*retry_ms);
            if event.name != "bye" && times.mode != Mode::Live {
                times.enter(Mode::Live);
            }
            if event.id.is_some() {
                last.clone_from(&event.id);
            }
            match self.take(world, &event, opened, &mut told) {
                Ok(Then::Read) => {}
                Ok(Then::End(end, why)) => return (end, why),
                Ok(Then::Fetch { id, after, total }) => {
                    if let Err(error) = self.fetch(world, &id, after, total).await {
                        world.totals.borrow_mut().holes += 1;
                        world.totals.borrow_mut().trouble(format!("segments could not be fetched: {error}"));
                    }
                }
                Err(error) => {
                    let mut totals = world.totals.borrow_mut();
                    totals.holes += 1;
                    totals.trouble(format!("an event can't be read: {error}: {event:?}"));
                }
            }
        }
    }

    /// Checks an event against what is known.
    fn take(
        &self,
        world: &World,
        event: &Event,
        opened: Instant,
        told: &mut HashSet<String>,
    ) -> Result<Then, serde_json::Error> {
        fn read<T: DeserializeOwned>(event: &Event) -> Result<T, serde_json::Error> {
            serde_json::from_str(&event.data)
        }
        let mut totals = world.totals.borrow_mut();
        let mut all = world.known[self.n].borrow_mut();
        let is_alone = matches!(self.subject, Subject::Slot(_));
        match event.name.as_str() {
            "bye" if event.data.contains("lifetime") => return Ok(Then::End(End::Bye, "lifetime")),
            "bye" if event.data.contains("shutdown") => return Ok(Then::End(End::Bye, "shutdown")),
            "bye" if event.data.contains("idle") => return Ok(Then::End(End::Bye, "idle")),
            "bye" => return Ok(Then::End(End::Failed, "refused")),
            "heartbeat" => totals.heartbeats += 1,
            "segment" => {
                let segment: Segment = read(event)?;
                let is_told = is_alone || told.contains(&segment.session_id);
                let known = all.entry(segment.session_id).or_default();
                if segment.index == known.segments {
                    known.segments += 1;
                    totals.segments += 1;
                } else if segment.index < known.segments && is_alone {
                    totals.doubled += 1;
                    totals.trouble(format!("segment {} came twice: {known:?}", segment.index));
                } else if segment.index > known.segments && is_told {
                    totals.holes += 1;
                    totals.trouble(format!("segment {} came after {known:?}", segment.index));
                }
            }
            "status" => {
                let status: Status = read(event)?;
                let is_first = told.insert(status.session_id.clone());
                let known = all.entry(status.session_id.clone()).or_default();
                // A stream of all sessions begins with what its client may know already.
                let is_snapshot = is_first && !is_alone;
                if status.version < known.version || (status.version == known.version && !is_snapshot) {
                    totals.doubled += 1;
                    totals.trouble(format!("version {} came after {known:?}", status.version));
                }
                known.version = status.version;
                if let Some((number, sent)) = mark(event.data.as_bytes()) {
                    let sent = world.epoch + Duration::from_nanos(sent);
                    if number > known.number {
                        totals.delivered += 1;
                        let skipped = (number - known.number - 1).unsigned_abs();
                        if is_first {
                            totals.away += skipped;
                        } else {
                            totals.conflated += skipped;
                        }
                        if sent >= opened {
                            totals.delay.saturating_record(sent.elapsed().as_nanos() as u64);
                        }
                        known.number = number;
                    }
                }
                let (after, total) = (known.segments, status.segments);
                if total > after && is_alone {
                    totals.holes += 1;
                    totals.trouble(format!("a status counts {total} segments after {known:?}"));
                }
                let ended = status.status != "processing" && status.status != "queued";
                if ended && is_alone {
                    return Ok(Then::End(End::Completed, "its session was completed"));
                }
                if total > after {
                    return Ok(Then::Fetch { id: status.session_id, after, total });
                }
            }
            _ => {}
        }
        Ok(Then::Read)
    }

    /// Fetches the segments that came while this client had no stream.
    async fn fetch(&self, world: &World, id: &str, after: u32, total: u32) -> Result<(), String> {
        let query = after.checked_sub(1).map(|index| format!("?after={index}")).unwrap_or_default();
        let cookie = &world.owners[self.owner].cookie;
        let request =
            format!("GET /api/v1/sessions/{id}/segments{query} HTTP/1.1\r\nHost: {}\r\n{cookie}\r\n", world.addr);
        let (_, body) = Connection::open(world.addr).await?.request(&request).await?;
        let body: serde_json::Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
        let indexes = body["segments"].as_array().into_iter().flatten().map(|segment| segment["index"].as_u64());
        let mut have = after;
        for index in indexes {
            if index != Some(have.into()) {
                return Err(format!("segment {index:?} came after {have} of {id}"));
            }
            have += 1;
        }
        if have < total {
            return Err(format!("there are {total} segments of {id}, and {have} came"));
        }
        world.totals.borrow_mut().fetched += u64::from(have - after);
        world.known[self.n].borrow_mut().entry(id.to_owned()).or_default().segments = have;
        Ok(())
    }
}
