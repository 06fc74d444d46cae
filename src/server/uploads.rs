//! Limits on the uploads that a node receives at once: in all, of an owner and from an address. A permit is taken
//! before the first byte of the recording is read. Called by `http::upload`.

use super::{address::ClientAddress, config::UploadConfig, counts::Counts, error::Error, owner::Owner};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The permits for uploads.
#[derive(Debug)]
pub struct UploadPermits {
    all: u32,
    per_owner: u32,
    per_address: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_owner: Counts<Owner>,
    by_address: Counts<ClientAddress>,
}

/// The right to receive one upload; given back when dropped.
#[derive(Debug)]
pub struct UploadPermit {
    permits: Arc<UploadPermits>,
    owner: Owner,
    address: Option<ClientAddress>,
}

impl UploadPermits {
    /// Permits as configured, and never more than `capacity`.
    #[must_use]
    pub fn new(config: &UploadConfig, capacity: u32) -> Self {
        Self {
            all: config.max_uploads.min(capacity.max(1)),
            per_owner: config.max_uploads_per_owner,
            per_address: config.max_uploads_per_address,
            taken: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many uploads are received now.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.lock().all
    }

    /// Takes a permit for an upload. `address` is none where it isn't known, as in a test without a socket.
    ///
    /// # Errors
    /// [`Error::TooManyUploads`] or [`Error::UploadsFull`] if a limit is reached.
    pub fn take(permits: &Arc<Self>, owner: &Owner, address: Option<ClientAddress>) -> Result<UploadPermit, Error> {
        let mut taken = permits.lock();
        if taken.by_owner.get(owner) >= permits.per_owner {
            return Err(Error::TooManyUploads { limit: permits.per_owner, of: "your" });
        }
        if address.is_some_and(|address| taken.by_address.get(&address) >= permits.per_address) {
            return Err(Error::TooManyUploads { limit: permits.per_address, of: "your network's" });
        }
        if taken.all >= permits.all {
            return Err(Error::UploadsFull { limit: permits.all });
        }
        taken.all += 1;
        taken.by_owner.add(owner.clone());
        if let Some(address) = address {
            taken.by_address.add(address);
        }
        drop(taken);
        Ok(UploadPermit { permits: Arc::clone(permits), owner: owner.clone(), address })
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.lock();
        taken.all -= 1;
        taken.by_owner.remove(&self.owner);
        if let Some(address) = &self.address {
            taken.by_address.remove(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_and_permits_come_back() {
        let config = UploadConfig {
            max_uploads: 4,
            max_uploads_per_owner: 2,
            max_uploads_per_address: 3,
            upload_silence_secs: 1,
            min_upload_rate: 0,
            upload_window_secs: 1,
        };
        let permits = Arc::new(UploadPermits::new(&config, u32::MAX));
        let address = |text: &str| Some(ClientAddress::of(text.parse().unwrap()));
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let (a, b, c) = (Owner::fresh(), Owner::fresh(), Owner::fresh());
        let take = |owner: &Owner, address| UploadPermits::take(&permits, owner, address);
        let mut held = vec![take(&a, here).unwrap(), take(&a, here).unwrap()];
        assert!(matches!(take(&a, there), Err(Error::TooManyUploads { limit: 2, .. })));
        held.push(take(&b, here).unwrap());
        assert!(matches!(take(&b, here), Err(Error::TooManyUploads { limit: 3, .. })));
        held.push(take(&b, there).unwrap());
        assert!(matches!(take(&c, there), Err(Error::UploadsFull { limit: 4 })));
        held.remove(0);
        held.push(take(&c, there).unwrap());
        held.clear();
        let taken = permits.lock();
        assert!(taken.all == 0 && taken.by_owner.is_empty() && taken.by_address.is_empty());
    }

    #[test]
    fn a_low_limit_of_open_files_allows_fewer_uploads() {
        let config = UploadConfig {
            max_uploads: 128,
            max_uploads_per_owner: 8,
            max_uploads_per_address: 8,
            upload_silence_secs: 1,
            min_upload_rate: 0,
            upload_window_secs: 1,
        };
        assert_eq!(UploadPermits::new(&config, 7).all, 7);
        assert_eq!(UploadPermits::new(&config, 0).all, 1);
    }
}
