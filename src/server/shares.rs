//! Decides how a caller counts towards shared limits: an owner with history by itself, a newcomer by its address,
//! because a new cookie costs nothing. Called by `http` and `sessions` before they take a permit or queue a session.

use super::{
    address::ClientAddress,
    config::ShareConfig,
    owner::Owner,
    store::{self, Store},
    turns::Caller,
};
use crate::model::Timestamp;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long it is cached that an owner has history; then the store is asked again, because the sessions may have been
/// deleted.
const CACHE_TIME: Duration = Duration::from_secs(600);
/// The same of an owner without history, which may come to have some at any time.
const NEWCOMER_CACHE_TIME: Duration = Duration::from_secs(10);
/// How many owners with history are cached at most, and how many newcomers, so that new cookies don't drive others out.
const MAX_CACHED: usize = 10_000;
/// Bytes of an address' hash that are stored: enough to distinguish some millions.
const HASH_BYTES: usize = 8;

/// How a caller counts towards shared limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An owner with history, counted by the owner alone.
    Known,
    /// A newcomer, counted by the owner and by this address.
    Newcomer(ClientAddress),
}

impl Standing {
    /// Whose turn it is where places are handed out in turns.
    #[must_use]
    pub fn caller(self, owner: &Owner) -> Caller {
        match self {
            Self::Known => Caller::Known(owner.clone()),
            Self::Newcomer(address) => Caller::Newcomers(address),
        }
    }
}

/// Decides how callers count, and caches what the store says of them.
pub struct Shares {
    newcomer_secs: f64,
    key: Vec<u8>,
    known: OwnerCache,
    newcomers: OwnerCache,
}

/// Owners of whom the same was found out lately.
struct OwnerCache {
    time: Duration,
    since: Mutex<HashMap<Owner, Instant>>,
}

impl Shares {
    /// `key` is for hashing addresses; all nodes share it.
    #[must_use]
    pub fn new(config: &ShareConfig, key: &[u8]) -> Self {
        Self {
            newcomer_secs: config.newcomer_hours * 3600.0,
            key: key.to_vec(),
            known: OwnerCache::new(CACHE_TIME),
            newcomers: OwnerCache::new(NEWCOMER_CACHE_TIME),
        }
    }

    /// How the owner counts, coming from this address. While the database doesn't answer, an owner that isn't in the
    /// cache counts as a newcomer.
    pub async fn standing(&self, store: &Store, owner: &Owner, address: ClientAddress) -> Standing {
        let newcomer = Standing::Newcomer(address);
        if self.known.has(owner) {
            return Standing::Known;
        }
        match store.has_history(owner, Timestamp::now().plus_seconds(-self.newcomer_secs)).await {
            Ok(true) => {
                self.known.add(owner);
                Standing::Known
            }
            Ok(false) => {
                self.newcomers.add(owner);
                newcomer
            }
            Err(error) if store::is_away(&error) => newcomer,
            Err(error) => {
                tracing::warn!(%error, "the history of an owner could not be looked up; it counts as a newcomer");
                newcomer
            }
        }
    }

    /// The same as of some seconds ago, for a stream: where many are opened at once, the store isn't asked for each.
    pub async fn stream_standing(&self, store: &Store, owner: &Owner, address: ClientAddress) -> Standing {
        if self.newcomers.has(owner) {
            return Standing::Newcomer(address);
        }
        self.standing(store, owner, address).await
    }

    /// The hash of a newcomer's address, which the store keeps while a session of it waits. The address can't be found
    /// from it without the key.
    #[must_use]
    pub fn address_hash(&self, standing: Standing) -> Option<String> {
        let Standing::Newcomer(address) = standing else { return None };
        let mut hash = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        hash.update(b"address ");
        hash.update(address.to_string().as_bytes());
        // No owner's id has this sign, so a hash and an id can't be confused.
        Some(format!("@{}", HEXLOWER.encode(&hash.finalize().into_bytes()[..HASH_BYTES])))
    }
}

impl OwnerCache {
    fn new(time: Duration) -> Self {
        Self { time, since: Mutex::default() }
    }

    fn has(&self, owner: &Owner) -> bool {
        let owners = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(owner).is_some_and(|since| since.elapsed() < self.time)
    }

    fn add(&self, owner: &Owner) {
        let mut owners = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() >= MAX_CACHED {
            owners.retain(|_, since| since.elapsed() < self.time);
        }
        // Emptied rather than made larger; the owners are looked up again.
        if owners.len() >= MAX_CACHED {
            owners.clear();
        }
        owners.insert(owner.clone(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        shares: ShareConfig,
    }

    fn shares(key: &[u8]) -> Shares {
        Shares::new(&Flags::parse_from(["hark"]).shares, key)
    }

    #[test]
    fn an_address_is_stored_as_a_keyed_hash() {
        let from = |text: &str| Standing::Newcomer(ClientAddress::of(text.parse().unwrap()));
        let own = shares(b"a");
        let kept = own.address_hash(from("192.0.2.1")).unwrap();
        assert_eq!(kept.len(), 1 + 2 * HASH_BYTES);
        assert!(kept.starts_with('@') && !kept.contains("192"), "{kept}");
        assert_eq!(own.address_hash(from("::ffff:192.0.2.1")), Some(kept.clone()));
        assert_ne!(own.address_hash(from("192.0.2.2")), Some(kept.clone()));
        assert_ne!(shares(b"b").address_hash(from("192.0.2.1")), Some(kept));
        assert_eq!(own.address_hash(Standing::Known), None);
    }

    #[test]
    fn the_cache_of_owners_is_limited() {
        let owners = OwnerCache::new(CACHE_TIME);
        let first = Owner::fresh();
        owners.add(&first);
        assert!(owners.has(&first) && !owners.has(&Owner::fresh()));
        for _ in 0..MAX_CACHED + 10 {
            owners.add(&Owner::fresh());
        }
        assert!(owners.since.lock().unwrap().len() <= MAX_CACHED);
        let forgotten = OwnerCache::new(Duration::ZERO);
        forgotten.add(&first);
        assert!(!forgotten.has(&first));
    }

    #[test]
    fn newcomers_have_a_share_of_at_least_one() {
        let mut shares = Flags::parse_from(["hark"]).shares;
        assert_eq!([1, 3, 1000, u32::MAX].map(|n| shares.of_newcomers(n)), [1, 2, 500, 2_147_483_648]);
        shares.newcomer_percent = 100;
        assert_eq!(shares.of_newcomers(u32::MAX), u32::MAX);
    }
}
