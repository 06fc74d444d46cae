//! What the hub holds of one session and of one owner: the newest status as a frame (a state, so the latest wins) and
//! the last segments (a log, so each has its number). A stream keeps only its position in it, so a slow reader costs
//! nothing and still gets every segment.

use super::{
    Frame,
    slot::Slot,
    ticks::{PER_SECOND, Ticks},
};
use crate::{
    model::{SegmentEvent, SessionId, State, Status, Timestamp, dashboard::Dashboard},
    server::{owner::Owner, telemetry::traces::Delivery},
};
use slab::Slab;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Instant,
};

/// The last segments of a topic take at most this many bytes; older ones are read from the store.
const RECENT_BYTES: usize = 64 * 1024;

/// A frame on its way to a stream.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub frame: Frame,
    /// When its change was published; none if it was read from the store.
    pub published: Option<Instant>,
    /// Its way to the first page, if that is traced.
    pub(super) delivery: Option<Arc<Delivery>>,
}

impl Outgoing {
    pub(super) fn stored(frame: Frame) -> Self {
        Self { frame, published: None, delivery: None }
    }

    pub(super) fn live(frame: Frame, published: Instant, delivery: Option<Arc<Delivery>>) -> Self {
        Self { frame, published: Some(published), delivery }
    }
}

/// The newest status of a session.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    pub(super) version: u64,
    /// The segments that came before it, in the topic of a session; all that are known, in that of an owner.
    pub(super) segments: u32,
    /// The segments that its frame counts.
    pub(super) counted: u32,
    /// The index of the transcript's first segment.
    pub(super) first_segment: u32,
    pub(super) state: State,
    /// When this version was made.
    pub(super) at: Timestamp,
    /// The number of this status among those of its topic, to count how many a slow stream skipped.
    pub(super) status_number: u32,
    pub(super) out: Outgoing,
}

impl Latest {
    fn new(status: &Status, out: Outgoing, status_number: u32) -> Self {
        Self {
            version: status.version,
            segments: status.segments,
            counted: status.segments,
            first_segment: status.first_segment,
            state: status.state,
            at: status.timestamp,
            status_number,
            out,
        }
    }

    /// The frame, counting so many segments if it counts fewer.
    pub(super) fn counting(&self, segments: u32) -> Frame {
        if segments <= self.counted {
            return self.out.frame.clone();
        }
        let status = serde_json::from_slice::<Status>(&self.out.frame.json());
        status.map_or_else(|_| self.out.frame.clone(), |status| Frame::status(&Status { segments, ..status }))
    }

    /// Has the frame count all segments that are known, for who begins to watch or polls. Those that come without a status
    /// don't change it until somebody needs it, because they may come faster than anybody asks.
    fn renew(&mut self) {
        if self.segments > self.counted {
            self.out.frame = self.counting(self.segments);
            self.counted = self.segments;
        }
    }
}

/// Whisper's models on this node, as far as the watchers of their page need them.
#[derive(Debug, Default)]
pub(super) struct ModelsTopic {
    /// The newest event, with its version.
    pub(super) latest: Option<(u64, Outgoing)>,
    /// Whether a model is on its way.
    pub(super) running: bool,
    pub(super) watchers: Slab<Arc<Slot>>,
}

/// The dashboard of one range, as far as its watchers need it.
#[derive(Debug, Default)]
pub(super) struct DashboardTopic {
    pub(super) latest: Option<LatestDashboard>,
    pub(super) watchers: Slab<Arc<Slot>>,
}

/// The newest event about the dashboard.
#[derive(Debug)]
pub(super) struct LatestDashboard {
    /// The number of the event.
    pub(super) number: u64,
    /// What it says.
    pub(super) dashboard: Dashboard,
    pub(super) at: Ticks,
    pub(super) out: Outgoing,
}

/// One session, as far as its watchers need it.
#[derive(Debug, Default)]
pub(super) struct SessionTopic {
    pub(super) owner: Option<Owner>,
    pub(super) latest: Option<Latest>,
    /// The last segments: index, the version that the event's id names, the event.
    recent: VecDeque<(u32, u64, Outgoing)>,
    recent_bytes: usize,
    /// The session was deleted.
    pub(super) gone: bool,
    pub(super) watchers: Slab<Arc<Slot>>,
    /// When it was last published to or asked for.
    pub(super) used: Ticks,
}

