//! What the hub keeps of one open stream: how to wake it, when it last sent something, and why it must end.
//! A few atomics, so that the fan-out neither locks nor allocates for a stream.

use super::{Bye, socket::Peer, ticks::Ticks};
use futures::task::AtomicWaker;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Close {
    /// The session ended, or is gone.
    Ended,
    /// The client went away.
    Client,
    /// The client took nothing in for too long.
    Stalled,
    /// The store could not be read.
    Error,
    Shutdown,
    Lifetime,
    Idle,
    Logout,
}

impl Close {
    pub(super) const ALL: [Close; 8] = [
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

    /// What the client is told, where the server ends the stream on purpose.
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

/// No reason to close.
const OPEN: u8 = u8::MAX;

/// An open stream as the hub sees it.
#[derive(Debug)]
pub(super) struct Slot {
    waker: AtomicWaker,
    closing: AtomicU8,
    /// A heartbeat is due.
    beat: AtomicBool,
    /// When the last event went out, of any kind and other than a heartbeat.
    sent: AtomicU32,
    told: AtomicU32,
    /// Since when something waits to be sent and none of it went out; 0 while nothing waits.
    waiting: AtomicU32,
    /// When the stream has lived long enough.
    pub(super) expires: Ticks,
    /// The connection, where hyper writes to it and the stream can't see whether its bytes get through.
    pub(super) peer: Option<Arc<Peer>>,
}

impl Slot {
    pub(super) fn new(now: Ticks, expires: Ticks, peer: Option<Arc<Peer>>) -> Self {
        Self {
            waker: AtomicWaker::new(),
            closing: AtomicU8::new(OPEN),
            beat: AtomicBool::new(false),
            sent: AtomicU32::new(now),
            told: AtomicU32::new(now),
            waiting: AtomicU32::new(0),
            expires,
            peer,
        }
    }

    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Tells the stream that there is something to send.
    pub(super) fn wake(&self, now: Ticks) {
        self.waits(now);
        self.waker.wake();
    }

    /// Asks the stream to end. The first reason stays.
    pub(super) fn close(&self, why: Close, now: Ticks) {
        if self.closing.compare_exchange(OPEN, why as u8, Relaxed, Relaxed).is_ok() {
            if let Some(peer) = self.peer.as_ref().filter(|_| why == Close::Stalled) {
                peer.cut();
            }
            self.wake(now);
        }
    }

    pub(super) fn closing(&self) -> Option<Close> {
        Close::ALL.get(usize::from(self.closing.load(Relaxed))).copied()
    }

    pub(super) fn beat(&self, now: Ticks) {
        self.beat.store(true, Relaxed);
        self.wake(now);
    }

    pub(super) fn take_beat(&self) -> bool {
        self.beat.load(Relaxed) && self.beat.swap(false, Relaxed)
    }

    pub(super) fn sent(&self, now: Ticks, heartbeat: bool) {
        self.sent.store(now, Relaxed);
        if !heartbeat {
            self.told.store(now, Relaxed);
        }
    }

    pub(super) fn last_sent(&self) -> Ticks {
        self.sent.load(Relaxed)
    }

    pub(super) fn last_told(&self) -> Ticks {
        self.told.load(Relaxed)
    }

    /// Something waits to be sent.
    pub(super) fn waits(&self, now: Ticks) {
        if self.waiting.load(Relaxed) == 0 {
            self.waiting.store(now.max(1), Relaxed);
        }
    }

    /// Nothing waits any more, or some of it went out.
    pub(super) fn goes_on(&self) {
        if self.waiting.load(Relaxed) != 0 {
            self.waiting.store(0, Relaxed);
        }
    }

    /// Since when the client has taken nothing although something waits for it.
    pub(super) fn stuck_since(&self) -> Option<Ticks> {
        let own = Some(self.waiting.load(Relaxed)).filter(|since| *since != 0);
        let below = self.peer.as_ref().and_then(|peer| peer.blocked_since());
        own.into_iter().chain(below).min()
    }
}
