//! One status stream: what its client has seen, and what must be sent next. It subscribes before it reads the store, so
//! that nothing is missed, and reads the store only for what the hub doesn't hold. `body` and `direct` write its
//! events.

use super::{
    Bye, Frame, Kind, Outgoing, StreamPermit,
    gzip::Gzip,
    hub::{self, Hub, Watch, bye},
    life::{Life, Subject},
    lock::lock,
    meters::Scope,
    slot::{CloseReason, Slot},
    socket::Peer,
    topic::{DashboardTopic, ModelsTopic, Next, OwnerTopic, SessionTopic},
};
use crate::{
    model::{Arm, EventId, Segment, SegmentEvent, SessionId, Status, figures::Range},
    server::owner::Owner,
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

/// Why reading from the source failed.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;
/// A read from the source that hasn't finished.
pub type SourceFuture<T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send>>;

/// Where streams read what the hub doesn't hold: the store, or a stand-in in tests.
pub trait Source: Send + Sync + 'static {
    /// A session's owner and status; none if there is no such session.
    fn session(&self, id: SessionId) -> SourceFuture<Option<(Owner, Status)>>;
    /// A page of segments from index `from` on.
    fn segments(&self, id: SessionId, from: u32) -> SourceFuture<Vec<Segment>>;
    /// The statuses of an owner's sessions that haven't ended or changed lately.
    fn statuses(&self, owner: &Owner) -> SourceFuture<Vec<Status>>;
    /// Whether an administrator's sign-in, named by its hash, hasn't ended.
    fn is_signed_in(&self, sign_in: &str) -> SourceFuture<bool>;
}

/// When the head of a request for a stream had been read; in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct RequestedAt(pub Instant);

/// A status stream, without the connection that carries it.
pub struct StatusStream {
    view: View,
    /// Frames read from the store and not yet sent.
    ready: VecDeque<Frame>,
    reading: Option<SourceFuture<ReadResult>>,
    ended: bool,
    /// The arm of the page that reads it; none for programs.
    arm: Option<Arm>,
    /// Compresses the stream, for a client that asked for it.
    gzip: Option<Box<Gzip>>,
    life: Life,
}

enum View {
    Session(SessionView),
    Owner(OwnerView),
    Models(ModelsView),
    Dashboard(DashboardView),
    /// A refusal: the stream is only a `bye`.
    Refused,
}

struct SessionView {
    watch: Watch<SessionTopic>,
    source: Arc<dyn Source>,
    id: SessionId,
    /// The version that the client has seen, and the next segment that it needs.
    seen: u64,
    next: u32,
    status_number: Option<u32>,
    permit: StreamPermit,
}

struct OwnerView {
    watch: Watch<OwnerTopic>,
    source: Arc<dyn Source>,
    owner: Owner,
    /// The number of the next change to send, and that of the first change whose segment is sent.
    next: u64,
    since: u64,
    /// Whether the end of the snapshot was sent.
    snapshot_end_sent: bool,
    permit: StreamPermit,
}

struct ModelsView {
    watch: Watch<ModelsTopic>,
    /// The version that the client has seen.
    seen: u64,
    permit: StreamPermit,
}

struct DashboardView {
    watch: Watch<DashboardTopic>,
    source: Arc<dyn Source>,
    /// The administrator's sign-in; none for who is administrator by a header or the token.
    sign_in: Option<Arc<str>>,
    /// The number of the last event that was sent, and of the last that may be; 0 before the first.
    seen: u64,
    allowed: u64,
    permit: StreamPermit,
}

enum ReadResult {
    Session(Option<Box<(Owner, Status)>>),
    Segments(Vec<Segment>, u32),
    Statuses(Vec<Status>),
    /// Whether the sign-in is valid, asked for the event of this number.
    SignedIn(u64, bool),
}

enum Step {
    Send(Outgoing),
    Read(SourceFuture<ReadResult>),
    End(CloseReason),
    Wait,
}

