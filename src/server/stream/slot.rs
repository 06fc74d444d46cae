//! The hub's record of one open stream: how to wake it, when it last sent something, and why it must end. It consists
//! of a few atomics, so that the fan-out neither locks nor allocates for a stream.

use super::{Bye, socket::Peer, ticks::Ticks};
use futures::task::AtomicWaker;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum CloseReason {
    /// The session ended or was deleted.
    Ended,
    /// The client went away.
    Client,
    /// The client read nothing for too long.
    Stalled,
    /// The store could not be read.
    Error,
    Shutdown,
    Lifetime,
    Idle,
    Logout,
}

impl CloseReason {
    pub(super) const ALL: [CloseReason; 8] = [
        Self::Ended,
        Self::Client,
        Self::Stalled,
        Self::Error,
        Self::Shutdown,
        Self::Lifetime,
        Self::Idle,
        Self::Logout,
    ];

    /// The label of metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Client => "client",
            Self::Stalled => "stalled",
            Self::Error => "error",
            Self::Shutdown => "shutdown",
            Self::Lifetime => "lifetime",
            Self::Idle => "idle",
            Self::Logout => "logout",
        }
    }

    /// The `bye` to send, where the server ends the stream on purpose.
    pub(super) fn bye(self) -> Option<Bye> {
        match self {
            Self::Ended | Self::Client | Self::Stalled | Self::Error => None,
            Self::Shutdown => Some(Bye::Shutdown),
            Self::Lifetime => Some(Bye::Lifetime),
            Self::Idle => Some(Bye::Idle),
            Self::Logout => Some(Bye::Logout),
        }
    }
}

/// The value of `closing` while there is no reason to close.
const OPEN: u8 = u8::MAX;

/// An open stream as the hub sees it.
#[derive(Debug)]
pub(super) struct Slot {
    waker: AtomicWaker,
    closing: AtomicU8,
    /// Whether a heartbeat is due, and whether the last one promised another one soon.
    heartbeat_due: AtomicBool,
    beats_fast: AtomicBool,
    /// When the last event was sent, heartbeats included.
    last_sent: AtomicU32,
    /// When the last event other than a heartbeat was sent.
    last_event: AtomicU32,
    /// Since when events are pending and none of them was sent; 0 while none is pending.
    pending_since: AtomicU32,
    /// When the stream's lifetime is over.
    pub(super) expires: Ticks,
    /// The connection, if hyper writes to it: then the stream can't see whether its bytes are sent.
    pub(super) peer: Option<Arc<Peer>>,
}

impl Slot {
    pub(super) fn new(now: Ticks, expires: Ticks, peer: Option<Arc<Peer>>) -> Self {
        Self {
            waker: AtomicWaker::new(),
            closing: AtomicU8::new(OPEN),
            heartbeat_due: AtomicBool::new(false),
            beats_fast: AtomicBool::new(false),
            last_sent: AtomicU32::new(now),
            last_event: AtomicU32::new(now),
            pending_since: AtomicU32::new(0),
            expires,
            peer,
        }
    }

    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Wakes the stream's task, because there is something to send.
    pub(super) fn wake(&self, now: Ticks) {
        self.mark_pending(now);
        self.waker.wake();
    }

    /// Asks the stream to end. The first reason is kept.
    pub(super) fn close(&self, why: CloseReason, now: Ticks) {
        if self.closing.compare_exchange(OPEN, why as u8, Relaxed, Relaxed).is_ok() {
            if let Some(peer) = self.peer.as_ref().filter(|_| why == CloseReason::Stalled) {
                peer.cut();
            }
            self.wake(now);
        }
    }

    pub(super) fn closing(&self) -> Option<CloseReason> {
        CloseReason::ALL.get(usize::from(self.closing.load(Relaxed))).copied()
    }

    /// Asks for a heartbeat, which promises another one soon if `fast`.
    pub(super) fn request_heartbeat(&self, fast: bool, now: Ticks) {
        self.beats_fast.store(fast, Relaxed);
        self.heartbeat_due.store(true, Relaxed);
        self.wake(now);
    }

    /// Notes what a heartbeat promises.
    pub(super) fn promise(&self, fast: bool) {
        self.beats_fast.store(fast, Relaxed);
    }

    /// Whether the last heartbeat promised another one soon.
    pub(super) fn beats_fast(&self) -> bool {
        self.beats_fast.load(Relaxed)
    }

    pub(super) fn take_heartbeat_request(&self) -> bool {
        self.heartbeat_due.load(Relaxed) && self.heartbeat_due.swap(false, Relaxed)
    }

    pub(super) fn sent(&self, now: Ticks, heartbeat: bool) {
        self.last_sent.store(now, Relaxed);
        if !heartbeat {
            self.last_event.store(now, Relaxed);
        }
    }

    pub(super) fn last_sent(&self) -> Ticks {
        self.last_sent.load(Relaxed)
    }

    pub(super) fn last_event(&self) -> Ticks {
        self.last_event.load(Relaxed)
    }

    /// Notes that something is pending.
    pub(super) fn mark_pending(&self, now: Ticks) {
        if self.pending_since.load(Relaxed) == 0 {
            self.pending_since.store(now.max(1), Relaxed);
        }
    }

    /// Notes that nothing is pending any more, or that some of it was sent.
    pub(super) fn mark_progress(&self) {
        if self.pending_since.load(Relaxed) != 0 {
            self.pending_since.store(0, Relaxed);
        }
    }

    /// Since when the client has read nothing although something is pending.
    pub(super) fn stalled_since(&self) -> Option<Ticks> {
        let own = Some(self.pending_since.load(Relaxed)).filter(|since| *since != 0);
        let below = self.peer.as_ref().and_then(|peer| peer.blocked_since());
        own.into_iter().chain(below).min()
    }
}
