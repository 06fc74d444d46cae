//! The server's wall clock, for times that are shown or stored. Durations are measured by the monotonic clock,
//! `Instant`, which no operator or time server can set. The browser's clock is in `feed::browser`; the model has none.

use crate::model::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

/// The milliseconds by which tests shift this process' wall clock.
static SHIFT: AtomicI64 = AtomicI64::new(0);

impl Timestamp {
    /// The server's time, to the millisecond.
    #[must_use]
    pub fn now() -> Self {
        // A clock that was never set may be before the epoch.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Self(now + SHIFT.load(Relaxed))
    }
}

/// Shifts this process' wall clock by so many milliseconds. For tests of code that must not depend on it.
#[doc(hidden)]
pub fn shift(milliseconds: i64) {
    SHIFT.store(milliseconds, Relaxed);
}
