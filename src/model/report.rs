//! A page's report on its own connection: how updates reached it and how late. It holds counts only, nothing about sessions.
//! The feed measures, a beacon sends the report, and the server adds it to its metrics.

use serde::{Deserialize, Serialize};

/// The upper bounds of the buckets of delays, in milliseconds.
pub const DELAY_BOUNDS_MS: [u32; 13] = [5, 10, 25, 50, 75, 100, 250, 500, 1000, 1500, 3000, 5000, 10_000];

/// The number of delays in each bucket: one for each of [`DELAY_BOUNDS_MS`], and one for longer delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct Delays(pub [u32; DELAY_BOUNDS_MS.len() + 1]);

impl Delays {
    /// Counts a delay in milliseconds. A negative delay, which an estimated clock can cause, counts as zero.
    pub fn note(&mut self, ms: f64) {
        let bucket = DELAY_BOUNDS_MS.iter().position(|bound| ms <= f64::from(*bound)).unwrap_or(DELAY_BOUNDS_MS.len());
        self.0[bucket] = self.0[bucket].saturating_add(1);
    }

    /// The number of delays in all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// The counts with their upper bounds in milliseconds; the last bucket has twice the bound before it.
    pub fn buckets(&self) -> impl Iterator<Item = (u32, u32)> {
        let last = DELAY_BOUNDS_MS[DELAY_BOUNDS_MS.len() - 1] * 2;
        DELAY_BOUNDS_MS.into_iter().chain([last]).zip(self.0)
    }
}

/// How long updates arrived by which transport, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ModeTimes {
    pub live: u32,
    pub polling: u32,
    pub connecting: u32,
    pub offline: u32,
}

/// Streams that failed, by the symptom that the page noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct StreamFailures {
    /// The browser reported an error, or an end that the server hadn't announced.
    pub error: u32,
    /// Nothing came in time after opening: buffered or blocked on the way.
    pub buffered: u32,
    /// Nothing came for too long on a stream that had delivered.
    pub silent: u32,
    /// The server had too many streams.
    pub limit: u32,
}

/// What a page counted on its connection since its last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ssr", derive(utoipa::ToSchema))]
pub struct ConnectionReport {
    pub mode_ms: ModeTimes,
    /// Streams opened.
    pub connects: u32,
    pub failures: StreamFailures,
    /// From opening a stream to its first event.
    pub first_event: Delays,
    /// From the creation of a status to its arrival, by an estimate of the server's clock: on streams, by polling.
    pub delivery_live: Delays,
    pub delivery_polling: Delays,
    /// Requests made for statuses and segments, streams included.
    pub requests: u32,
    /// Bytes of their answers, without headers and before compression.
    pub bytes: u64,
}

impl ConnectionReport {
    /// Limits that no page exceeds between two reports, however long its machine sleeps: 24 hours, a million events, 10 GB.
    const MAX_MS: u64 = 24 * 3600 * 1000;
    const MAX_EVENTS: u64 = 1_000_000;
    const MAX_BYTES: u64 = 10_000_000_000;

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that one page can have counted this.
    ///
    /// # Errors
    /// Names the value that is too large, and its limit.
    pub fn check(&self) -> Result<(), String> {
        let ModeTimes { live, polling, connecting, offline } = self.mode_ms;
        let StreamFailures { error, buffered, silent, limit } = self.failures;
        let sum = |parts: &[u32]| parts.iter().copied().map(u64::from).sum::<u64>();
        let events = [
            sum(&[self.connects, error, buffered, silent, limit, self.requests]),
            self.first_event.count(),
            self.delivery_live.count(),
            self.delivery_polling.count(),
        ];
        for (what, value, most) in [
            ("mode_ms adds up to", sum(&[live, polling, connecting, offline]), Self::MAX_MS),
            ("the number of events is", events.into_iter().max().unwrap_or(0), Self::MAX_EVENTS),
            ("bytes is", self.bytes, Self::MAX_BYTES),
        ] {
            if value > most {
                return Err(format!("{what} {value}, more than one page can have seen ({most} at most)."));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let mut delays = Delays::default();
        for ms in [-3.0, 5.0, 5.1, 100.0, 60_000.0] {
            delays.note(ms);
        }
        let filled: Vec<_> = delays.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(5, 2), (10, 1), (100, 1), (20_000, 1)]);
        assert_eq!(delays.count(), 5);
    }

    #[test]
    fn a_report_that_exceeds_the_limits_is_refused() {
        let mut report = ConnectionReport::default();
        assert!(report.is_empty() && report.check().is_ok());
        report.mode_ms.live = 86_400_000;
        assert!(report.check().is_ok());
        report.mode_ms.polling = 1;
        assert!(report.check().unwrap_err().contains("86400001"));
        let report = ConnectionReport { delivery_live: Delays([100_000; 14]), ..Default::default() };
        assert!(report.check().is_err());
    }
}
