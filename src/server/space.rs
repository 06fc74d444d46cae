//! Room on this node's disks: bytes are promised before they are written, so that concurrent writers together leave
//! free what must stay free. Called by `media`, for uploads and for the copies that workers make.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often a shared folder's space is read.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// A shared folder whose space couldn't be read for this long counts as not answering.
const SILENCE: Duration = Duration::from_secs(5);

/// The size of a disk, and what is free of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    pub size: u64,
}

/// The disk of a folder.
#[derive(Clone, Debug)]
pub struct Disk {
    folder: PathBuf,
    watch: Option<Arc<Watch>>,
}

/// What a thread of its own reads of a disk's space.
#[derive(Debug)]
struct Watch {
    /// The device number.
    device: u64,
    last: Mutex<(Instant, Space)>,
}

impl Disk {
    /// The disk of a folder on this machine. It is asked whenever somebody wants to know.
    #[must_use]
    pub fn own(folder: PathBuf) -> Self {
        Self { folder, watch: None }
    }

    /// The disk of a folder that may lie on a server. While that is gone the system doesn't answer, and whoever asked stands
    /// still; so one thread asks, and all others learn what it heard last.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn shared(folder: PathBuf) -> io::Result<Self> {
        let device = device(&folder)?;
        let watch = Watch::start(device, {
            let folder = folder.clone();
            move || space_of(&folder)
        })?;
        Ok(Self { folder, watch: Some(watch) })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its size and what is free of it.
    ///
    /// # Errors
    /// If the system doesn't tell, or hasn't for [`SILENCE`].
    pub fn space(&self) -> io::Result<Space> {
        match &self.watch {
            Some(watch) => watch.space(Instant::now()),
            None => space_of(&self.folder),
        }
    }

    /// Whether both are the same disk.
    ///
    /// # Errors
    /// If there is no such folder any more.
    pub fn is_that_of(&self, other: &Self) -> io::Result<bool> {
        Ok(self.device()? == other.device()?)
    }

    fn free(&self) -> io::Result<u64> {
        self.space().map(|space| space.free)
    }

    fn device(&self) -> io::Result<u64> {
        self.watch.as_ref().map_or_else(|| device(&self.folder), |watch| Ok(watch.device))
    }
}

impl Watch {
    /// Reads once here, and from then on in a thread, as long as somebody has the watch.
    fn start(device: u64, read: impl Fn() -> io::Result<Space> + Send + 'static) -> io::Result<Arc<Self>> {
        let watch = Arc::new(Self { device, last: Mutex::new((Instant::now(), read()?)) });
        let watched = Arc::downgrade(&watch);
        thread::Builder::new().name("disk".to_owned()).spawn(move || {
            while watched.strong_count() > 0 {
                thread::sleep(WATCH_INTERVAL);
                if let (Ok(space), Some(watch)) = (read(), watched.upgrade()) {
                    *watch.last.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), space);
                }
            }
        })?;
        Ok(watch)
    }

    fn space(&self, now: Instant) -> io::Result<Space> {
        let (at, space) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(at) < SILENCE {
            return Ok(space);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the folder's server doesn't answer"))
    }
}

/// Why room can't be promised.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The disk is full; with the bytes that are free and not promised.
    #[error("the disk is full: {0} bytes are free")]
    Full(u64),
    #[error("the free room in '{}' can't be read: {error}", folder.display())]
    Unknown { folder: PathBuf, error: io::Error },
}

/// The bytes that this node is about to write, for each of its disks. Everything that writes much asks here first, so
/// that all writers together leave free what must stay free.
#[derive(Debug)]
pub struct Ledger {
    /// Bytes that must stay free on each disk.
    min_free: u64,
    /// Bytes promised and not written yet, by the disk's device number.
    promised: Mutex<HashMap<u64, u64>>,
    /// Returns the free bytes of a disk: [`Disk::free`], except in tests.
    free: fn(&Disk) -> io::Result<u64>,
}

