//! How often pages may report on their connection: anybody can send reports, and each costs a node something. Asked by
//! `http::reports`.

use super::{address::ClientAddress, owner::Owner, shares::Standing};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::{num::NonZeroU32, time::Duration};

/// A page sends one every five minutes and one when it is left. Ten tabs may be closed at once. All newcomers at one
/// address have as much together: a program without a cookie is a new owner with each request.
const EVERY: Duration = Duration::from_secs(10);
const BURST: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// Reports of all a second.
const PER_NODE: NonZeroU32 = NonZeroU32::new(200).expect("not zero");

/// Who a report is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reporter {
    Owner(Owner),
    Address(ClientAddress),
}

/// How often reports are taken in.
pub struct ReportLimits {
    reporter: DefaultKeyedRateLimiter<Reporter>,
    node: DefaultDirectRateLimiter,
}

impl Default for ReportLimits {
    fn default() -> Self {
        let quota = Quota::with_period(EVERY).expect("longer than nothing").allow_burst(BURST);
        Self { reporter: RateLimiter::keyed(quota), node: RateLimiter::direct(Quota::per_second(PER_NODE)) }
    }
}

impl ReportLimits {
    /// Whether the node takes in another report at all. Asked first, so that no more of them ask the database.
    #[must_use]
    pub fn admit_any(&self) -> bool {
        self.node.check().is_ok()
    }

    /// Whether it takes in another of this owner.
    #[must_use]
    pub fn admit(&self, owner: &Owner, standing: Standing) -> bool {
        let reporter = match standing {
            Standing::Known => Reporter::Owner(owner.clone()),
            Standing::Newcomer(address) => Reporter::Address(address),
        };
        // Those who may send as many as ever need no memory.
        if self.reporter.len() > 10_000 {
            self.reporter.retain_recent();
        }
        self.reporter.check_key(&reporter).is_ok()
    }
}
