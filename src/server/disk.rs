//! Full disks: a ballast file is kept for the moment when nothing can be written any more, and the log is told once when
//! a disk fills up and once when there is room again. Used by `sessions`, `jobs` and the health pages.

use super::{
    media::Recordings,
    store::{self, Store},
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
    pub async fn condition(&self, store: &Store, media: &Recordings) -> Condition {
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
                    store.checkpoint().await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Tells the log when a disk fills up and when there is room again, and keeps the ballast, until `stop`.
    pub async fn run(&self, media: &Recordings, stop: &CancellationToken) {
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
    use std::os::unix::fs::MetadataExt;
    use tempfile::TempDir;

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
