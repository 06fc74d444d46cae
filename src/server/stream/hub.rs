//! Who watches what, and the fan-out. A change is encoded once and put into the mailbox of every stream that watches
//! its session or its owner. A mailbox holds one status a session, the newest, however slowly its stream is read.

use super::Frame;
use crate::model::{SessionId, Timestamp};
use crate::server::{
    bus::{Change, Event},
    owner::Owner,
};
use bytes::Bytes;
use rand::RngExt;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Segments that wait for a slow reader take at most this many bytes; past that they are dropped, and a stream of one
/// session reads them from the store again when its client reads on.
const MAX_PENDING: usize = 64 * 1024;

/// Why the server ends a stream on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// The node is going down.
    Shutdown,
}

impl Bye {
    /// The reason as a `bye` event gives it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a stream finds in its mailbox.
#[derive(Debug)]
pub(super) enum Mail {
    /// Send this.
    Frame(Bytes),
    /// Segments were dropped: read them from the store, then go on.
    Gap,
    /// Nothing more will come.
    End,
}

/// A stream's view of the hub. Dropping it takes the stream out.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    key: Key,
    mailbox: Arc<Mailbox>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Session(SessionId),
    Owner(Owner),
}

#[derive(Debug, Default)]
struct Mailbox(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// One a session: the newest status that hasn't been sent, with its version.
    statuses: Vec<(SessionId, u64, Bytes)>,
    segments: VecDeque<Bytes>,
    segment_bytes: usize,
    gap: bool,
    heartbeat: Option<Bytes>,
    /// Versions sent, so that a late, older one isn't.
    sent: HashMap<SessionId, u64>,
    /// Last frame, then the end.
    last: Option<Bytes>,
    ended: bool,
    waker: Option<Waker>,
}

/// All streams of this node.
#[derive(Debug, Default)]
pub struct Hub {
    watchers: Mutex<Watchers>,
}

#[derive(Debug, Default)]
struct Watchers {
    mailboxes: HashMap<Key, Vec<Arc<Mailbox>>>,
    open: usize,
    closed: bool,
}

impl Hub {
    /// Starts to collect the changes of one session. Do this before reading its state from the store.
    #[must_use]
    pub fn watch_session(self: &Arc<Self>, id: SessionId) -> Subscription {
        self.watch(Key::Session(id))
    }

    /// Starts to collect the changes of all sessions of an owner.
    #[must_use]
    pub fn watch_owner(self: &Arc<Self>, owner: Owner) -> Subscription {
        self.watch(Key::Owner(owner))
    }

    fn watch(self: &Arc<Self>, key: Key) -> Subscription {
        let mailbox = Arc::new(Mailbox::default());
        let mut watchers = lock(&self.watchers);
        if watchers.closed {
            mailbox.close(Some(bye_frame(Bye::Shutdown)));
        }
        watchers.mailboxes.entry(key.clone()).or_default().push(Arc::clone(&mailbox));
        watchers.open += 1;
        metrics::gauge!("hark_streams_open").set(watchers.open as f64);
        drop(watchers);
        Subscription { hub: Arc::clone(self), key, mailbox }
    }

    /// How many streams are open.
    #[must_use]
    pub fn open(&self) -> usize {
        lock(&self.watchers).open
    }

    /// Hands a change to every stream that watches.
    pub fn publish(&self, event: &Event) {
        let id = match &event.change {
            Change::Status(status) | Change::Segment(_, status) => status.session_id,
            Change::Deleted(id) => *id,
        };
        let watchers = lock(&self.watchers);
        let of_session = watchers.mailboxes.get(&Key::Session(id));
        let of_owner = watchers.mailboxes.get(&Key::Owner(event.owner.clone()));
        if of_session.is_none() && of_owner.is_none() {
            return;
        }
        let all = || of_session.into_iter().chain(of_owner).flatten();
        match &event.change {
            Change::Segment(segment, status) => {
                let segment = Frame::segment(segment, status.version - 1).0;
                let frame = Frame::status(status).0;
                for mailbox in all() {
                    mailbox.put(Some(&segment), Some((id, status.version, &frame)));
                }
            }
            Change::Status(status) => {
                let frame = Frame::status(status).0;
                for mailbox in all() {
                    mailbox.put(None, Some((id, status.version, &frame)));
                }
                if status.state.is_terminal() {
                    for mailbox in of_session.into_iter().flatten() {
                        mailbox.close(None);
                    }
                }
            }
            Change::Deleted(_) => {
                for mailbox in of_session.into_iter().flatten() {
                    mailbox.close(None);
                }
            }
        }
    }