impl StatusStream {
    /// A stream of one session, for a client that has seen everything up to `last`. Subscribes at once.
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
            status_number: None,
            permit,
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
        Self::new(View::Owner(OwnerView { watch, source, owner, next: 0, since, snapshot_end_sent: false, permit }))
    }

    /// A stream of the models of this node, for a client that has seen everything up to the version `seen`.
    #[must_use]
    pub fn of_models(hub: &Arc<Hub>, permit: StreamPermit, seen: u64, peer: Option<Arc<Peer>>) -> Self {
        Self::new(View::Models(ModelsView { watch: hub.watch_models(peer), seen, permit }))
    }

    /// A stream of the dashboard of a range, which ends when the administrator's sign-in has. Subscribes at once.
    #[must_use]
    pub fn of_dashboard(
        hub: &Arc<Hub>,
        source: Arc<dyn Source>,
        permit: StreamPermit,
        range: Range,
        sign_in: Option<Arc<str>>,
        peer: Option<Arc<Peer>>,
    ) -> Self {
        let watch = hub.watch_dashboard(range, peer);
        Self::new(View::Dashboard(DashboardView { watch, source, sign_in, seen: 0, allowed: 0, permit }))
    }

    /// A stream that holds only the `bye` of a refusal.
    #[must_use]
    pub fn refused(why: Bye) -> Self {
        let mut stream = Self::new(View::Refused);
        stream.ready.push_back(bye(why));
        stream.ended = true;
        stream
    }

    fn new(view: View) -> Self {
        let ready = VecDeque::from([hub::retry()]);
        let life = Life::begin(view.hub().map(|hub| &**hub));
        Self { view, ready, reading: None, ended: false, arm: None, gzip: None, life }
    }

    /// The same stream, which was asked for at this time.
    #[must_use]
    pub fn requested(mut self, at: Instant) -> Self {
        self.life.requested(at.elapsed());
        self
    }

    /// The same stream, for a page of this arm: its bytes are counted.
    #[must_use]
    pub fn for_page(mut self, arm: Arm) -> Self {
        self.arm = Some(arm);
        self
    }

    /// The same stream, written as a gzip file.
    #[must_use]
    pub fn gzipped(mut self) -> Self {
        self.gzip = Some(Box::default());
        self
    }

    /// The bytes to write for these events, and for the end if they are the `last`; none if the stream isn't compressed
    /// and the texts are written as they are.
    pub(super) fn compress<'a>(&mut self, texts: impl Iterator<Item = &'a Bytes> + Clone, last: bool) -> Option<Bytes> {
        self.gzip.as_mut().map(|gzip| gzip.write(texts, last))
    }

    fn slot(&self) -> Option<&Slot> {
        match &self.view {
            View::Session(view) => Some(&view.watch.slot),
            View::Owner(view) => Some(&view.watch.slot),
            View::Models(view) => Some(&view.watch.slot),
            View::Dashboard(view) => Some(&view.watch.slot),
            View::Refused => None,
        }
    }

    fn hub(&self) -> Option<&Hub> {
        self.view.hub().map(|hub| &**hub)
    }

    fn end(&mut self, why: CloseReason) {
        self.ended = true;
        match &mut self.view {
            View::Session(view) => view.watch.end_reason = why,
            View::Owner(view) => view.watch.end_reason = why,
            View::Models(view) => view.watch.end_reason = why,
            View::Dashboard(view) => view.watch.end_reason = why,
            View::Refused => {}
        }
    }

    /// Whether the client read nothing for too long, so that nothing more may be written.
    pub(super) fn is_cut(&self) -> bool {
        self.slot().is_some_and(|slot| slot.closing() == Some(CloseReason::Stalled))
    }

    /// Has this task woken when the hub has something for it, also while the socket is blocked.
    pub(super) fn register(&self, cx: &Context<'_>) {
        if let Some(slot) = self.slot() {
            slot.register(cx.waker());
        }
    }

    /// Notes whether the socket accepted some of what is pending.
    pub(super) fn record_write(&self, some: bool) {
        let (Some(slot), Some(hub)) = (self.slot(), self.hub()) else { return };
        if some {
            slot.mark_progress();
        } else {
            slot.mark_pending(hub.now());
        }
    }

    /// Records in the metrics that events were written as so many bytes, and how long they took since they were
    /// published.
    pub(super) fn record_events<'a>(&mut self, events: impl IntoIterator<Item = &'a Outgoing>, bytes: usize) {
        if let Some(hub) = self.view.hub().filter(|hub| hub.is_measured) {
            if let Some(arm) = self.arm {
                hub.sightings().add_bytes(arm, bytes);
            }
            let written = self.life.wrote(hub, events, bytes);
            // The dashboard doesn't count what it causes itself.
            if !matches!(self.view, View::Dashboard(_)) {
                hub.meters.wrote(written, bytes);
            }
        }
    }

    /// The next event to send; none at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Some(slot) = self.slot() {
            slot.mark_progress();
        }
        loop {
            if let Some(frame) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    self.ready = VecDeque::new(); // gives its memory back: a stream lives long
                }
                return Poll::Ready(Some(self.record_sent(Outgoing::stored(frame))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(reading) = &mut self.reading
                && let Poll::Ready(read) = reading.as_mut().poll(cx)
            {
                self.reading = None;
                match read {
                    Ok(read) => self.apply(read),
                    Err(error) => {
                        tracing::error!(%error, "a status stream was closed because the store could not be read");
                        self.end(CloseReason::Error);
                    }
                }
                continue;
            }
            self.register(cx);
            if let Some(why) = self.slot().and_then(Slot::closing) {
                self.reading = None;
                self.end(why);
                if let Some(reason) = why.bye() {
                    self.ready.push_back(bye(reason));
                }
                continue;
            }
            let step = match &mut self.view {
                // A read may take long, while the database is away. Heartbeats go on meanwhile.
                _ if self.reading.is_some() => Step::Wait,
                View::Session(view) => view.step(),
                View::Owner(view) => view.step(),
                View::Models(view) => view.step(),
                View::Dashboard(view) => view.step(),
                View::Refused => Step::End(CloseReason::Ended),
            };
            match step {
                Step::Send(out) => return Poll::Ready(Some(self.record_sent(out))),
                Step::Read(reading) => self.reading = Some(reading),
                Step::End(why) => self.end(why),
                Step::Wait => {
                    let Some(slot) = self.slot() else { continue };
                    if !slot.take_heartbeat_request() {
                        return Poll::Pending;
                    }
                    let Some(hub) = self.hub() else { continue };
                    let heartbeat = hub.heartbeat(slot.beats_fast());
                    return Poll::Ready(Some(self.record_sent(Outgoing::stored(heartbeat))));
                }
            }
        }
    }

    fn record_sent(&self, out: Outgoing) -> Outgoing {
        if let (Some(slot), Some(hub)) = (self.slot(), self.hub()) {
            slot.sent(hub.now(), out.frame.kind() == Kind::Heartbeat);
        }
        out
    }

    fn apply(&mut self, read: ReadResult) {
        match (&mut self.view, read) {
            (View::Session(view), ReadResult::Session(Some(read))) => view.watch.hub.learn(&read.0, &read.1),
            (View::Session(_), ReadResult::Session(None)) => self.end(CloseReason::Ended),
            (View::Session(view), ReadResult::Segments(segments, until)) => {
                if segments.is_empty() {
                    // They were announced and are gone, so the session was deleted. Reading again would never end.
                    return self.end(CloseReason::Ended);
                }
                let from = view.next;
                for segment in segments.iter().filter(|s| (from..until).contains(&s.index)) {
                    // Sent before the status that counts it, as in `Hub::publish`, so its id has the version already
                    // seen.
                    self.ready.push_back(Frame::segment(&SegmentEvent::new(view.id, segment), view.seen));
                    view.next = segment.index + 1;
                }
                if view.next == from {
                    // Those asked for are gone: their transcript was replaced.
                    view.next = until;
                }
            }
            (View::Owner(view), ReadResult::Statuses(statuses)) => view.watch.hub.learn_list(&view.owner, &statuses),
            (View::Dashboard(view), ReadResult::SignedIn(number, true)) => view.allowed = number,
            (View::Dashboard(view), ReadResult::SignedIn(_, false)) => {
                view.watch.slot.close(CloseReason::Logout, view.watch.hub.now());
            }
            _ => {}
        }
    }
}

