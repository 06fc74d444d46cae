//! The metrics of status streams. The handles are made once, because looking one up costs more than counting. The hub
//! makes them, after the recorder was installed.

use super::{Kind, permits::Refusal, slot::CloseReason};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Whether a stream covers one session, all of its owner's, or the models of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Session,
    Owner,
    Models,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Owner => "owner",
            Self::Models => "models",
        }
    }
}

/// Handles of all metrics of status streams.
pub(crate) struct Meters {
    open: [Gauge; 3],
    opened: [Counter; 3],
    closed: [Counter; 8],
    refused: [Counter; 4],
    events: [Counter; 6],
    pub(super) bytes: Counter,
    pub(super) latency: Histogram,
    pub(super) conflated: Counter,
    pub(super) snapshot_reads: Counter,
    entries: [Gauge; 3],
}

impl Meters {
    pub(super) fn new() -> Self {
        let scopes = [Scope::Session, Scope::Owner, Scope::Models];
        Self {
            open: scopes.map(|s| gauge!("hark_streams_open", "kind" => s.as_str())),
            opened: scopes.map(|s| counter!("hark_streams_opened_total", "kind" => s.as_str())),
            closed: CloseReason::ALL.map(|c| counter!("hark_streams_closed_total", "reason" => c.as_str())),
            refused: Refusal::ALL.map(|r| counter!("hark_streams_refused_total", "limit" => r.as_str())),
            events: Kind::ALL.map(|k| counter!("hark_stream_events_total", "event" => k.as_str())),
            bytes: counter!("hark_stream_bytes_total"),
            latency: histogram!("hark_publish_to_write_seconds"),
            conflated: counter!("hark_updates_conflated_total"),
            snapshot_reads: counter!("hark_snapshot_reads_total"),
            entries: scopes.map(|s| gauge!("hark_hub_entries", "kind" => s.as_str())),
        }
    }

    pub(super) fn opened(&self, scope: Scope) {
        self.open[scope as usize].increment(1.0);
        self.opened[scope as usize].increment(1);
    }

    pub(super) fn closed(&self, scope: Scope, why: CloseReason) {
        self.open[scope as usize].decrement(1.0);
        self.closed[why as usize].increment(1);
    }

    pub(super) fn refused(&self, limit: Refusal) {
        self.refused[limit as usize].increment(1);
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
