//! One status stream: what its client has seen, and what it must be sent next. Subscribes before it reads the store,
//! and reads the store only for what the hub doesn't hold. `body` and `direct` write what it gives out.

use super::{
    Bye, Frame, Kind, Outgoing, StreamPermit,
    gzip::Gzip,
    hub::{self, Hub, Watch, bye},
    lock::lock,
    slot::{Close, Slot},
    socket::Peer,
    topic::{Next, OwnerTopic, SessionTopic},
};
use crate::{
    model::{EventId, Segment, SegmentEvent, SessionId, Status, Timestamp},
    server::owner::Owner,
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Why a reading failed.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;
/// A reading under way.
pub type Reading<T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send>>;

/// Where streams read what the hub doesn't hold: the store.
pub trait Source: Send + Sync + 'static {
    /// A session's owner and status; none if there is no such session.
    fn session(&self, id: SessionId) -> Reading<Option<(Owner, Status)>>;
    /// A page of segments from index `from` on.
    fn segments(&self, id: SessionId, from: u32) -> Reading<Vec<Segment>>;
    /// The statuses of an owner's sessions that haven't ended or changed lately.
    fn statuses(&self, owner: &Owner) -> Reading<Vec<Status>>;
}

/// A status stream, without the connection that carries it.
pub struct StatusStream {
    view: View,
    /// Read from the store and not yet sent.
    ready: VecDeque<Frame>,
    reading: Option<Reading<Read>>,
    ended: bool,
    /// Packs what is written, for a client that asked for it.
    gzip: Option<Box<Gzip>>,
}

enum View {
    Session(SessionView),
    Owner(OwnerView),
    /// A refusal: only a goodbye.
    Refused,
}

struct SessionView {
    watch: Watch<SessionTopic>,
    source: Arc<dyn Source>,
    id: SessionId,
    /// The version the client has seen, and the next segment it needs.
    seen: u64,
    next: u32,
    turn: Option<u32>,
    _permit: StreamPermit,
}

struct OwnerView {
    watch: Watch<OwnerTopic>,
    source: Arc<dyn Source>,
    owner: Owner,
    /// The number of the next change, and of the first whose segments this stream is to have.
    next: u64,
    since: u64,
    /// Whether the end of the snapshot was told.
    greeted: bool,
    _permit: StreamPermit,
}

enum Read {
    Session(Option<(Owner, Status)>),
    Segments(Vec<Segment>, u32),
    Statuses(Vec<Status>),
}

enum Step {
    Send(Outgoing),
    Read(Reading<Read>),
    End(Close),
    Wait,
}

impl StatusStream {
    /// A stream of one session, for a client that has seen what `last` names. Subscribes at once.
    #[must_use]
    pub fn of_session(
        hub: &Arc<Hub>,
        source: Arc<dyn Source>,
        permit: StreamPermit,
        id: SessionId,
        last: EventId,
        peer: Option<Arc<Peer>>,
    ) -> Self {
        let watch = hub.watch_session(id, peer);
        Self::new(View::Session(SessionView {
            watch,
            source,
            id,
            seen: last.version,
            next: last.segments,
            turn: None,
            _permit: permit,
        }))
    }

    /// A stream of all sessions of an owner. Subscribes at once.
    #[must_use]
    pub fn of_owner(
        hub: &Arc<Hub>,
        source: Arc<dyn Source>,
        permit: StreamPermit,
        owner: Owner,
        peer: Option<Arc<Peer>>,
    ) -> Self {
        let watch = hub.watch_owner(&owner, peer);
        let since = lock(&watch.topic).end();
        Self::new(View::Owner(OwnerView { watch, source, owner, next: 0, since, greeted: false, _permit: permit }))
    }

    /// A stream that only says why there is none.
    #[must_use]
    pub fn refused() -> Self {
        let mut stream = Self::new(View::Refused);
        stream.ready.push_back(bye(Bye::Limit));
        stream.ended = true;
        stream
    }

    fn new(view: View) -> Self {
        Self { view, ready: VecDeque::from([hub::retry()]), reading: None, ended: false, gzip: None }
    }

    /// The same stream, written as a gzip file.
    #[must_use]
    pub fn gzipped(mut self) -> Self {
        self.gzip = Some(Box::default());
        self
    }

