//! The server's wall clock, for what is shown and stored. What is measured runs on the monotonic clock, `Instant`, which
//! no operator or time server moves. The browser has its own, in `feed::browser`; the model has none.

use crate::model::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

/// By how many milliseconds this process's wall clock is wrong on purpose.
static SHIFT: AtomicI64 = AtomicI64::new(0);

impl Timestamp {
    /// The server's time, to the millisecond.
    #[must_use]
    pub fn now() -> Self {
        // A clock that was never set may stand before the epoch.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Self(now + SHIFT.load(Relaxed))
    }
}

/// Sets the wall clock of this process wrong by so many milliseconds. For tests of what must not depend on it.
#[doc(hidden)]
pub fn shift(milliseconds: i64) {
    SHIFT.store(milliseconds, Relaxed);
}
