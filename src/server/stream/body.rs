//! The response body of a status stream: a snapshot from the store, then whatever the hub's mailbox holds.
//! The subscription is made before the snapshot is read, and what the snapshot covers is dropped, so nothing is missed.

use super::{
    Frame, Subscription,
    hub::{Mail, retry_ms},
};
use crate::model::{Segment, SegmentEvent, SessionId, Status, Timestamp};
use bytes::Bytes;
use http_body::{Body, Frame as BodyFrame};
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// One reading of the store: segments to send, then statuses.
#[derive(Debug, Default)]
pub struct SnapshotPage {
    pub segments: Vec<Segment>,
    /// Of the session whose segments these are, or of all sessions of an owner.
    pub statuses: Vec<Status>,
    /// Whether there are more segments to read before the statuses may be sent.
    pub more: bool,
}

/// Reads the store for a stream: the segments from an index on, and the newest statuses.
pub trait Snapshot: Send + 'static {
    /// One page from segment `from` on. An error ends the stream; the client comes back.
    fn read(&self, from: u32) -> impl Future<Output = Result<SnapshotPage, sqlx::Error>> + Send + 'static;
}

type Reading = Pin<Box<dyn Future<Output = Result<SnapshotPage, sqlx::Error>> + Send>>;

/// A status stream as a response body.
pub struct StatusBody<S> {
    subscription: Subscription,
    source: S,
    /// The session of a one-session stream, whose segments must be gapless.
    session: Option<SessionId>,
    /// The version the client has seen, and the next segment it needs.
    seen: u64,
    next: u32,
    ready: VecDeque<Bytes>,
    reading: Option<Reading>,
    ended: bool,
}

impl<S: Snapshot> StatusBody<S> {
    /// A stream of one session, for a client that has seen `seen` and the segments before `next`.
    pub fn of_session(subscription: Subscription, source: S, session: SessionId, seen: u64, next: u32) -> Self {
        Self::new(subscription, source, Some(session), seen, next)
    }

    /// A stream of all sessions of an owner.
    pub fn of_owner(subscription: Subscription, source: S) -> Self {
        Self::new(subscription, source, None, 0, 0)
    }

    fn new(subscription: Subscription, source: S, session: Option<SessionId>, seen: u64, next: u32) -> Self {
        let reading: Reading = Box::pin(source.read(next));
        let ready = VecDeque::from([Frame::retry(retry_ms()).0]);
        Self { subscription, source, session, seen, next, ready, reading: Some(reading), ended: false }
    }

    fn take_in(&mut self, page: SnapshotPage) {
        if let Some(session_id) = self.session {
            for segment in page.segments.iter().filter(|s| s.index >= self.next) {
                // Before the status that counts it, as in `Hub::publish`: what was seen stays what it was.
                let frame = Frame::segment(&SegmentEvent::new(session_id, segment), self.seen);
                self.ready.push_back(frame.0);
            }
            self.next = page.segments.last().map_or(self.next, |last| self.next.max(last.index + 1));
        }
        if page.more {
            self.reading = Some(Box::pin(self.source.read(self.next)));
            return;
        }
        for status in page.statuses {
            self.subscription.sent(status.session_id, status.version);
            if status.version > self.seen || self.session.is_none() {
                self.ready.push_back(Frame::status(&status).0);
            }
            if self.session.is_some() {
                self.seen = self.seen.max(status.version);
                self.ended |= status.state.is_terminal();
            }
        }
        if self.session.is_none() {
            // An owner without sessions has an empty snapshot; this tells the client that events get through.
            self.ready.push_back(Frame::heartbeat(Timestamp::now()).0);
        }
    }

    /// Takes in a frame from the mailbox. A segment already sent from the store is dropped; one that comes too early
    /// is dropped as well, and the store read again.
    fn take_live(&mut self, frame: Bytes) {
        if let Some(index) = self.session.and(segment_index(&frame)) {
            if index != self.next {
                if index > self.next {
                    self.reading = Some(Box::pin(self.source.read(self.next)));
                }
                return;
            }
            self.next = index + 1;
        }
        self.ready.push_back(frame);
    }
}

/// The index of the segment that a frame announces, from its `id:` line; none for other events.
fn segment_index(frame: &Bytes) -> Option<u32> {
    let text = std::str::from_utf8(frame).ok()?;
    let (id, rest) = text.strip_prefix("id: ")?.split_once('\n')?;
    rest.starts_with("event: segment\n").then_some(())?;
    id.parse::<crate::model::EventId>().ok()?.segments.checked_sub(1)
}

impl<S: Snapshot + Unpin> Body for StatusBody<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Infallible>>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                metrics::counter!("hark_stream_bytes_total").increment(frame.len() as u64);
                return Poll::Ready(Some(Ok(BodyFrame::data(frame))));
            }
            if let Some(reading) = &mut self.reading {
                let page = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                match page {
                    Ok(page) => self.take_in(page),
                    Err(error) => {
                        tracing::error!(%error, "a status stream could not read its snapshot");
                        self.ended = true;
                    }
                }
                continue;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.subscription.poll_next(cx)) {
                Mail::Frame(frame) => self.take_live(frame),
                Mail::Gap => {
                    self.subscription.clear_gap();
                    // A watcher of all sessions compares the counts and fetches what it lacks.
                    if self.session.is_some() {
                        self.reading = Some(Box::pin(self.source.read(self.next)));
                    }
                }
                Mail::End => self.ended = true,
            }
        }
    }
}
