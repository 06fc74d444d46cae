//! The hub's coarse clock, which streams and their connections share: a tick is cheap to read, and exact enough for
//! timeouts of seconds.

use std::sync::{Arc, atomic::AtomicU32};

/// Quarters of a second since the hub was made. Good for 34 years.
pub(super) type Ticks = u32;
/// Ticks in a second.
pub(super) const PER_SECOND: Ticks = 4;

/// The current tick, shared with connections.
pub(super) type Clock = Arc<AtomicU32>;
