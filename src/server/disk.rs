//! Room on this node's disks: bytes are promised before they are written, a ballast file is kept for the moment when
//! nothing can be written any more, and the log is told once when a disk fills up and once when there is room again.
//! Used by `media`, `sessions`, `jobs` and the health pages.

use super::{
    media::Media,
    store::{self, Store},
};
use crate::model::{Timestamp, bytes};
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// Bytes in the ballast file: many times what SQLite writes to delete the longest session.
const BALLAST: u64 = 4 * 1024 * 1024;
/// How often the free bytes are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long the outcome of a trial write is given as the answer, so that nobody can make the node write all the time.
const FRESH: Duration = Duration::from_secs(1);
/// With fewer free bytes a disk counts as full: nothing but the smallest file still fits.
const FULL: u64 = 64 * 1024;
/// A write that makes room is tried this often, with these pauses: what it frees may be taken by others meanwhile.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

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

/// A file that is removed when the disk is so full that not even a session can be deleted, to make room for that. Only
/// where the database is a file of this node's own.
#[derive(Debug)]
pub struct Ballast(Option<PathBuf>);

impl Ballast {
    /// That beside an SQLite database, or none.
    #[must_use]
    pub fn new(database: Option<PathBuf>) -> Self {
        Self(database)
    }

    fn file(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|database| database.with_file_name("ballast"))
    }

    /// Makes the file if it isn't there and `room` bytes may be taken for it.
    fn renew(&self, room: u64) {
        let Some(path) = self.file().filter(|path| room >= BALLAST && !path.exists()) else { return };
        if let Err(error) = allocate(&path) {
            tracing::debug!(%error, "the ballast file could not be made");
            let _ = fs::remove_file(path);
        }
    }

    /// Removes the file, and gives half of its room to the write-ahead log at once, before others take it. False if there is none.
    pub(super) fn release(&self) -> bool {
        let (Some(database), Some(file)) = (&self.0, self.file()) else { return false };
        // Opened before, so that nothing comes between. No lock of SQLite's is on this file, which closing it would lose.
        let mut log = database.clone().into_os_string();
        log.push("-wal");
        let log = File::options().write(true).open(log).and_then(|log| Ok((log.metadata()?.len(), log)));
        if fs::remove_file(file).is_err() {
            return false;
        }
        if let Ok((end, log)) = log {
            // Not all of it: at a start the index of the log needs room too. The size of the log stays what it is.
            let mut room = BALLAST / 2;
            while room >= FULL && fallocate(&log, FallocateFlags::KEEP_SIZE, end, room).is_err() {
                room /= 2;
            }
        }
        tracing::warn!("the ballast file was removed, to make room on a full disk for what frees more");
        true
    }
}

/// Makes a file of [`BALLAST`] bytes that really takes as many on the disk.
fn allocate(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BALLAST) {
        Ok(()) => Ok(()),
        // Not every file system can do so.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = [0; 64 * 1024];
            (0..BALLAST / zeros.len() as u64).try_for_each(|_| file.write_all(&zeros))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this node can keep what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// With what is free where less is free than should be.
    Writable { low: Option<u64> },
    /// The database's disk is full; with the free bytes of the data folder.
    Full { free: u64 },
    /// The database may only be read.
    ReadOnly,
    /// The database doesn't answer.
    Away,
}

/// Looks after the disks of a node.
#[derive(Debug)]
pub struct DiskWatch {
    spare: u64,
    ballast: Ballast,
    /// The last trial write.
    tried: tokio::sync::Mutex<Option<(time::Instant, Condition)>>,
}

/// How full a disk is, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Roomy,
    Low,
    Full,
}

impl DiskWatch {
    /// `spare` bytes must stay free.
    #[must_use]
    pub fn new(spare: u64, ballast: Ballast) -> Self {
        Self { spare, ballast, tried: tokio::sync::Mutex::default() }
    }

