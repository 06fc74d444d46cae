//! The server's wall clock, for times that are shown or stored. Durations are measured by the monotonic clock,
//! `Instant`, which no operator or time server can set. Times are corrected by the offset from the database's clock that
//! `clock_watch` measures. The browser's clock is in `feed::browser`; the model has none.

use crate::model::Timestamp;
use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

/// The milliseconds by which tests shift this process' wall clock.
static SHIFT: AtomicI64 = AtomicI64::new(0);
/// The milliseconds that are added to this machine's clock to get the database's.
static CORRECTION: AtomicI64 = AtomicI64::new(0);

impl Timestamp {
    /// The server's time, to the millisecond; the database's, if that is on another machine and its offset is known.
    #[must_use]
    pub fn now() -> Self {
        Self(machine_time() + CORRECTION.load(Relaxed))
    }
}

/// What this machine's clock says, in milliseconds since the Unix epoch.
#[must_use]
pub fn machine_time() -> i64 {
    // A clock that was never set may be before the epoch.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    now + SHIFT.load(Relaxed)
}

/// Sets the milliseconds to add to this machine's clock. One value for the process, as there is one clock.
pub(super) fn correct(milliseconds: i64) {
    CORRECTION.store(milliseconds, Relaxed);
}

/// Shifts this process' wall clock by so many milliseconds. For tests of code that must not depend on it.
#[doc(hidden)]
pub fn shift(milliseconds: i64) {
    SHIFT.store(milliseconds, Relaxed);
}
