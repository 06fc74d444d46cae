//! How many streams an owner, a newcomer's address and the node may have. A stream beyond a limit is refused; an open
//! one is never closed in favour of a new one.

use super::lock::lock;
use crate::server::{address::ClientAddress, counts::Counts, owner::Owner, shares::Standing};
use std::sync::{Arc, Mutex};

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Owner,
    /// That of the newcomers at the caller's address.
    Address,
    /// That of all newcomers: the rest is kept for owners with history.
    Newcomers,
    Node,
}

impl Refusal {
    pub(super) const ALL: [Self; 4] = [Self::Owner, Self::Address, Self::Newcomers, Self::Node];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Address => "address",
            Self::Newcomers => "newcomers",
            Self::Node => "node",
        }
    }
}

/// How many streams there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct PermitLimits {
    pub(super) owner: u32,
    pub(super) address: u32,
    pub(super) newcomers: u32,
    pub(super) node: u32,
}

#[derive(Debug)]
pub(super) struct StreamPermits {
    limits: PermitLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    newcomers: u32,
    by_owner: Counts<Owner>,
    by_address: Counts<ClientAddress>,
}

/// The right to one stream; given back when dropped.
#[derive(Debug)]
pub struct StreamPermit {
    permits: Arc<StreamPermits>,
    owner: Owner,
    /// A newcomer's address. Boxed, because there are many streams and most are not a newcomer's.
    address: Option<Box<ClientAddress>>,
}

impl StreamPermits {
    pub(super) fn new(limits: PermitLimits) -> Self {
        Self { limits, taken: Mutex::default() }
    }

    pub(super) fn taken(&self) -> usize {
        lock(&self.taken).all as usize
    }

    pub(super) fn take(permits: &Arc<Self>, owner: &Owner, standing: Standing) -> Result<StreamPermit, Refusal> {
        let (mut taken, limits) = (lock(&permits.taken), permits.limits);
        if taken.all >= limits.node {
            return Err(Refusal::Node);
        }
        if taken.by_owner.get(owner) >= limits.owner {
            return Err(Refusal::Owner);
        }
        let mut counted_at = None;
        if let Standing::Newcomer(address) = standing {
            if taken.by_address.get(&address) >= limits.address {
                return Err(Refusal::Address);
            }
            if taken.newcomers >= limits.newcomers {
                return Err(Refusal::Newcomers);
            }
            taken.newcomers += 1;
            taken.by_address.add(address);
            counted_at = Some(Box::new(address));
        }
        taken.all += 1;
        taken.by_owner.add(owner.clone());
        drop(taken);
        Ok(StreamPermit { permits: Arc::clone(permits), owner: owner.clone(), address: counted_at })
    }
}

impl StreamPermit {
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut taken = lock(&self.permits.taken);
        taken.all -= 1;
        taken.by_owner.remove(&self.owner);
        if let Some(address) = &self.address {
            taken.newcomers -= 1;
            taken.by_address.remove(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Standing {
        Standing::Newcomer(ClientAddress::of(address.parse().unwrap()))
    }

    fn is_empty(permits: &StreamPermits) -> bool {
        let taken = lock(&permits.taken);
        (taken.all, taken.newcomers) == (0, 0) && taken.by_owner.is_empty() && taken.by_address.is_empty()
    }

    #[test]
    fn streams_beyond_a_limit_are_refused_and_permits_are_given_back() {
        let permits = Arc::new(StreamPermits::new(PermitLimits { owner: 2, address: 9, newcomers: 9, node: 3 }));
        let (a, b) = (Owner::fresh(), Owner::fresh());
        let first = StreamPermits::take(&permits, &a, Standing::Known).unwrap();
        let second = StreamPermits::take(&permits, &a, Standing::Known).unwrap();
        assert_eq!(StreamPermits::take(&permits, &a, Standing::Known).unwrap_err(), Refusal::Owner);
        let third = StreamPermits::take(&permits, &b, Standing::Known).unwrap();
        assert_eq!(StreamPermits::take(&permits, &b, Standing::Known).unwrap_err(), Refusal::Node);
        drop(first);
        assert!(StreamPermits::take(&permits, &b, Standing::Known).is_ok());
        drop((second, third));
        assert!(is_empty(&permits));
    }

    #[test]
    fn a_new_cookie_for_each_stream_is_limited_by_address() {
        let permits = Arc::new(StreamPermits::new(PermitLimits { owner: 6, address: 3, newcomers: 4, node: 8 }));
        let take = |standing| StreamPermits::take(&permits, &Owner::fresh(), standing);
        let stranger: Vec<StreamPermit> = std::iter::from_fn(|| take(at("2001:db8::1")).ok()).take(100).collect();
        assert_eq!(stranger.len(), 3);
        assert_eq!(take(at("2001:db8::ffff")).unwrap_err(), Refusal::Address, "the same network");
        // All newcomers together can't use what is kept for owners with history.
        let other = take(at("192.0.2.1")).unwrap();
        assert_eq!(take(at("192.0.2.2")).unwrap_err(), Refusal::Newcomers);
        let known: Vec<StreamPermit> = std::iter::from_fn(|| take(Standing::Known).ok()).take(100).collect();
        assert_eq!(known.len(), 4);
        assert_eq!(take(Standing::Known).unwrap_err(), Refusal::Node);
        drop((stranger, known));
        assert!(take(at("2001:db8::1")).is_ok());
        drop(other);
        assert!(is_empty(&permits));
    }
}
