//! A hub with streams, without a network: sessions, a stand-in for the store, and reads that take several polls.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use futures::task::noop_waker;
use hark::{
    model::{EventId, Segment, SessionId, Stage, State, Status, Timestamp},
    server::{
        event::Event,
        owner::Owner,
        shares::Standing,
        stream::{Hub, Outgoing, Source, SourceFuture, StatusStream, StreamLimits},
    },
};
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use uuid::Uuid;

pub fn id() -> SessionId {
    SessionId(Uuid::from_u128(7))
}

pub fn status(version: u64, segments: u32, state: State) -> Status {
    Status {
        version,
        message: "Transcribing".to_owned(),
        segments,
        ..Status::new(id(), state, Some(Stage::Transcribing), Timestamp(0))
    }
}

pub fn segment(index: u32) -> Segment {
    let start = f64::from(index);
    Segment::new(index, start, start + 1.0, &format!("line {index}"))
}

/// The store of these tests: what was stored, and how many polls each read takes.
#[derive(Default)]
pub struct Stored {
    pub state: Mutex<(Option<Status>, Vec<Segment>)>,
    pub polls: u8,
}

struct SlowRead<T>(u8, Option<Box<dyn FnOnce() -> T + Send>>);

impl<T> Future for SlowRead<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if self.0 == 0 {
            return Poll::Ready(self.1.take().expect("polled after its end")());
        }
        self.0 -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The source of streams, which reads from the shared [`Stored`].
struct StoredSource(Arc<Stored>, Owner);

impl Source for StoredSource {
    fn session(&self, _: SessionId) -> SourceFuture<Option<(Owner, Status)>> {
        let (stored, owner) = (Arc::clone(&self.0), self.1.clone());
        Box::pin(SlowRead(
            self.0.polls,
            Some(Box::new(move || Ok(stored.state.lock().unwrap().0.clone().map(|s| (owner, s))))),
        ))
    }

    fn segments(&self, _: SessionId, from: u32) -> SourceFuture<Vec<Segment>> {
        let stored = Arc::clone(&self.0);
        // Pages of three segments, so that there are several pages.
        let read = move || Ok(stored.state.lock().unwrap().1.iter().skip(from as usize).take(3).cloned().collect());
        Box::pin(SlowRead(self.0.polls, Some(Box::new(read))))
    }

    fn statuses(&self, _: &Owner) -> SourceFuture<Vec<Status>> {
        let stored = Arc::clone(&self.0);
        let read = move || Ok(stored.state.lock().unwrap().0.clone().into_iter().collect());
        Box::pin(SlowRead(self.0.polls, Some(Box::new(read))))
    }

    fn is_signed_in(&self, _: &str) -> SourceFuture<bool> {
        Box::pin(SlowRead(self.0.polls, Some(Box::new(|| Ok(true)))))
    }
}

pub struct World {
    pub hub: Arc<Hub>,
    pub stored: Arc<Stored>,
    pub source: Arc<dyn Source>,
    pub owner: Owner,
}

impl World {
    pub fn new(polls: u8) -> Self {
        let limits = StreamLimits { per_owner: 100_000, per_node: 100_000, ..StreamLimits::default() };
        let stored = Arc::new(Stored { polls, ..Stored::default() });
        let owner = Owner::from_store("me".to_owned());
        let source: Arc<dyn Source> = Arc::new(StoredSource(Arc::clone(&stored), owner.clone()));
        Self { hub: Arc::new(Hub::new(limits)), stored, source, owner }
    }

    pub fn stream(&self, last: EventId) -> StatusStream {
        let permit = self.hub.admit(&self.owner, Standing::Known).unwrap();
        StatusStream::of_session(&self.hub, self.source.clone(), permit, id(), last, None)
    }

    pub fn owner_stream(&self) -> StatusStream {
        let permit = self.hub.admit(&self.owner, Standing::Known).unwrap();
        StatusStream::of_owner(&self.hub, self.source.clone(), permit, self.owner.clone(), None)
    }

    pub fn publish_status(&self, version: u64, state: State) {
        self.hub.publish(&self.store_status(version, state));
    }

    pub fn publish_segment(&self, version: u64) {
        let (segment, status) = self.store_segment(version);
        self.hub.publish(&Event::segment(self.owner.clone(), &segment, status));
    }

    /// Stores a status without publishing it, as another node does whose messages may get lost.
    pub fn store_status(&self, version: u64, state: State) -> Event {
        let mut stored = self.stored.state.lock().unwrap();
        let status = status(version, stored.1.len() as u32, state);
        stored.0 = Some(status.clone());
        Event::status(self.owner.clone(), status)
    }

    /// As [`World::store_status`].
    pub fn store_segment(&self, version: u64) -> (Segment, Status) {
        let mut stored = self.stored.state.lock().unwrap();
        let segment = segment(stored.1.len() as u32);
        stored.1.push(segment.clone());
        let status = status(version, stored.1.len() as u32, State::Processing);
        stored.0 = Some(status.clone());
        (segment, status)
    }

    /// Updates the hub with what the store has and it doesn't, as `bus::reconcile` does.
    pub fn compare(&self) {
        let Some(status) = self.stored.state.lock().unwrap().0.clone() else { return };
        let held = self.hub.held().get(&id()).copied();
        if held.is_some_and(|(version, segments)| status.version > version || status.segments > segments) {
            self.hub.refresh(&self.owner, &status);
        }
    }
}

pub fn poll(stream: &mut StatusStream) -> Poll<Option<Outgoing>> {
    stream.poll_next(&mut Context::from_waker(&noop_waker()))
}

pub fn drain(stream: &mut StatusStream) -> Vec<Outgoing> {
    std::iter::from_fn(|| match poll(stream) {
        Poll::Ready(out) => out,
        Poll::Pending => None,
    })
    .collect()
}
