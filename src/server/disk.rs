//! Handling of full disks: keeps a ballast file that is removed when nothing can be written any more, and logs once
//! when a disk fills up and once when there is room again. Used by `sessions`, `jobs` and the health routes.

use super::{
    media::Recordings,
    space,
    store::{self, DatabaseOpenError, Store},
};
use crate::model::{Timestamp, bytes};
use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// The size of the ballast file in bytes: many times what SQLite writes to delete the longest session.
const BALLAST: u64 = 4 * 1024 * 1024;
/// How often the free bytes are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long the result of a trial write is reused, so that nobody can keep the node writing.
const CACHE_TIME: Duration = Duration::from_secs(1);
/// With fewer free bytes a disk counts as full: only tiny files would fit.
const FULL_BELOW: u64 = 64 * 1024;
/// How often a write that makes room is tried, and the pause between: others may take what was freed.
const MAX_TRIES: u32 = 50;
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A file that is removed when the disk is so full that not even a session can be deleted, to make room for that. Only
/// with an SQLite database.
#[derive(Debug)]
pub struct Ballast(Option<PathBuf>);

impl Ballast {
    /// The ballast beside an SQLite database, or none.
    #[must_use]
    pub fn new(database: Option<PathBuf>) -> Self {
        Self(database)
    }

    fn file(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|database| database.with_file_name("ballast"))
    }

    /// Creates the file if it doesn't exist and `room` bytes suffice for it.
    fn recreate(&self, room: u64) {
        let Some(path) = self.file().filter(|path| room >= BALLAST && !path.exists()) else { return };
        if let Err(error) = allocate(&path) {
            tracing::debug!(%error, "the ballast file could not be created; trying again");
            let _ = fs::remove_file(path);
        }
    }

    /// Removes the file if the database couldn't be opened for lack of room. False if it has another cause, or there is no
    /// file.
    pub(super) fn release_after(&self, error: &DatabaseOpenError) -> bool {
        let disk_is_full = || {
            let folder = self.0.as_ref().and_then(|database| database.parent());
            folder.is_some_and(|folder| space::free_bytes(folder).is_ok_and(|free| free < FULL_BELOW))
        };
        store::opening_lacks_room(error, disk_is_full) && self.release()
    }

    /// Removes the file, and gives half of its room to the write-ahead log at once, before others take it. False if
    /// there is no file.
    fn release(&self) -> bool {
        let (Some(database), Some(file)) = (&self.0, self.file()) else { return false };
        // Opened first, so that no time is lost after the removal. SQLite has no lock on this file that closing it
        // would release.
        let mut log = database.clone().into_os_string();
        log.push("-wal");
        let log = File::options().write(true).open(log).and_then(|log| Ok((log.metadata()?.len(), log)));
        if fs::remove_file(file).is_err() {
            return false;
        }
        if let Ok((end, log)) = log {
            // Not all of it, because at a start the log's index needs room too. The size of the log doesn't change.
            let mut room = BALLAST / 2;
            while room >= FULL_BELOW && fallocate(&log, FallocateFlags::KEEP_SIZE, end, room).is_err() {
                room /= 2;
            }
        }
        tracing::warn!("the disk is full: removed the ballast file, so that sessions can still be deleted");
        true
    }
}

/// Creates a file of [`BALLAST`] bytes that really takes up as many on the disk.
fn allocate(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BALLAST) {
        Ok(()) => Ok(()),
        // Not every file system supports it.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = [0; 64 * 1024];
            (0..BALLAST / zeros.len() as u64).try_for_each(|_| file.write_all(&zeros))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this node can store data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The database accepts writes; with the free bytes if fewer are free than must stay free.
    Writable { low: Option<u64> },
    /// The database's disk is full; with the free bytes of the data folder.
    Full { free: u64 },
    /// The database is read-only.
    ReadOnly,
    /// The database doesn't answer.
    Unreachable,
}

/// Watches the disks of a node.
#[derive(Debug)]
pub struct DiskWatch {
    min_free: u64,
    ballast: Ballast,
    /// When the last trial write was made, and its result.
    last_test: tokio::sync::Mutex<Option<(time::Instant, Condition)>>,
}

/// How full a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Enough,
    Low,
    Full,
}

impl DiskWatch {
    /// `min_free` bytes must stay free.
    #[must_use]
    pub fn new(min_free: u64, ballast: Ballast) -> Self {
        Self { min_free, ballast, last_test: tokio::sync::Mutex::default() }
    }

