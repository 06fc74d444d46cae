//! The server's clock. The browser has its own, in `feed::browser`; the model has none.

use crate::model::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

impl Timestamp {
    /// The server's time, to the millisecond.
    #[must_use]
    pub fn now() -> Self {
        // A clock that was never set may stand before the epoch.
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64))
    }
}
