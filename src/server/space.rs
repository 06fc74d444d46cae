//! Space on this node's disks: bytes are promised before they are written, so that all who write much leave free together
//! what must stay free. Asked by `media`, for uploads and for the copies that workers make.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Why no room can be promised.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// With the bytes that are free and not promised.
    #[error("the disk is full: {0} bytes are free")]
    Full(u64),
    #[error("the disk doesn't tell its room: {0}")]
    Unknown(#[from] io::Error),
}

/// What this node is about to write, on each of its disks. All who write much ask here first, so that together they
/// leave free what must stay free.
#[derive(Debug)]
pub struct Ledger {
    /// Bytes that must stay free on each disk.
    spare: u64,
    /// Bytes promised and not written yet, by the disk's device number.
    promised: Mutex<HashMap<u64, u64>>,
    /// How to ask a disk: [`free_bytes`], but for tests.
    free: fn(&Path) -> io::Result<u64>,
}

/// Bytes on a disk that nobody else is promised. What hasn't been written is given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    folder: PathBuf,
    device: u64,
    /// All bytes that were ever promised to this.
    covered: u64,
    /// Those of them that haven't been written.
    held: u64,
}

impl Ledger {
    /// Nothing is promised yet, and `spare` bytes must stay free.
    #[must_use]
    pub fn new(spare: u64) -> Arc<Self> {
        Arc::new(Self { spare, promised: Mutex::default(), free: free_bytes })
    }

    /// Bytes that can still be promised in `folder`.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn room(&self, folder: &Path) -> io::Result<u64> {
        let device = device(folder)?;
        let promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let promised = promised.get(&device).copied().unwrap_or(0);
        Ok((self.free)(folder)?.saturating_sub(promised).saturating_sub(self.spare))
    }

    /// Promises `bytes` in `folder`. None at all may be promised where less is free than must stay so.
    ///
    /// # Errors
    /// If there aren't as many.
    pub fn reserve(self: &Arc<Self>, folder: &Path, bytes: u64) -> Result<Reservation, RoomError> {
        let device = device(folder)?;
        self.promise(folder, device, bytes)?;
        let (ledger, folder) = (Arc::clone(self), folder.to_owned());
        Ok(Reservation { ledger, folder, device, covered: bytes, held: bytes })
    }

    fn promise(&self, folder: &Path, device: u64, bytes: u64) -> Result<(), RoomError> {
        // Held while the disk is asked, so that no two are promised the same bytes.
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = promised.entry(device).or_default();
        let free = (self.free)(folder)?.saturating_sub(*taken);
        if free.saturating_sub(bytes) < self.spare || free < bytes {
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
    /// Sees that `total` bytes are promised in all. Takes up to `step` at once where there are so many, so that not
    /// every small piece has to ask.
    ///
    /// # Errors
    /// If there aren't as many.
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

    /// Notes that `total` bytes of it are on the disk by now, and need no promise any more.
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
/// If the system doesn't tell.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The number of the disk that `folder` lies on.
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

    /// A ledger of disks on which 3 GB are free, of which one must stay so.
    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger { spare: GB, promised: Mutex::default(), free: |_| Ok(3 * GB) })
    }

    #[test]
    fn what_is_promised_to_one_is_not_promised_to_another() {
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
    fn what_is_written_needs_no_promise() {
        let folder = TempDir::new().unwrap();
        let ledger = ledger();
        let mut one = ledger.reserve(folder.path(), GB).unwrap();
        let promised = || *ledger.promised.lock().unwrap().values().next().unwrap();
        one.written(GB / 4);
        assert_eq!(promised(), 3 * GB / 4);
        one.written(GB / 4);
        assert_eq!(promised(), 3 * GB / 4);
        // More than was declared: in steps, and smaller ones where there is no room for a whole one.
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