    /// Tests whether the database accepts writes, unless that was done within [`CACHE_TIME`]. Of concurrent requests
    /// one tests, and the others wait for it.
    pub async fn condition(&self, store: &Store, media: &Recordings) -> Condition {
        let mut last_test = self.last_test.lock().await;
        if let Some((at, condition)) = &*last_test
            && at.elapsed() < CACHE_TIME
        {
            return condition.clone();
        }
        let written = store.try_write(Timestamp::now()).await;
        // Unknown while the recordings' server is gone, which `cluster` tells.
        let free = media.free_bytes().ok();
        let condition = match written {
            Ok(()) => Condition::Writable { low: free.filter(|free| *free < self.min_free) },
            Err(error) if store::is_full(&error) => Condition::Full { free: free.unwrap_or(0) },
            Err(error) if store::is_read_only(&error) => Condition::ReadOnly,
            Err(error) => {
                if !store::is_away(&error) {
                    tracing::warn!(%error, "not ready: the database takes no write");
                }
                Condition::Unreachable
            }
        };
        *last_test = Some((time::Instant::now(), condition.clone()));
        condition
    }

    /// Runs a write that makes room, also on a full disk. If `full` says that the write failed for lack of room, makes
    /// SQLite reuse the room in its own files, removes the ballast if that isn't enough, and tries again.
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
                Err(error) if full(&error) && tries < MAX_TRIES => {
                    if tries > 0 && !self.ballast.release() {
                        time::sleep(RETRY_PAUSE).await;
                    }
                    // After the ballast was removed, if it was needed, so that later writes find room in the log.
                    store.checkpoint().await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Logs when a disk fills up and when there is room again, and recreates the ballast, until `stop`.
    pub async fn run(&self, media: &Recordings, stop: &CancellationToken) {
        let mut interval = time::interval(CHECK_INTERVAL);
        interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut logged = Level::Enough;
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let Ok(free) = media.free_bytes() else { continue };
            let level = self.level(free, logged);
            if level == Level::Enough {
                self.ballast.recreate(media.room().unwrap_or(0));
            }
            if level == logged {
                continue;
            }
            logged = level;
            let (free_bytes, min_free_bytes) = (free, self.min_free);
            let (free, min_free) = (bytes(free), bytes(self.min_free));
            match level {
                Level::Full => {
                    tracing::error!(
                        free_bytes,
                        "the disk is full: {free} are free; nothing can be saved until there is room"
                    );
                }
                Level::Low => tracing::warn!(
                    free_bytes,
                    min_free_bytes,
                    "the disk is almost full: {free} are free and {min_free} must stay free; uploads are refused until there is room"
                ),
                Level::Enough => tracing::info!(free_bytes, "there is room on the disk again: {free} are free"),
            }
        }
    }

    /// A disk counts as having room again only with 5% more than must stay free, or every file would be logged.
    fn level(&self, free: u64, before: Level) -> Level {
        let enough =
            if before == Level::Enough { self.min_free } else { self.min_free.saturating_add(self.min_free / 20) };
        if free < FULL_BELOW {
            Level::Full
        } else if free < enough {
            Level::Low
        } else {
            Level::Enough
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use tempfile::TempDir;

    #[test]
    fn each_change_of_a_disks_level_is_logged_once() {
        let watch = DiskWatch::new(100 * FULL_BELOW, Ballast::new(None));
        let logged = [200, 99, 101, 0, 101, 104, 106, 100, 99].into_iter().scan(Level::Enough, |logged, free| {
            *logged = watch.level(free * FULL_BELOW, *logged);
            Some(*logged)
        });
        use Level::{Enough, Full, Low};
        assert_eq!(logged.collect::<Vec<_>>(), [Enough, Low, Low, Full, Low, Low, Enough, Enough, Low]);
    }

    #[test]
    fn a_ballast_takes_room_and_gives_it_back() {
        let folder = TempDir::new().unwrap();
        let ballast = Ballast::new(Some(folder.path().join("db")));
        assert!(!ballast.release());
        ballast.recreate(BALLAST - 1);
        assert!(!ballast.release());
        ballast.recreate(BALLAST);
        let meta = fs::metadata(folder.path().join("ballast")).unwrap();
        assert!(meta.len() == BALLAST && meta.blocks() * 512 >= BALLAST);
        let log = folder.path().join("db-wal");
        fs::write(&log, "log").unwrap();
        assert!(ballast.release() && !ballast.release());
        // The room belongs to the log, although its length is the same.
        let meta = fs::metadata(&log).unwrap();
        assert!(meta.len() == 3 && meta.blocks() * 512 >= BALLAST / 2, "{meta:?}");
    }
}