/// The next step of a stream of one session.
pub(super) enum Next {
    /// Nothing is known yet: read the session from the store.
    Load,
    /// Read the segments from the first index up to the second, without it, from the store.
    Segments(u32, u32),
    /// Send a segment; with the version that its event id names.
    Send(Outgoing, u64),
    /// Send a status; with the number of statuses that were skipped before it.
    Status {
        latest: Latest,
        skipped: u32,
    },
    /// End the stream: nothing more will come.
    End,
    Wait,
}

impl SessionTopic {
    /// Stores a status if it is newer than the known one. False if it isn't.
    pub(super) fn offer(&mut self, owner: &Owner, status: &Status, out: Outgoing) -> bool {
        if self.owner.is_none() {
            self.owner = Some(owner.clone());
        }
        let status_number = match &self.latest {
            Some(latest) if latest.version >= status.version => return false,
            Some(latest) => latest.status_number.wrapping_add(1),
            None => 0,
        };
        self.latest = Some(Latest::new(status, out, status_number));
        true
    }

    /// Stores a segment. One that was announced before is ignored; after a gap only the newer ones are kept.
    pub(super) fn announce(&mut self, index: u32, version: u64, out: &Outgoing) -> bool {
        match self.recent.back() {
            Some((last, ..)) if index <= *last => return false,
            Some((last, ..)) if index > last + 1 => {
                self.recent.clear();
                self.recent_bytes = 0;
            }
            _ => {}
        }
        self.recent_bytes += out.frame.text().len();
        self.recent.push_back((index, version, out.clone()));
        while self.recent_bytes > RECENT_BYTES && self.recent.len() > 1 {
            if let Some((.., old)) = self.recent.pop_front() {
                self.recent_bytes -= old.frame.text().len();
            }
        }
        true
    }

    /// How many segments there are, as far as is known.
    pub(super) fn segments(&self) -> u32 {
        self.latest
            .as_ref()
            .map_or_else(|| self.recent.back().map_or(0, |(last, ..)| last + 1), |latest| self.announced(latest))
    }

    /// The index of the transcript's first segment, as far as is known. Those before were replaced.
    pub(super) fn first_segment(&self) -> u32 {
        self.latest.as_ref().map_or(0, |latest| latest.first_segment)
    }

    /// The version that a segment's event id names when no status comes with the segment.
    pub(super) fn version(&self) -> u64 {
        self.latest.as_ref().map_or(0, |latest| latest.version)
    }

    fn announced(&self, latest: &Latest) -> u32 {
        self.recent.back().map_or(0, |(last, ..)| last + 1).max(latest.segments)
    }

    /// The next step of a stream that has seen version `seen`, the segments before `next`, and the status numbered
    /// `status_number`.
    pub(super) fn next(&self, seen: u64, next: u32, status_number: Option<u32>) -> Next {
        if self.gone {
            return Next::End;
        }
        let Some(latest) = &self.latest else { return Next::Load };
        // The segments that a status counts are sent before it and later ones after it, so that the id of each event
        // says exactly what was sent up to it.
        let due = latest.version > seen;
        let until = if due { latest.segments } else { self.announced(latest) };
        if next < until {
            let first = self.recent.front().map(|(first, ..)| *first);
            let found = first.and_then(|first| self.recent.get(next.checked_sub(first)? as usize));
            return found.map_or(Next::Segments(next, until), |(_, version, out)| Next::Send(out.clone(), *version));
        }
        if due {
            let skipped = status_number.map_or(0, |before| latest.status_number.wrapping_sub(before).saturating_sub(1));
            return Next::Status { latest: latest.clone(), skipped };
        }
        if latest.state.is_terminal() { Next::End } else { Next::Wait }
    }

    pub(super) fn wake(&self, now: Ticks) {
        for (_, slot) in &self.watchers {
            slot.wake(now);
        }
    }