    /// Tries whether the database can be written, unless that was done just now. Of requests at once one tries, and
    /// the others wait for it.
    pub async fn condition(&self, store: &Store, media: &Media) -> Condition {
        let mut tried = self.tried.lock().await;
        if let Some((at, condition)) = &*tried
            && at.elapsed() < FRESH
        {
            return condition.clone();
        }
        let written = store.try_write(Timestamp::now()).await;
        let free = media.free_bytes().unwrap_or(0);
        let condition = match written {
            Ok(()) => Condition::Writable { low: (free < self.spare).then_some(free) },
            Err(error) if store::is_full(&error) => Condition::Full { free },
            Err(error) if store::is_read_only(&error) => Condition::ReadOnly,
            Err(error) => {
                tracing::warn!(%error, "not ready: the store does not answer");
                Condition::Away
            }
        };
        *tried = Some((time::Instant::now(), condition.clone()));
        condition
    }

    /// Carries out a write that makes room, also on a full disk, which is what `full` says of its error: lets SQLite use
    /// again what its files hold already, and removes the ballast if that isn't enough.
    ///
    /// # Errors
    /// As `write`, also if the disk stays full.
    pub async fn make_room<T, E, F>(&self, store: &Store, full: fn(&E) -> bool, write: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut tries = 0;
        loop {
            match write().await {
                Err(error) if full(&error) && tries < TRIES => {
                    if tries > 0 && !self.ballast.release() {
                        time::sleep(PAUSE).await;
                    }
                    // With the ballast's room, if it was needed, so that later writes find theirs in the log.
                    store.reuse_log().await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Tells the log when a disk fills up and when there is room again, and keeps the ballast, until `stop`.
    pub async fn run(&self, media: &Media, stop: &CancellationToken) {
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut told = Level::Roomy;
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            let Ok(free) = media.free_bytes() else { continue };
            let level = self.level(free, told);
            if level == Level::Roomy {
                self.ballast.renew(media.room().unwrap_or(0));
            }
            if level == told {
                continue;
            }
            told = level;
            let (free_bytes, spare_bytes) = (free, self.spare);
            let (free, spare) = (bytes(free), bytes(self.spare));
            match level {
                Level::Full => {
                    tracing::error!(
                        free_bytes,
                        "the disk is full: {free} are free; nothing can be saved until there is room"
                    );
                }
                Level::Low => tracing::warn!(
                    free_bytes,
                    spare_bytes,
                    "the disk is almost full: {free} are free and {spare} must stay so; uploads are refused until there is room"
                ),
                Level::Roomy => tracing::info!(free_bytes, "there is room on the disk again: {free} are free"),
            }
        }
    }

    /// A disk counts as roomy again only with some more than must stay free, or the log would be told of every file.
    fn level(&self, free: u64, before: Level) -> Level {
        let enough = if before == Level::Roomy { self.spare } else { self.spare.saturating_add(self.spare / 20) };
        if free < FULL {
            Level::Full
        } else if free < enough {
            Level::Low
        } else {
            Level::Roomy
        }
    }
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

    #[test]
    fn the_log_is_told_of_a_disk_once() {
        let watch = DiskWatch::new(100 * FULL, Ballast::new(None));
        let told = [200, 99, 101, 0, 101, 104, 106, 100, 99].into_iter().scan(Level::Roomy, |told, free| {
            *told = watch.level(free * FULL, *told);
            Some(*told)
        });
        use Level::{Full, Low, Roomy};
        assert_eq!(told.collect::<Vec<_>>(), [Roomy, Low, Low, Full, Low, Low, Roomy, Roomy, Low]);
    }

    #[test]
    fn a_ballast_takes_room_and_gives_it_back() {
        let folder = TempDir::new().unwrap();
        let ballast = Ballast::new(Some(folder.path().join("db")));
        assert!(!ballast.release());
        ballast.renew(BALLAST - 1);
        assert!(!ballast.release());
        ballast.renew(BALLAST);
        let meta = fs::metadata(folder.path().join("ballast")).unwrap();
        assert!(meta.len() == BALLAST && meta.blocks() * 512 >= BALLAST);
        let log = folder.path().join("db-wal");
        fs::write(&log, "log").unwrap();
        assert!(ballast.release() && !ballast.release());
        // The log has the room, although it is no longer than before.
        let meta = fs::metadata(&log).unwrap();
        assert!(meta.len() == 3 && meta.blocks() * 512 >= BALLAST / 2, "{meta:?}");
    }
}
