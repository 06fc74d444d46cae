//! Reports that outside workers published over Redis and that aren't stored yet: of each session the newest status. So
//! reports are shown at once, even while the database is slow or away. Called by `redis_reports`.

use crate::model::{SessionId, Status};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Statuses that are to be stored. One task adds them, another stores them, and they stay here until they are stored.
#[derive(Debug, Default)]
pub(super) struct PendingReports {
    statuses: Mutex<HashMap<SessionId, Pending>>,
    /// The highest progress of the sessions whose newest status leaves it out.
    hidden_progress: Mutex<HashMap<SessionId, f64>>,
    urgent_added: Notify,
}

/// A status that waits to be stored.
#[derive(Debug)]
struct Pending {
    status: Status,
    /// Whether the state or the stage has changed, which is stored at once. Progress may wait and be replaced by newer
    /// progress.
    urgent: bool,
}

impl PendingReports {
    /// Adds a status that is newer than those before. A session that has an urgent one stays urgent.
    pub(super) fn put(&self, status: Status, urgent: bool) {
        let mut statuses = self.lock();
        let urgent_before = statuses.get(&status.session_id).is_some_and(|before| before.urgent);
        statuses.insert(status.session_id, Pending { status, urgent: urgent || urgent_before });
        if urgent {
            self.urgent_added.notify_one();
        }
    }

    /// The newest status of a session, if it isn't stored yet.
    pub(super) fn newest(&self, id: SessionId) -> Option<Status> {
        self.lock().get(&id).map(|waiting| waiting.status.clone())
    }

    /// The urgent ones, or all.
    pub(super) fn due(&self, all: bool) -> Vec<Status> {
        self.lock().values().filter(|waiting| all || waiting.urgent).map(|waiting| waiting.status.clone()).collect()
    }

    /// Notes that a status was stored, or that the store has a newer one. It is removed, unless a newer one came
    /// meanwhile; that one is urgent only if its state or stage differs from what was stored.
    pub(super) fn mark_stored(&self, stored: &Status) {
        if let Entry::Occupied(mut entry) = self.lock().entry(stored.session_id) {
            if entry.get().status.version <= stored.version {
                entry.remove();
            } else {
                entry.get_mut().urgent &= entry.get().status.changes(stored);
            }
        }
    }

    /// The highest progress of a session, if its newest status leaves it out.
    pub(super) fn hidden_progress(&self, id: SessionId) -> Option<f64> {
        self.lock_progress().get(&id).copied()
    }

    /// Notes whether a status leaves out the progress that the session had, which was at most `highest`.
    pub(super) fn note_progress(&self, status: &Status, highest: Option<f64>) {
        let mut hidden = self.lock_progress();
        match highest.filter(|_| status.progress.is_none() && !status.state.is_terminal()) {
            Some(highest) => drop(hidden.insert(status.session_id, highest)),
            None => drop(hidden.remove(&status.session_id)),
        }
    }

    /// Forgets the progress of sessions that nobody here watches or reports on any more.
    pub(super) fn keep_progress(&self, is_known: impl Fn(SessionId) -> bool) {
        self.lock_progress().retain(|id, _| is_known(*id));
    }

    fn lock_progress(&self) -> MutexGuard<'_, HashMap<SessionId, f64>> {
        self.hidden_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an urgent status. For one waiter.
    pub(super) async fn wait_urgent(&self) {
        self.urgent_added.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Pending>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{State, Timestamp};
    use uuid::Uuid;

    fn status(session: u128, version: u64) -> Status {
        Status { version, ..Status::new(SessionId(Uuid::from_u128(session)), State::Processing, None, Timestamp(0)) }
    }

    #[test]
    fn the_newest_status_is_kept_until_it_is_stored() {
        let pending = PendingReports::default();
        pending.put(status(1, 1), false);
        pending.put(status(2, 1), true);
        assert_eq!(pending.due(false), [status(2, 1)]);
        assert_eq!(pending.due(true).len(), 2);
        // While the first is being stored, a newer one comes: progress, then a change of state.
        pending.put(status(2, 2), false);
        assert_eq!(pending.due(false), [status(2, 2)]);
        pending.mark_stored(&status(2, 1));
        assert_eq!(pending.newest(status(2, 0).session_id), Some(status(2, 2)));
        assert_eq!(pending.due(false), []);
        let ended = Status { state: State::Completed, ..status(2, 3) };
        pending.put(ended.clone(), true);
        pending.mark_stored(&status(2, 2));
        assert_eq!(pending.due(false), std::slice::from_ref(&ended));
        pending.mark_stored(&ended);
        pending.mark_stored(&status(1, 1));
        assert!(pending.due(true).is_empty());
    }

    #[test]
    fn progress_is_remembered_while_it_is_left_out() {
        let pending = PendingReports::default();
        let id = status(1, 1).session_id;
        let shown = Status { progress: Some(80.0), ..status(1, 1) };
        pending.note_progress(&shown, Some(80.0));
        assert_eq!(pending.hidden_progress(id), None);
        pending.note_progress(&status(1, 2), Some(80.0));
        pending.keep_progress(|_| true);
        assert_eq!(pending.hidden_progress(id), Some(80.0));
        pending.note_progress(&shown, Some(80.0));
        assert_eq!(pending.hidden_progress(id), None);
        pending.note_progress(&status(1, 3), Some(80.0));
        pending.keep_progress(|_| false);
        assert_eq!(pending.hidden_progress(id), None);
    }

    #[tokio::test]
    async fn an_urgent_status_is_noticed_even_if_nobody_waits_yet() {
        let pending = PendingReports::default();
        pending.put(status(1, 1), true);
        pending.wait_urgent().await;
    }
}