    /// Whether the session is processing, as far as is known.
    pub(super) fn is_running(&self) -> bool {
        self.latest.as_ref().is_some_and(|latest| latest.state == State::Processing)
    }
}

/// The sessions of an owner that haven't ended or have changed lately, and their changes in order.
#[derive(Debug, Default)]
pub(super) struct OwnerTopic {
    /// Whether the sessions were read from the store; until then only what was published since is known.
    pub(super) loaded: bool,
    sessions: HashMap<SessionId, (u64, Latest)>,
    /// By the number of the change: the newest status of each session once, and the last segments.
    order: BTreeMap<u64, Item>,
    segments: VecDeque<u64>,
    segment_bytes: usize,
    /// The number of the next change.
    end: u64,
    /// What was said lately of sessions that isn't in their statuses, so that a watcher that comes a moment later, or
    /// polls, learns of it too.
    notices: VecDeque<Notice>,
    /// A hash of the statuses and notices that doesn't depend on their order.
    hash: u64,
    pub(super) watchers: Slab<Arc<Slot>>,
    pub(super) used: Ticks,
}

#[derive(Debug)]
enum Item {
    Status(SessionId),
    Segment(Outgoing),
    Notice(Outgoing),
}

/// That a session was renamed or deleted.
#[derive(Debug)]
struct Notice {
    /// The number of the change.
    number: u64,
    id: SessionId,
    at: Ticks,
    out: Outgoing,
}

/// How long a notice is kept, and how many of an owner: pages that were rendered before it was made are connected by then.
const NOTICE_LIFETIME: Ticks = 60 * PER_SECOND;
const MAX_NOTICES: usize = 64;

impl OwnerTopic {
    /// Stores a status if it is newer than the known one of its session. False if it isn't.
    pub(super) fn offer(&mut self, status: &Status, out: &Outgoing) -> bool {
        self.adopt(status.session_id, Latest::new(status, out.clone(), 0))
    }

    /// The same with the newest status of the session's own topic.
    pub(super) fn adopt(&mut self, id: SessionId, mut latest: Latest) -> bool {
        latest.status_number = 0;
        if let Some((number, known)) = self.sessions.get(&id) {
            if known.version >= latest.version {
                if known.version == latest.version {
                    self.count(id, latest.segments);
                }
                return false;
            }
            latest.status_number = known.status_number.wrapping_add(1);
            self.hash ^= hash_of_status(id, known);
            self.order.remove(number);
        }
        self.hash ^= hash_of_status(id, &latest);
        self.order.insert(self.end, Item::Status(id));
        self.sessions.insert(id, (self.end, latest));
        self.end += 1;
        true
    }

    /// Stores a segment for those who watch now. A client that reads too slowly to get it notices by the status' count
    /// of segments.
    pub(super) fn announce(&mut self, out: &Outgoing) {
        self.order.insert(self.end, Item::Segment(out.clone()));
        self.segments.push_back(self.end);
        self.segment_bytes += out.frame.text().len();
        self.end += 1;
        while self.segment_bytes > RECENT_BYTES {
            let Some(oldest) = self.segments.pop_front() else { break };
            if let Some(Item::Segment(old)) = self.order.remove(&oldest) {
                self.segment_bytes -= old.frame.text().len();
            }
        }
    }

    /// Notes that a session has so many segments, of which the last came without a status. Those who watch get the segment;
    /// those who begin to watch, or poll, find the count in the session's newest status.
    pub(super) fn count(&mut self, id: SessionId, segments: u32) {
        if let Some((_, latest)) = self.sessions.get_mut(&id)
            && segments > latest.segments
        {
            self.hash ^= hash_of_status(id, latest);
            latest.segments = segments;
            self.hash ^= hash_of_status(id, latest);
        }
    }

    /// Forgets a session. False if it isn't known.
    pub(super) fn remove(&mut self, id: SessionId) -> bool {
        let Some((number, latest)) = self.sessions.remove(&id) else { return false };
        self.hash ^= hash_of_status(id, &latest);
        self.order.remove(&number);
        true
    }

