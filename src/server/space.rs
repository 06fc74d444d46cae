//! Room on this node's disks: bytes are promised before they are written, so that concurrent writers together leave
//! free what must stay free. Called by `media`, for uploads and for the copies that workers make.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Why room can't be promised.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The disk is full; with the bytes that are free and not promised.
    #[error("the disk is full: {0} bytes are free")]
    Full(u64),
    #[error("the free room of the disk can't be read: {0}")]
    Unknown(#[from] io::Error),
}

/// The bytes that this node is about to write, for each of its disks. Everything that writes much asks here first, so
/// that all writers together leave free what must stay free.
#[derive(Debug)]
pub struct Ledger {
    /// Bytes that must stay free on each disk.
    min_free: u64,
    /// Bytes promised and not written yet, by the disk's device number.
    promised: Mutex<HashMap<u64, u64>>,
    /// Returns the free bytes of a disk: [`free_bytes`], except in tests.
    free: fn(&Path) -> io::Result<u64>,
}

/// A promise of bytes on a disk. Bytes that weren't written are given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    folder: PathBuf,
    device: u64,
    /// All bytes that were promised so far.
    covered: u64,
    /// The promised bytes that aren't written yet.
    held: u64,
}

impl Ledger {
    /// A ledger without promises; `min_free` bytes must stay free.
    #[must_use]
    pub fn new(min_free: u64) -> Arc<Self> {
        Arc::new(Self { min_free, promised: Mutex::default(), free: free_bytes })
    }

    /// Bytes that must stay free on each disk.
    #[must_use]
    pub fn min_free(&self) -> u64 {
        self.min_free
    }

    /// Bytes that can still be promised in `folder`.
    ///
    /// # Errors
    /// If the system can't tell.
    pub fn room(&self, folder: &Path) -> io::Result<u64> {
        let device = device(folder)?;
        let promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let promised = promised.get(&device).copied().unwrap_or(0);
        Ok((self.free)(folder)?.saturating_sub(promised).saturating_sub(self.min_free))
    }

    /// Promises `bytes` in `folder`, unless fewer would then be free than must stay free.
    ///
    /// # Errors
    /// If there isn't enough room.
    pub fn reserve(self: &Arc<Self>, folder: &Path, bytes: u64) -> Result<Reservation, RoomError> {
        let device = device(folder)?;
        self.promise(folder, device, bytes)?;
        let (ledger, folder) = (Arc::clone(self), folder.to_owned());
        Ok(Reservation { ledger, folder, device, covered: bytes, held: bytes })
    }

    fn promise(&self, folder: &Path, device: u64, bytes: u64) -> Result<(), RoomError> {
        // Locked while the free bytes are read, so that no bytes are promised twice.
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = promised.entry(device).or_default();
        let free = (self.free)(folder)?.saturating_sub(*taken);
        if free.saturating_sub(bytes) < self.min_free || free < bytes {
            return Err(RoomError::Full(free));
        }
        *taken += bytes;
        Ok(())
    }

    fn give_back(&self, device: u64, bytes: u64) {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = promised.get_mut(&device) {
            *taken = taken.saturating_sub(bytes);
        }
    }
}

impl Reservation {
    /// Extends the promise to `total` bytes in all. Takes up to `step` bytes at once if there is room, so that not
    /// every small piece asks again.
    ///
    /// # Errors
    /// If there isn't enough room.
    pub fn cover(&mut self, total: u64, step: u64) -> Result<(), RoomError> {
        let Some(needed) = total.checked_sub(self.covered).filter(|needed| *needed > 0) else { return Ok(()) };
        let mut more = needed.max(step);
        loop {
            match self.ledger.promise(&self.folder, self.device, more) {
                Ok(()) => break,
                Err(_) if more > needed => more = needed.max(more / 2),
                Err(error) => return Err(error),
            }
        }
        self.covered += more;
        self.held += more;
        Ok(())
    }

    /// Notes that `total` bytes were written, which need no promise any more.
    pub fn written(&mut self, total: u64) {
        let open = self.covered.saturating_sub(total).min(self.held);
        self.ledger.give_back(self.device, self.held - open);
        self.held = open;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.give_back(self.device, self.held);
    }
}

/// Bytes free on the disk of `folder`.
///
/// # Errors
/// If the system can't tell.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The device number of the disk of `folder`.
///
/// # Errors
/// If there is no such folder.
pub fn device(folder: &Path) -> io::Result<u64> {
    fs::metadata(folder).map(|meta| meta.dev())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const GB: u64 = 1_000_000_000;

    /// A ledger of disks on which 3 GB are free, of which 1 GB must stay free.
    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger { min_free: GB, promised: Mutex::default(), free: |_| Ok(3 * GB) })
    }

    #[test]
    fn no_bytes_are_promised_twice() {
        let folder = TempDir::new().unwrap();
        let ledger = ledger();
        let first = ledger.reserve(folder.path(), 3 * GB / 2).unwrap();
        assert!(matches!(ledger.reserve(folder.path(), GB), Err(RoomError::Full(_))));
        let second = ledger.reserve(folder.path(), GB / 4).unwrap();
        drop(first);
        let third = ledger.reserve(folder.path(), GB).unwrap();
        drop((second, third));
        assert!(ledger.promised.lock().unwrap().values().all(|promised| *promised == 0));
    }

    #[test]
    fn written_bytes_need_no_promise() {
        let folder = TempDir::new().unwrap();
        let ledger = ledger();
        let mut one = ledger.reserve(folder.path(), GB).unwrap();
        let promised = || *ledger.promised.lock().unwrap().values().next().unwrap();
        one.written(GB / 4);
        assert_eq!(promised(), 3 * GB / 4);
        one.written(GB / 4);
        assert_eq!(promised(), 3 * GB / 4);
        // More than was declared: in steps, with smaller ones if there is no room for a whole one.
        one.cover(GB + 1, GB / 2).unwrap();
        assert_eq!(promised(), 5 * GB / 4);
        one.written(3 * GB / 2);
        assert_eq!(promised(), 0);
        one.cover(3 * GB / 2 + 1, 100 * GB).unwrap();
        assert!(promised() >= 1 && promised() <= 2 * GB);
        assert!(matches!(one.cover(10 * GB, 1), Err(RoomError::Full(free)) if free == 3 * GB - promised()));
        assert_eq!(ledger.room(folder.path()).unwrap(), 2 * GB - promised());
        drop(one);
        assert_eq!(promised(), 0);
    }
}
