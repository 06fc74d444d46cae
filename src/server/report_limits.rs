//! Limits how often pages may report on their connection, because anybody can send reports, and each costs the node
//! some work. Called by `http::reports`.

use super::{address::ClientAddress, owner::Owner, page_tokens::Page};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// A page sends a report every minute, when it is hidden and when it is left; somebody may change between tabs.
const PAGE_INTERVAL: Duration = Duration::from_secs(20);
const PAGE_BURST: NonZeroU32 = NonZeroU32::new(6).expect("not zero");
/// Tabs of a browser share one connection, whose tab reports; where they can't, ten may be closed at once.
const OWNER_INTERVAL: Duration = Duration::from_secs(2);
const OWNER_BURST: NonZeroU32 = NonZeroU32::new(30).expect("not zero");
/// Reports per second, of all callers together.
const PER_NODE: NonZeroU32 = NonZeroU32::new(500).expect("not zero");
/// After how many reports those are forgotten that may send as many as ever.
const PRUNE_EVERY: u32 = 1000;

/// The rate limits of reports.
pub struct ReportLimits {
    node: DefaultDirectRateLimiter,
    address: DefaultKeyedRateLimiter<Option<ClientAddress>>,
    owner: DefaultKeyedRateLimiter<Owner>,
    page: DefaultKeyedRateLimiter<u32>,
    reports: AtomicU32,
}

impl ReportLimits {
    /// `per_address`: reports a minute of all pages at one address.
    #[must_use]
    pub fn new(per_address: u32) -> Self {
        let quota = |interval, burst| Quota::with_period(interval).expect("longer than nothing").allow_burst(burst);
        let per_address = NonZeroU32::new(per_address).unwrap_or(NonZeroU32::MIN);
        Self {
            node: RateLimiter::direct(Quota::per_second(PER_NODE)),
            address: RateLimiter::keyed(Quota::per_minute(per_address)),
            owner: RateLimiter::keyed(quota(OWNER_INTERVAL, OWNER_BURST)),
            page: RateLimiter::keyed(quota(PAGE_INTERVAL, PAGE_BURST)),
            reports: AtomicU32::new(0),
        }
    }

    /// Whether the node accepts another report from this address. Checked before anything is read.
    #[must_use]
    pub fn admit(&self, address: Option<ClientAddress>) -> bool {
        if self.reports.fetch_add(1, Relaxed).is_multiple_of(PRUNE_EVERY) {
            self.address.retain_recent();
            self.owner.retain_recent();
            self.page.retain_recent();
        }
        // In this order, so that one address can't use up what the node takes of all.
        self.address.check_key(&address).is_ok() && self.node.check().is_ok()
    }

    /// Whether the node accepts another report of this page. Asked for pages with a valid token only, so that nobody can fill
    /// the memory with owners.
    #[must_use]
    pub fn admit_page(&self, owner: &Owner, page: &Page) -> bool {
        self.owner.check_key(owner).is_ok() && self.page.check_key(&page.id).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn admitted(times: usize, admit: impl Fn(usize) -> bool) -> usize {
        (0..times).filter(|n| admit(*n)).count()
    }

    #[test]
    fn many_tabs_at_one_address_are_admitted_and_floods_are_not() {
        let limits = ReportLimits::new(120);
        let [office, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(ClientAddress::of(text.parse().unwrap())));
        let owners: Vec<Owner> = (0..10).map(|_| Owner::fresh()).collect();
        let page = |id| Page { id, made: Timestamp(0) };
        let tabs = admitted(100, |n| limits.admit(office) && limits.admit_page(&owners[n % 10], &page(n as u32)));
        assert_eq!(tabs, 100);
        // A few more while this test runs.
        assert!((20..30).contains(&admitted(1000, |_| limits.admit(office))));
        assert!(limits.admit(other));
        assert!((6..8).contains(&admitted(100, |_| limits.admit_page(&Owner::fresh(), &page(1000)))), "one page");
        let owner = Owner::fresh();
        assert!((30..33).contains(&admitted(100, |n| limits.admit_page(&owner, &page(2000 + n as u32)))), "one owner");
    }
}
