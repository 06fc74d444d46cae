//! Page sizes, and how far back a new watcher is told of changes. `sessions`, `http`, `stream` and `bus` must agree on
//! them.

use crate::model::Timestamp;

/// Sessions on a page of the list: by default, and at most.
pub const PAGE: u32 = 50;
pub const MAX_PAGE: u32 = 200;
/// Segments read at once.
pub const SEGMENT_PAGE: u32 = 1000;
/// A watcher who connects isn't told of sessions that ended longer ago than this, in seconds.
const RECENT_SECS: f64 = 600.0;

/// The time since when a status must have changed to be sent to a watcher who connects.
#[must_use]
pub fn recent_cutoff() -> Timestamp {
    recent_cutoff_at(Timestamp::now())
}

/// The same, for a watcher who connects at `now`.
#[must_use]
pub fn recent_cutoff_at(now: Timestamp) -> Timestamp {
    now.plus_seconds(-RECENT_SECS)
}