    /// Tells the watchers something about a session that isn't in its status. It takes the place of what was told before.
    pub(super) fn notice(&mut self, id: SessionId, out: Outgoing, now: Ticks) {
        if let Some(old) = self.notices.iter().position(|notice| notice.id == id) {
            self.drop_notice(old);
        }
        self.hash ^= hash_of(id, out.frame.text());
        self.order.insert(self.end, Item::Notice(out.clone()));
        self.notices.push_back(Notice { number: self.end, id, at: now, out });
        self.end += 1;
        if self.notices.len() > MAX_NOTICES {
            self.drop_notice(0);
        }
        self.wake(now);
    }

    fn drop_notice(&mut self, position: usize) {
        if let Some(notice) = self.notices.remove(position) {
            self.hash ^= hash_of(notice.id, notice.out.frame.text());
            self.order.remove(&notice.number);
        }
    }

    /// Forgets old notices.
    pub(super) fn expire_notices(&mut self, now: Ticks) {
        while self.notices.front().is_some_and(|notice| now.saturating_sub(notice.at) >= NOTICE_LIFETIME) {
            self.drop_notice(0);
        }
    }

    /// Forgets the sessions that ended before `since`.
    pub(super) fn prune(&mut self, since: Timestamp) {
        let old: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, (_, latest))| latest.state.is_terminal() && latest.at < since)
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.remove(id);
        }
    }

    /// The sessions that haven't ended, with version and number of segments.
    pub(super) fn open(&self) -> impl Iterator<Item = (SessionId, u64, u32)> {
        let open = self.sessions.iter().filter(|(_, (_, latest))| !latest.state.is_terminal());
        open.map(|(id, (_, latest))| (*id, latest.version, latest.segments))
    }

    /// Whether a session is known and hasn't ended.
    pub(super) fn is_open(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|(_, latest)| !latest.state.is_terminal())
    }

    /// The newest version known of a session.
    pub(super) fn version_of(&self, id: SessionId) -> Option<u64> {
        self.sessions.get(&id).map(|(_, latest)| latest.version)
    }

    /// The number of the next change. A new stream needs no segment with a lower one.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The first change numbered `from` or higher, and the number to continue from. Segments numbered below `since` are
    /// left out.
    pub(super) fn next(&mut self, from: u64, since: u64) -> Option<(u64, Outgoing)> {
        let sessions = &mut self.sessions;
        self.order.range(from..).find_map(|(number, item)| match item {
            Item::Status(id) => {
                let (_, latest) = sessions.get_mut(id)?;
                latest.renew();
                Some((number + 1, latest.out.clone()))
            }
            Item::Segment(out) if *number >= since => Some((number + 1, out.clone())),
            Item::Notice(out) => Some((number + 1, out.clone())),
            Item::Segment(_) => None,
        })
    }

    /// The newest statuses, oldest session first, then the notices, and a tag that changes with them.
    pub(super) fn statuses(&mut self) -> (u64, Vec<Frame>) {
        for (_, latest) in self.sessions.values_mut() {
            latest.renew();
        }
        let mut ids: Vec<&SessionId> = self.sessions.keys().collect();
        ids.sort_unstable();
        let frames = ids.iter().filter_map(|id| self.sessions.get(id)).map(|(_, latest)| latest.out.frame.clone());
        let notices = self.notices.iter().map(|notice| notice.out.frame.clone());
        (self.hash, frames.chain(notices).collect())
    }

    pub(super) fn wake(&self, now: Ticks) {
        for (_, slot) in &self.watchers {
            slot.wake(now);
        }
    }

    /// Whether any session is processing.
    pub(super) fn is_running(&self) -> bool {
        self.sessions.values().any(|(_, latest)| latest.state == State::Processing)
    }
}

/// A hash that is the same on every node of one build, so that polls may go to any of them.
fn hash_of(id: SessionId, what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id, what).hash(&mut hasher);
    hasher.finish()
}

fn hash_of_status(id: SessionId, status: &Latest) -> u64 {
    hash_of(id, (status.version, status.segments))
}

/// The event that announces a segment.
pub(super) fn segment_frame(segment: &SegmentEvent, version: u64, published: Instant) -> Outgoing {
    let delivery = Delivery::begin(segment.session_id, "segment", published);
    Outgoing::live(Frame::segment(segment, version), published, delivery)
}