    /// What to write for these events in place of their texts, and for the end if they are the `last`; none where the
    /// texts are written as they are.
    pub(super) fn pack<'a>(&mut self, texts: impl Iterator<Item = &'a Bytes> + Clone, last: bool) -> Option<Bytes> {
        self.gzip.as_mut().map(|gzip| gzip.write(texts, last))
    }

    fn slot(&self) -> Option<&Slot> {
        match &self.view {
            View::Session(view) => Some(&view.watch.slot),
            View::Owner(view) => Some(&view.watch.slot),
            View::Refused => None,
        }
    }

    fn hub(&self) -> Option<&Hub> {
        match &self.view {
            View::Session(view) => Some(&view.watch.hub),
            View::Owner(view) => Some(&view.watch.hub),
            View::Refused => None,
        }
    }

    fn end(&mut self, why: Close) {
        self.ended = true;
        match &mut self.view {
            View::Session(view) => view.watch.end = why,
            View::Owner(view) => view.watch.end = why,
            View::Refused => {}
        }
    }

    /// Whether the client took in nothing for too long: nothing more must be written.
    pub(super) fn is_cut(&self) -> bool {
        self.slot().is_some_and(|slot| slot.closing() == Some(Close::Stalled))
    }

    /// Wakes this task when the hub has something, also while the socket is blocked.
    pub(super) fn register(&self, cx: &Context<'_>) {
        if let Some(slot) = self.slot() {
            slot.register(cx.waker());
        }
    }

    /// Notes that the socket took some of what waits, or nothing.
    pub(super) fn wrote(&self, some: bool) {
        let (Some(slot), Some(hub)) = (self.slot(), self.hub()) else { return };
        if some {
            slot.goes_on();
        } else {
            slot.waits(hub.now());
        }
    }

    /// Notes that events were written as so many bytes: the hub counts them, and how long they took since they were
    /// published.
    pub(super) fn sent<'a>(&self, events: impl IntoIterator<Item = &'a Outgoing>, bytes: usize) {
        let Some(hub) = self.hub() else { return };
        hub.meters.bytes.increment(bytes as u64);
        for out in events {
            hub.meters.sent(out.frame.kind());
            if let Some(published) = out.published {
                hub.meters.latency.record(published.elapsed().as_secs_f64());
            }
        }
    }

    /// The next thing to send; none at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Some(slot) = self.slot() {
            slot.goes_on();
        }
        loop {
            if let Some(frame) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    self.ready = VecDeque::new(); // a stream lives long, and what it held is never needed again
                }
                return Poll::Ready(Some(self.gives(Outgoing::stored(frame))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(reading) = &mut self.reading {
                let read = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                match read {
                    Ok(read) => self.take_in(read),
                    Err(error) => {
                        tracing::error!(%error, "a status stream could not read the store");
                        self.end(Close::Error);
                    }
                }
                continue;
            }
            self.register(cx);
            if let Some(why) = self.slot().and_then(Slot::closing) {
                self.end(why);
                if let Some(reason) = why.bye() {
                    self.ready.push_back(bye(reason));
                }
                continue;
            }
            let step = match &mut self.view {
                View::Session(view) => view.step(),
                View::Owner(view) => view.step(),
                View::Refused => Step::End(Close::Ended),
            };
            match step {
                Step::Send(out) => return Poll::Ready(Some(self.gives(out))),
                Step::Read(reading) => self.reading = Some(reading),
                Step::End(why) => self.end(why),
                Step::Wait => {
                    let Some(slot) = self.slot() else { continue };
                    if !slot.take_beat() {
                        return Poll::Pending;
                    }
                    let Some(hub) = self.hub() else { continue };
                    return Poll::Ready(Some(self.gives(Outgoing::stored(hub.heartbeat()))));
                }
            }
        }
    }

    fn gives(&self, out: Outgoing) -> Outgoing {
        if let (Some(slot), Some(hub)) = (self.slot(), self.hub()) {
            slot.sent(hub.now(), out.frame.kind() == Kind::Heartbeat);
        }
        out
    }

    fn take_in(&mut self, read: Read) {
        match (&mut self.view, read) {
            (View::Session(view), Read::Session(Some((owner, status)))) => view.watch.hub.learn(&owner, &status),
            (View::Session(_), Read::Session(None)) => self.end(Close::Ended),
            (View::Session(view), Read::Segments(segments, until)) => {
                if segments.is_empty() {
                    // Announced, but no longer there: deleted meanwhile. Asking again would go on for ever.
                    return self.end(Close::Ended);
                }
                let from = view.next;
                for segment in segments.iter().filter(|s| (from..until).contains(&s.index)) {
                    // Before the status that counts it, as in `Hub::publish`: what was seen stays what it was.
                    self.ready.push_back(Frame::segment(&SegmentEvent::new(view.id, segment), view.seen));
                    view.next = segment.index + 1;
                }
            }
            (View::Owner(view), Read::Statuses(statuses)) => view.watch.hub.learn_list(&view.owner, &statuses),
            _ => {}
        }
    }
}

impl SessionView {
    fn step(&mut self) -> Step {
        let next = lock(&self.watch.topic).next(self.seen, self.next, self.turn);
        match next {
            Next::Load => {
                self.watch.hub.meters.snapshot_reads.increment(1);
                let reading = self.source.session(self.id);
                Step::Read(Box::pin(async move { reading.await.map(Read::Session) }))
            }
            Next::Segments(from, until) => {
                self.watch.hub.meters.snapshot_reads.increment(1);
                let reading = self.source.segments(self.id, from);
                Step::Read(Box::pin(async move { reading.await.map(|read| Read::Segments(read, until)) }))
            }
            Next::Send(mut out, version) => {
                self.next += 1;
                if version < self.seen {
                    // Overtaken by a status: its id must not say that this is still to come.
                    out.frame = out.frame.counting(EventId { version: self.seen, segments: self.next });
                }
                Step::Send(out)
            }
            Next::Status { latest, skipped } => {
                self.seen = latest.version;
                self.turn = Some(latest.turn);
                if skipped > 0 {
                    self.watch.hub.meters.conflated.increment(u64::from(skipped));
                }
                let mut out = latest.out;
                if latest.segments < self.next {
                    // One that was overtaken by segments: its id must not say that they are still to come.
                    out.frame = out.frame.counting(EventId { version: latest.version, segments: self.next });
                }
                Step::Send(out)
            }
            Next::End => Step::End(Close::Ended),
            Next::Wait => Step::Wait,
        }
    }
}

impl OwnerView {
    fn step(&mut self) -> Step {
        let topic = lock(&self.watch.topic);
        if !topic.loaded {
            drop(topic);
            self.watch.hub.meters.snapshot_reads.increment(1);
            let reading = self.source.statuses(&self.owner);
            return Step::Read(Box::pin(async move { reading.await.map(Read::Statuses) }));
        }
        match topic.next(self.next, self.since) {
            Some((next, out)) => {
                self.next = next;
                Step::Send(out)
            }
            None if !self.greeted => {
                self.greeted = true;
                // An owner without sessions has an empty snapshot; this tells the client that events get through.
                Step::Send(Outgoing::stored(Frame::heartbeat(Timestamp::now())))
            }
            None => Step::Wait,
        }
    }
}