    /// Gives every stream a heartbeat, which a stream that has other mail may leave out.
    pub fn heartbeat(&self, now: Timestamp) {
        let frame = Frame::heartbeat(now).0;
        for mailbox in lock(&self.watchers).mailboxes.values().flatten() {
            mailbox.update(|pending| pending.heartbeat = Some(frame.clone()));
        }
    }

    /// Ends every stream with a `bye`, and those that come later.
    pub fn close(&self, reason: Bye) {
        let mut watchers = lock(&self.watchers);
        watchers.closed = true;
        for mailbox in watchers.mailboxes.values().flatten() {
            mailbox.close(Some(bye_frame(reason)));
        }
    }
}

/// Each with a random wait of its own, so that a thousand clients don't come back at once.
fn bye_frame(reason: Bye) -> Bytes {
    Frame::bye(reason, retry_ms()).0
}

/// How long a client should wait before it reconnects.
pub(super) fn retry_ms() -> u32 {
    rand::rng().random_range(250..=750)
}

impl Mailbox {
    fn update(&self, change: impl FnOnce(&mut Pending)) {
        let waker = {
            let mut pending = lock(&self.0);
            change(&mut pending);
            pending.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn put(&self, segment: Option<&Bytes>, status: Option<(SessionId, u64, &Bytes)>) {
        self.update(|pending| {
            if pending.ended {
                return;
            }
            if let Some(frame) = segment
                && !pending.gap
            {
                pending.segments.push_back(frame.clone());
                pending.segment_bytes += frame.len();
                if pending.segment_bytes > MAX_PENDING {
                    pending.segments.clear();
                    pending.segment_bytes = 0;
                    pending.gap = true;
                }
            }
            let Some((id, version, frame)) = status else { return };
            if pending.sent.get(&id).is_some_and(|sent| *sent >= version) {
                return;
            }
            match pending.statuses.iter_mut().find(|(known, ..)| *known == id) {
                Some(slot) if slot.1 < version => {
                    metrics::counter!("hark_updates_conflated_total").increment(1);
                    *slot = (id, version, frame.clone());
                }
                Some(_) => {}
                None => pending.statuses.push((id, version, frame.clone())),
            }
        });
    }

    fn close(&self, last: Option<Bytes>) {
        self.update(|pending| {
            if !pending.ended {
                pending.ended = true;
                pending.last = last;
            }
        });
    }
}

impl Subscription {
    /// What was sent from a snapshot: nothing up to this version needs to be sent again.
    pub(super) fn sent(&self, id: SessionId, version: u64) {
        let mut pending = lock(&self.mailbox.0);
        let sent = pending.sent.entry(id).or_default();
        *sent = (*sent).max(version);
        pending.statuses.retain(|(known, v, _)| *known != id || *v > version);
    }

    /// Forgets the segments that wait: the stream is about to read them from the store.
    pub(super) fn clear_gap(&self) {
        let mut pending = lock(&self.mailbox.0);
        pending.gap = false;
        pending.segments.clear();
        pending.segment_bytes = 0;
    }

    /// The next thing to send: segments before the status that counts them, and a heartbeat if there is nothing else.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Mail> {
        let mut pending = lock(&self.mailbox.0);
        if pending.gap {
            return Poll::Ready(Mail::Gap);
        }
        if let Some(frame) = pending.segments.pop_front() {
            pending.segment_bytes -= frame.len();
            return Poll::Ready(Mail::Frame(frame));
        }
        if !pending.statuses.is_empty() {
            let (id, version, frame) = pending.statuses.remove(0);
            pending.sent.insert(id, version);
            pending.heartbeat = None;
            return Poll::Ready(Mail::Frame(frame));
        }
        if pending.ended {
            return Poll::Ready(pending.last.take().map_or(Mail::End, Mail::Frame));
        }
        if let Some(frame) = pending.heartbeat.take() {
            return Poll::Ready(Mail::Frame(frame));
        }
        if !pending.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            pending.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watchers = lock(&self.hub.watchers);
        watchers.open -= 1;
        metrics::gauge!("hark_streams_open").set(watchers.open as f64);
        if let Some(mailboxes) = watchers.mailboxes.get_mut(&self.key) {
            mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
            if mailboxes.is_empty() {
                watchers.mailboxes.remove(&self.key);
            }
        }
    }
}

/// A thread that panicked while holding a lock can have left nothing half done here: every change is a plain store.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