impl Drop for StatusStream {
    fn drop(&mut self) {
        let (subject, why) = match &self.view {
            View::Session(SessionView { id, permit, watch, .. }) => {
                (Subject { scope: Scope::Session, session: Some(*id), permit }, watch.close_reason())
            }
            View::Owner(OwnerView { permit, watch, .. }) => {
                (Subject { scope: Scope::Owner, session: None, permit }, watch.close_reason())
            }
            View::Models(ModelsView { permit, watch, .. }) => {
                (Subject { scope: Scope::Models, session: None, permit }, watch.close_reason())
            }
            View::Dashboard(DashboardView { permit, watch, .. }) => {
                (Subject { scope: Scope::Dashboard, session: None, permit }, watch.close_reason())
            }
            View::Refused => return,
        };
        if let Some(hub) = self.view.hub().filter(|hub| hub.is_measured) {
            self.life.end(hub, &subject, why);
        }
    }
}

impl View {
    fn hub(&self) -> Option<&Arc<Hub>> {
        match self {
            Self::Session(view) => Some(&view.watch.hub),
            Self::Owner(view) => Some(&view.watch.hub),
            Self::Models(view) => Some(&view.watch.hub),
            Self::Dashboard(view) => Some(&view.watch.hub),
            Self::Refused => None,
        }
    }
}

