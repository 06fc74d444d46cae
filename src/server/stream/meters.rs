//! The metrics of status streams. The handles are made once, because looking one up costs more than counting. The hub
//! makes them, after the recorder was installed.

use super::{Kind, permits::Refusal, slot::CloseReason};
use crate::server::hours::StreamTotals;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Whether a stream covers one session, all of its owner's, the models of this node, or the dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Session,
    Owner,
    Models,
    Dashboard,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Owner => "owner",
            Self::Models => "models",
            Self::Dashboard => "dashboard",
        }
    }
}

/// Handles of all metrics of status streams.
pub(crate) struct Meters {
    open: [Gauge; 4],
    opened: [Counter; 4],
    closed: [Counter; 8],
    refused: [Counter; 4],
    events: [Counter; Kind::ALL.len()],
    bytes: Counter,
    pub(super) latency: Histogram,
    pub(super) connect: Histogram,
    lives: Histogram,
    pub(super) conflated: Counter,
    pub(super) snapshot_reads: Counter,
    entries: [Gauge; 4],
    totals: Totals,
}

/// The same of this hub alone, because those above are the process's and can only be counted up. Without streams of the
/// dashboard, which shows these.
#[derive(Default)]
struct Totals {
    opened: AtomicU64,
    closed: [AtomicU64; 8],
    refused: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Meters {
    pub(super) fn new() -> Self {
        let scopes = [Scope::Session, Scope::Owner, Scope::Models, Scope::Dashboard];
        Self {
            open: scopes.map(|s| gauge!("hark_streams_open", "kind" => s.as_str())),
            opened: scopes.map(|s| counter!("hark_streams_opened_total", "kind" => s.as_str())),
            closed: CloseReason::ALL.map(|c| counter!("hark_streams_closed_total", "reason" => c.as_str())),
            refused: Refusal::ALL.map(|r| counter!("hark_streams_refused_total", "limit" => r.as_str())),
            events: Kind::ALL.map(|k| counter!("hark_stream_events_total", "event" => k.as_str())),
            bytes: counter!("hark_stream_bytes_total"),
            latency: histogram!("hark_publish_to_write_seconds"),
            connect: histogram!("hark_stream_connect_seconds"),
            lives: histogram!("hark_stream_open_seconds"),
            conflated: counter!("hark_updates_conflated_total"),
            snapshot_reads: counter!("hark_snapshot_reads_total"),
            entries: scopes.map(|s| gauge!("hark_hub_entries", "kind" => s.as_str())),
            totals: Totals::default(),
        }
    }

    pub(super) fn opened(&self, scope: Scope) {
        self.open[scope as usize].increment(1.0);
        self.opened[scope as usize].increment(1);
        if scope != Scope::Dashboard {
            self.totals.opened.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn closed(&self, scope: Scope, why: CloseReason) {
        self.open[scope as usize].decrement(1.0);
        self.closed[why as usize].increment(1);
        if scope != Scope::Dashboard {
            self.totals.closed[why as usize].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn lived(&self, life: Duration) {
        self.lives.record(life);
    }

    pub(super) fn refused(&self, limit: Refusal) {
        self.refused[limit as usize].increment(1);
        self.totals.refused.fetch_add(1, Relaxed);
    }

    /// Counts events that were written as so many bytes.
    pub(super) fn wrote(&self, events: u64, bytes: usize) {
        self.bytes.increment(bytes as u64);
        self.totals.bytes.fetch_add(bytes as u64, Relaxed);
        self.totals.events.fetch_add(events, Relaxed);
    }

    /// What this hub has counted.
    pub(super) fn totals(&self) -> StreamTotals {
        let Totals { opened, closed, refused, events, bytes } = &self.totals;
        let closed = CloseReason::ALL.map(|why| (why.as_str(), closed[why as usize].load(Relaxed)));
        StreamTotals {
            opened: opened.load(Relaxed),
            refused: refused.load(Relaxed),
            closed: closed.to_vec(),
            events: events.load(Relaxed),
            bytes: bytes.load(Relaxed),
        }
    }

    pub(super) fn sent(&self, kind: Kind) {
        self.events[kind as usize].increment(1);
    }

    pub(super) fn entries(&self, scope: Scope, n: usize) {
        self.entries[scope as usize].set(n as f64);
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}
