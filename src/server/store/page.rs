//! How much is read of the store at once, and what a watcher who connects is told. For `sessions`, `http`, `stream` and
//! `bus`, which must agree on it.

use crate::model::Timestamp;

/// How many sessions a page of the list holds, unless asked otherwise, and at most.
pub const PAGE: u32 = 50;
pub const MAX_PAGE: u32 = 200;
/// Segments read at once.
pub const SEGMENT_PAGE: u32 = 1000;
/// A session that ended this long ago is no longer told to watchers who connect, in seconds.
const RECENT_SECS: f64 = 600.0;

/// Statuses changed since then are told to watchers who connect.
#[must_use]
pub fn recently() -> Timestamp {
    Timestamp::now().plus_seconds(-RECENT_SECS)
}
