//! Limits how often pages may report on their connection, because anybody can send reports, and each costs the node
//! some work. Called by `http::reports`.

use super::{address::ClientAddress, owner::Owner, shares::Standing};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::{num::NonZeroU32, time::Duration};

/// A page sends a report every five minutes and when it is closed, and ten tabs may be closed at once. All newcomers at
/// one address share one limit, because a program without a cookie is a new owner with each request.
const INTERVAL: Duration = Duration::from_secs(10);
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// Reports per second, of all callers together.
const PER_NODE: NonZeroU32 = NonZeroU32::new(200).expect("not zero");

/// By whom a report is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reporter {
    Owner(Owner),
    Address(ClientAddress),
}

/// The rate limits of reports.
pub struct ReportLimits {
    reporter: DefaultKeyedRateLimiter<Reporter>,
    node: DefaultDirectRateLimiter,
}

impl Default for ReportLimits {
    fn default() -> Self {
        let quota = Quota::with_period(INTERVAL).expect("longer than nothing").allow_burst(BURST);
        Self { reporter: RateLimiter::keyed(quota), node: RateLimiter::direct(Quota::per_second(PER_NODE)) }
    }
}

impl ReportLimits {
    /// Whether the node accepts another report at all. Checked first, so that reports beyond the limit don't query the
    /// database.
    #[must_use]
    pub fn admit_any(&self) -> bool {
        self.node.check().is_ok()
    }

    /// Whether the node accepts another report of this owner.
    #[must_use]
    pub fn admit(&self, owner: &Owner, standing: Standing) -> bool {
        let reporter = match standing {
            Standing::Known => Reporter::Owner(owner.clone()),
            Standing::Newcomer(address) => Reporter::Address(address),
        };
        // Callers whose limit is unused again need no entry.
        if self.reporter.len() > 10_000 {
            self.reporter.retain_recent();
        }
        self.reporter.check_key(&reporter).is_ok()
    }
}