/// A promise of bytes on a disk. Bytes that weren't written are given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<Ledger>,
    disk: Disk,
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
        Arc::new(Self { min_free, promised: Mutex::default(), free: Disk::free })
    }

    /// Bytes that must stay free on each disk.
    #[must_use]
    pub fn min_free(&self) -> u64 {
        self.min_free
    }

    /// Bytes that can still be promised on a disk.
    ///
    /// # Errors
    /// If the system can't tell.
    pub fn room(&self, disk: &Disk) -> io::Result<u64> {
        let device = disk.device()?;
        let promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let promised = promised.get(&device).copied().unwrap_or(0);
        Ok((self.free)(disk)?.saturating_sub(promised).saturating_sub(self.min_free))
    }

    /// Promises `bytes` on a disk, unless fewer would then be free than must stay free.
    ///
    /// # Errors
    /// If there isn't enough room.
    pub fn reserve(self: &Arc<Self>, disk: &Disk, bytes: u64) -> Result<Reservation, RoomError> {
        let device = disk.device().map_err(|error| unknown(disk, error))?;
        self.promise(disk, device, bytes)?;
        let (ledger, disk) = (Arc::clone(self), disk.clone());
        Ok(Reservation { ledger, disk, device, covered: bytes, held: bytes })
    }

    fn promise(&self, disk: &Disk, device: u64, bytes: u64) -> Result<(), RoomError> {
        // Locked while the free bytes are read, so that no bytes are promised twice.
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = promised.entry(device).or_default();
        let free = (self.free)(disk).map_err(|error| unknown(disk, error))?.saturating_sub(*taken);
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

fn unknown(disk: &Disk, error: io::Error) -> RoomError {
    RoomError::Unknown { folder: disk.folder.clone(), error }
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
            match self.ledger.promise(&self.disk, self.device, more) {
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
    space_of(folder).map(|space| space.free)
}

fn space_of(folder: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { free: bytes(stat.f_bavail), size: bytes(stat.f_blocks) })
}

/// The device number of the disk of `folder`.
fn device(folder: &Path) -> io::Result<u64> {
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
        let disk = Disk::own(folder.path().to_owned());
        let ledger = ledger();
        let first = ledger.reserve(&disk, 3 * GB / 2).unwrap();
        assert!(matches!(ledger.reserve(&disk, GB), Err(RoomError::Full(_))));
        let second = ledger.reserve(&disk, GB / 4).unwrap();
        drop(first);
        let third = ledger.reserve(&disk, GB).unwrap();
        drop((second, third));
        assert!(ledger.promised.lock().unwrap().values().all(|promised| *promised == 0));
    }

    #[test]
    fn written_bytes_need_no_promise() {
        let folder = TempDir::new().unwrap();
        let disk = Disk::own(folder.path().to_owned());
        let ledger = ledger();
        let mut one = ledger.reserve(&disk, GB).unwrap();
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
        assert_eq!(ledger.room(&disk).unwrap(), 2 * GB - promised());
        drop(one);
        assert_eq!(promised(), 0);
    }

    #[test]
    fn a_server_that_is_gone_holds_nobody_up() {
        let (answer, answers) = std::sync::mpsc::channel();
        let space = |free| Space { free, size: 10 };
        answer.send(space(1)).unwrap();
        // Waits for ever where there is no answer, as the system does.
        let watch = Watch::start(7, move || answers.recv().map_err(io::Error::other)).unwrap();
        assert_eq!(watch.space(Instant::now()).unwrap(), space(1));
        let later = || Instant::now() + SILENCE;
        assert_eq!(watch.space(later()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        answer.send(space(2)).unwrap();
        while !watch.space(Instant::now()).is_ok_and(|now| now == space(2)) {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(watch.space(later()).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_shared_folder_is_on_the_disk_of_its_neighbour() {
        let folder = TempDir::new().unwrap();
        let (own, shared) = (Disk::own(folder.path().to_owned()), Disk::shared(folder.path().to_owned()).unwrap());
        assert!(shared.is_that_of(&own).unwrap() && shared.space().unwrap().size == own.space().unwrap().size);
    }
}