impl SessionView {
    fn step(&mut self) -> Step {
        let topic = lock(&self.watch.topic);
        self.next = self.next.max(topic.first_segment());
        let next = topic.next(self.seen, self.next, self.status_number);
        drop(topic);
        match next {
            Next::Load => {
                self.watch.hub.meters.snapshot_reads.increment(1);
                let reading = self.source.session(self.id);
                Step::Read(Box::pin(async move { reading.await.map(|read| ReadResult::Session(read.map(Box::new))) }))
            }
            Next::Segments(from, until) => {
                self.watch.hub.meters.snapshot_reads.increment(1);
                let reading = self.source.segments(self.id, from);
                Step::Read(Box::pin(async move { reading.await.map(|read| ReadResult::Segments(read, until)) }))
            }
            Next::Send(mut out, version) => {
                self.next += 1;
                if version < self.seen {
                    // A newer status was sent before it, so its id must name that one's version.
                    out.frame = out.frame.counting(EventId { version: self.seen, segments: self.next });
                }
                Step::Send(out)
            }
            Next::Status { latest, skipped } => {
                self.seen = latest.version;
                self.status_number = Some(latest.status_number);
                if skipped > 0 {
                    self.watch.hub.meters.conflated.increment(u64::from(skipped));
                }
                let mut out = latest.out;
                if latest.segments < self.next {
                    // Newer segments were sent before it, so its id must count them.
                    out.frame = out.frame.counting(EventId { version: latest.version, segments: self.next });
                }
                Step::Send(out)
            }
            Next::End => Step::End(CloseReason::Ended),
            Next::Wait => Step::Wait,
        }
    }
}

impl OwnerView {
    fn step(&mut self) -> Step {
        let mut topic = lock(&self.watch.topic);
        if !topic.loaded {
            drop(topic);
            self.watch.hub.meters.snapshot_reads.increment(1);
            let reading = self.source.statuses(&self.owner);
            return Step::Read(Box::pin(async move { reading.await.map(ReadResult::Statuses) }));
        }
        match topic.next(self.next, self.since) {
            Some((next, out)) => {
                self.next = next;
                Step::Send(out)
            }
            None if !self.snapshot_end_sent => {
                self.snapshot_end_sent = true;
                let busy = topic.is_running();
                drop(topic);
                self.watch.slot.promise(busy);
                // The snapshot of an owner without sessions is empty; a heartbeat shows the client that events get
                // through, and says when the next one comes.
                Step::Send(Outgoing::stored(self.watch.hub.heartbeat(busy)))
            }
            None => Step::Wait,
        }
    }
}

impl ModelsView {
    fn step(&mut self) -> Step {
        let topic = lock(&self.watch.topic);
        match &topic.latest {
            Some((version, out)) if *version > self.seen => {
                self.seen = *version;
                Step::Send(out.clone())
            }
            // Nothing more will come until somebody starts a download.
            _ if !topic.running => Step::End(CloseReason::Ended),
            _ => Step::Wait,
        }
    }
}

impl DashboardView {
    fn step(&mut self) -> Step {
        let topic = lock(&self.watch.topic);
        match &topic.latest {
            Some(latest) if latest.number > self.seen => {
                // The sign-in may have ended on another node, or by another password. There is an event every ten seconds.
                if let Some(sign_in) = &self.sign_in
                    && latest.number > self.allowed
                {
                    let (number, asking) = (latest.number, self.source.is_signed_in(sign_in));
                    return Step::Read(Box::pin(
                        async move { asking.await.map(|is| ReadResult::SignedIn(number, is)) },
                    ));
                }
                self.seen = latest.number;
                Step::Send(latest.out.clone())
            }
            _ => Step::Wait,
        }
    }
}
