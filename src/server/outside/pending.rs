//! What outside workers published over Redis and the store doesn't have yet: of each session the newest status. So the store
//! may take its time, or be away, and what is heard is shown meanwhile. Called by `heard`.

use crate::model::{SessionId, Status};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Statuses that are to be stored. Filled by who hears them, stored by another, and left here until that is done.
#[derive(Debug, Default)]
pub(super) struct PendingReports {
    statuses: Mutex<HashMap<SessionId, Pending>>,
    urged: Notify,
}

/// A status that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub(super) status: Status,
    /// The state or the stage has changed, which is stored at once; other steps may gather.
    pub(super) urgent: bool,
}

impl PendingReports {
    /// Takes in a status that is newer than those before. One that has to be stored at once stays so with those after it.
    pub(super) fn put(&self, status: Status, urgent: bool) {
        let mut statuses = self.lock();
        let urgent_before = statuses.get(&status.session_id).is_some_and(|before| before.urgent);
        statuses.insert(status.session_id, Pending { status, urgent: urgent || urgent_before });
        if urgent {
            self.urged.notify_one();
        }
    }

    /// The newest status of a session, if it waits.
    pub(super) fn newest(&self, id: SessionId) -> Option<Status> {
        self.lock().get(&id).map(|waiting| waiting.status.clone())
    }

    /// Those that must be stored at once, or all.
    pub(super) fn due(&self, all: bool) -> Vec<Pending> {
        self.lock().values().filter(|waiting| all || waiting.urgent).cloned().collect()
    }

    /// A status has been stored, or the store has a newer one. It goes unless a newer one came meanwhile, which may
    /// gather unless it is another change.
    pub(super) fn done(&self, stored: &Status) {
        if let Entry::Occupied(mut entry) = self.lock().entry(stored.session_id) {
            if entry.get().status.version <= stored.version {
                entry.remove();
            } else {
                entry.get_mut().urgent &= entry.get().status.changes(stored);
            }
        }
    }

    /// Waits until one has to be stored at once. For one waiter.
    pub(super) async fn urged(&self) {
        self.urged.notified().await;
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
    fn the_newest_waits_until_it_is_stored() {
        let pending = PendingReports::default();
        pending.put(status(1, 1), false);
        pending.put(status(2, 1), true);
        assert_eq!(pending.due(false), [Pending { status: status(2, 1), urgent: true }]);
        assert_eq!(pending.due(true).len(), 2);
        // While the first is being stored, a newer one comes: a step, then a change.
        pending.put(status(2, 2), false);
        assert_eq!(pending.due(false), [Pending { status: status(2, 2), urgent: true }]);
        pending.done(&status(2, 1));
        assert_eq!(pending.newest(status(2, 0).session_id), Some(status(2, 2)));
        assert_eq!(pending.due(false), []);
        let ended = Status { state: State::Completed, ..status(2, 3) };
        pending.put(ended.clone(), true);
        pending.done(&status(2, 2));
        assert_eq!(pending.due(false), [Pending { status: ended.clone(), urgent: true }]);
        pending.done(&ended);
        pending.done(&status(1, 1));
        assert!(pending.due(true).is_empty());
    }

    #[tokio::test]
    async fn what_is_urgent_is_told_of_even_before_it_is_waited_for() {
        let pending = PendingReports::default();
        pending.put(status(1, 1), true);
        pending.urged().await;
    }
}
