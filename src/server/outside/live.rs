//! A cache of the sessions that outside workers report on: the newest status of each, which may be ahead of the store
//! by some progress. Called by `outside`.

use super::report::Floor;
use crate::{
    model::{EngineId, Session, SessionId, Status, Timestamp},
    server::{
        error::Error,
        owner::Owner,
        store::{OUTSIDE_VERSION_GAP, Store},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// How long a status that only reports progress may wait to be stored, in seconds. The hub has it meanwhile.
const STORE_AFTER: f64 = 30.0;
/// A session that wasn't reported on for this long is dropped from the cache, in seconds.
const EVICT_AFTER: f64 = 60.0;
/// How many statuses are stored at once, so that other writers aren't delayed.
pub(super) const BATCH: usize = 64;

/// The sessions that are reported on.
#[derive(Debug)]
pub(super) struct LiveSessions {
    /// Whether other nodes may take in reports on the same sessions.
    pub(super) shared: bool,
    /// The sessions that an earlier process has left unfinished, with the versions that it had stored. If it crashed, it may
    /// have announced higher ones. Empty on a shared database, where each is stored before it is announced.
    left: HashMap<SessionId, u64>,
    sessions: Mutex<HashMap<SessionId, Arc<AsyncMutex<Live>>>>,
}

/// A session that is reported on.
#[derive(Debug)]
pub struct Live {
    pub(super) owner: Owner,
    pub(super) status: Status,
    /// What the next status must not be below, besides this one.
    pub(super) floor: Floor,
    /// The version that was last stored.
    stored_version: u64,
    /// When the status was last stored, whether it has changed since, and whether state or stage have.
    pub(super) stored: Timestamp,
    pub(super) dirty: bool,
    pub(super) unstored_step: bool,
    /// Whether it was dropped from the cache, so that it must be read from the store again.
    pub(super) evicted: bool,
}

impl Live {
    /// A session as the store has it.
    ///
    /// # Errors
    /// If it isn't a session of an outside worker.
    pub(super) fn new(session: Session, owner: Owner) -> Result<Self, Error> {
        if session.engine != EngineId::External {
            return Err(Error::Conflict("not_outside", "Hark's own workers transcribe this session.".to_owned()));
        }
        Ok(Self {
            owner,
            floor: Floor::default(),
            stored_version: session.status.version,
            stored: session.status.timestamp,
            status: session.status,
            dirty: false,
            unstored_step: false,
            evicted: false,
        })
    }

    /// Notes that the newest status was stored, with this version.
    pub(super) fn mark_stored(&mut self, version: u64, now: Timestamp) {
        (self.stored_version, self.stored, self.dirty, self.unstored_step) = (version, now, false, false);
    }

    /// Whether a status must be stored before it is announced, because whoever finds the stored one after a crash adds only
    /// [`OUTSIDE_VERSION_GAP`] to be above all that was announced.
    pub(super) fn is_far_ahead(&self, status: &Status) -> bool {
        status.version >= self.stored_version.saturating_add(OUTSIDE_VERSION_GAP)
    }
}

/// Sessions and their owners, as the store has them.
type Rows = HashMap<SessionId, (Session, Owner)>;

async fn find_all(store: &Store, ids: &[SessionId]) -> Result<Rows, Error> {
    if ids.is_empty() {
        return Ok(Rows::new());
    }
    Ok(store.find_many(ids).await?.into_iter().map(|(session, owner)| (session.id, (session, owner))).collect())
}

fn take(rows: &mut Rows, id: SessionId) -> Result<(Session, Owner), Error> {
    rows.remove(&id).ok_or(Error::NotFound)
}

impl LiveSessions {
    /// An empty cache.
    ///
    /// # Errors
    /// If the database fails.
    pub(super) async fn open(store: &Store) -> Result<Self, sqlx::Error> {
        let shared = store.is_shared();
        let left = if shared { HashMap::new() } else { store.open_outside().await? };
        Ok(Self { shared, left, sessions: Mutex::default() })
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<AsyncMutex<Live>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session to report on, locked, so that its reports are processed one after another. On a shared database another
    /// node may have taken in newer reports, which shows when the next one is stored.
    pub(super) async fn live(&self, store: &Store, id: SessionId) -> Result<OwnedMutexGuard<Live>, Error> {
        loop {
            let known = self.table().get(&id).cloned();
            let live = match known {
                Some(live) => live,
                None => {
                    let (session, owner) = store.find(id).await?.ok_or(Error::NotFound)?;
                    self.insert(Live::new(session, owner)?)
                }
            };
            let live = live.lock_owned().await;
            if !live.evicted {
                return Ok(live);
            }
        }
    }

    /// The same, as the store has it now if other nodes may have changed it.
    pub(super) async fn newest(&self, store: &Store, id: SessionId) -> Result<OwnedMutexGuard<Live>, Error> {
        let mut live = self.live(store, id).await?;
        if self.shared {
            let (session, owner) = store.find(id).await?.ok_or(Error::NotFound)?;
            live.owner = owner;
            live.status = session.status;
        }
        Ok(live)
    }

    /// Several sessions to report on, locked; or why one can't be reported on. The ids must be in order: whoever locks
    /// several sessions does so in the order of their ids, because two would wait for each other otherwise.
    pub(super) async fn live_many(
        &self,
        store: &Store,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, Result<OwnedMutexGuard<Live>, Error>)>, Error> {
        let known: HashMap<SessionId, Arc<AsyncMutex<Live>>> = {
            let table = self.table();
            ids.iter().filter_map(|id| Some((*id, Arc::clone(table.get(id)?)))).collect()
        };
        let unknown: Vec<SessionId> = ids.iter().filter(|id| !known.contains_key(id)).copied().collect();
        let mut rows = find_all(store, &unknown).await?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let live = match known.get(id) {
                Some(live) => Ok(Arc::clone(live)),
                None => take(&mut rows, *id)
                    .and_then(|(session, owner)| Live::new(session, owner))
                    .map(|live| self.insert(live)),
            };
            let locked = match live {
                Ok(live) => {
                    let live = live.lock_owned().await;
                    if live.evicted { self.live(store, *id).await } else { Ok(live) }
                }
                Err(error) => Err(error),
            };
            found.push((*id, locked));
        }
        Ok(found)
    }

    /// Adds a session, unless it has been added meanwhile.
    pub(super) fn insert(&self, mut live: Live) -> Arc<AsyncMutex<Live>> {
        let id = live.status.session_id;
        live.floor.note(&live.status);
        live.floor.version = self.left.get(&id).map_or(0, |stored| stored + OUTSIDE_VERSION_GAP);
        Arc::clone(self.table().entry(id).or_insert_with(|| Arc::new(AsyncMutex::new(live))))
    }

    /// Drops a session that was locked by [`LiveSessions::live`], because the store is ahead of it or it has ended.
    pub(super) fn forget(&self, live: &mut Live) {
        live.evicted = true;
        self.table().remove(&live.status.session_id);
    }

    /// Stores the last report on a session and makes further reports wait until the guard is dropped; they then read
    /// the session from the store again. For changes that don't come from the worker.
    ///
    /// # Errors
    /// If the database fails.
    pub(super) async fn pause_reports(
        &self,
        store: &Store,
        id: SessionId,
    ) -> Result<Option<OwnedMutexGuard<Live>>, Error> {
        let Some(live) = self.table().get(&id).cloned() else { return Ok(None) };
        let mut live = live.lock_owned().await;
        if live.dirty {
            let newest = (live.status.version - 1, live.status.clone());
            store.report_many(&[newest], live.stored.plus_seconds(EVICT_AFTER)).await?;
            let version = live.status.version;
            live.mark_stored(version, Timestamp::now());
        }
        self.forget(&mut live);
        Ok(Some(live))
    }

    /// Stores the statuses that have waited long enough, or all with `all`; drops sessions that aren't reported on any
    /// more.
    ///
    /// # Errors
    /// If the database fails; what couldn't be stored is kept for the next call.
    pub(super) async fn store_steps(&self, store: &Store, silence_secs: u32, all: bool) -> Result<(), sqlx::Error> {
        let now = Timestamp::now();
        // Storing also extends the lease, so it must happen before the lease runs out.
        let after = STORE_AFTER.min(f64::from(silence_secs) / 3.0);
        let sessions: Vec<Arc<AsyncMutex<Live>>> = self.table().values().map(Arc::clone).collect();
        let mut due = Vec::new();
        for (n, session) in sessions.into_iter().enumerate() {
            if n % 64 == 63 {
                tokio::task::yield_now().await; // reports go first
            }
            // A session that is being reported on right now is skipped until the next call.
            let guard = if all { Some(session.lock_owned().await) } else { session.try_lock_owned().ok() };
            let Some(mut live) = guard else { continue };
            if live.dirty && (all || now.seconds_since(live.stored) >= after) {
                due.push((Arc::clone(OwnedMutexGuard::mutex(&live)), live.status.clone()));
            } else if !live.dirty && now.seconds_since(live.status.timestamp) >= EVICT_AFTER {
                self.forget(&mut live);
            }
            drop(live);
            if due.len() == BATCH {
                write(store, &mut due, now, silence_secs).await?;
            }
        }
        write(store, &mut due, now, silence_secs).await
    }
}

/// Stores statuses while their sessions can be reported on.
async fn write(
    store: &Store,
    due: &mut Vec<(Arc<AsyncMutex<Live>>, Status)>,
    now: Timestamp,
    silence_secs: u32,
) -> Result<(), sqlx::Error> {
    let statuses: Vec<(u64, Status)> = due.iter().map(|(_, status)| (status.version - 1, status.clone())).collect();
    store.report_many(&statuses, now.plus_seconds(f64::from(silence_secs))).await?;
    for (session, status) in due.drain(..) {
        let mut live = session.lock().await;
        (live.stored_version, live.stored) = (status.version, now);
        live.unstored_step &= live.status.changes(&status);
        live.dirty &= live.status.version != status.version;
    }
    Ok(())
}
