//! Compares what watchers have with the store, to find changes that didn't reach this node: made by another node or an
//! operator's command, or lost on the way. It runs rarely where all changes reach this node, and every second where
//! they can't.

use super::Watchers;
use crate::{
    model::SessionId,
    server::store::{self, Store, recent_cutoff},
};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, time, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long a lost change stays unseen at most.
const LONG_INTERVAL: Duration = Duration::from_secs(10);
/// The same while changes of other nodes can't be received.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);
/// Sessions, or owners, compared in one statement.
const BATCH: usize = 500;
/// How long watchers may have a newer version than the store: reports of outside workers are stored within 30 seconds.
/// After that the store is right, for example because it was restored from a backup.
const MAX_AHEAD: Duration = Duration::from_secs(60);

/// How often to compare.
pub(super) enum Frequency {
    Rarely,
    EverySecond,
    /// Rarely while this is true, which says that changes are received; every second while it isn't; and at once when
    /// it becomes true.
    UnlessConnected(watch::Receiver<bool>),
}

/// Compares until `stop`.
pub(super) async fn run(watchers: &dyn Watchers, store: &Store, mut frequency: Frequency, stop: &CancellationToken) {
    let mut ahead = Ahead::default();
    let work = async {
        loop {
            match &mut frequency {
                Frequency::Rarely => time::sleep(LONG_INTERVAL).await,
                Frequency::EverySecond => time::sleep(SHORT_INTERVAL).await,
                Frequency::UnlessConnected(connected) => {
                    let pause = if *connected.borrow_and_update() { LONG_INTERVAL } else { SHORT_INTERVAL };
                    tokio::select! {
                        () = time::sleep(pause) => {}
                        changed = connected.changed() => if changed.is_err() { return },
                    }
                }
            }
            if let Err(error) = compare(watchers, store, &mut ahead, Instant::now()).await
                && !store::is_away(&error)
            {
                tracing::warn!(%error, "watched sessions could not be compared with the store; trying again");
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Sessions of which watchers have a newer version than the store: since when, and the store's version at that time.
#[derive(Debug, Default)]
pub(super) struct Ahead(HashMap<SessionId, (Instant, u64)>);

impl Ahead {
    /// Notes that the watchers of a session are ahead of version `stored`. True if they have been for [`MAX_AHEAD`].
    fn is_overdue(&mut self, id: SessionId, stored: u64, now: Instant) -> bool {
        let since = self.0.entry(id).or_insert((now, stored));
        if since.1 != stored {
            *since = (now, stored);
        }
        now.duration_since(since.0) >= MAX_AHEAD
    }
}

/// Sends the watchers what the store has and they don't. Where they have been ahead of the store for too long, the
/// session gets a version above theirs, so that the store's status replaces theirs.
///
/// # Errors
/// If the database fails; some watchers may have been updated by then.
pub(super) async fn compare(
    watchers: &dyn Watchers,
    store: &Store,
    ahead: &mut Ahead,
    now: Instant,
) -> Result<(), sqlx::Error> {
    let mut changed: Vec<SessionId> = Vec::new();
    let mut overdue: Vec<(SessionId, u64)> = Vec::new();
    let held = watchers.held();
    let ids: Vec<SessionId> = held.keys().copied().collect();
    ahead.0.retain(|id, _| held.contains_key(id));
    for step in ids.chunks(BATCH) {
        let stored = store.versions(step).await?;
        for id in step {
            match (stored.get(id), held.get(id)) {
                (Some((version, segments)), Some((known, counted))) if version > known || segments > counted => {
                    changed.push(*id);
                }
                (Some((version, segments)), Some((known, counted))) if version < known || segments < counted => {
                    if ahead.is_overdue(*id, *version, now) {
                        overdue.push((*id, *known));
                    }
                }
                (None, _) => watchers.forget(*id),
                _ => drop(ahead.0.remove(id)),
            }
        }
    }
    for owners in watchers.held_owners().chunks(BATCH) {
        let all = store.versions_of_owners(owners, recent_cutoff()).await?;
        let newer = all.into_iter().filter(|(id, owner, version)| watchers.known_to_owner(owner, *id) < Some(*version));
        changed.extend(newer.map(|(id, ..)| id));
    }
    for (id, known) in overdue {
        ahead.0.remove(&id);
        if store.raise_version(id, known).await? {
            tracing::warn!(session_id = %id, "watchers of session {id} had a newer status than the database for a minute; they now get the database's");
            changed.push(id);
        }
    }
    changed.sort_unstable();
    changed.dedup();
    for step in changed.chunks(BATCH) {
        for (session, owner) in store.find_many(step).await? {
            watchers.refresh(&owner, &session.status);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Channels, EngineId, Media, State, Status, Timestamp, Title},
        server::{
            owner::Owner,
            store::NewSession,
            stream::{Hub, StreamLimits},
        },
    };
    use uuid::Uuid;

    #[tokio::test]
    async fn watchers_that_are_ahead_of_the_store_for_a_minute_get_its_status() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
        let (id, owner) = (SessionId(Uuid::from_u128(7)), Owner::from_store("me".to_owned()));
        let new = NewSession {
            id,
            owner: owner.clone(),
            title: Title::new("A talk").unwrap(),
            engine: EngineId::External,
            language: None,
            vocabulary: None,
            channels: Channels::Mix,
            track: None,
            media: Media::default(),
            duration_total: None,
            lease_until: None,
            address: None,
            recording_hash: None,
            upload: None,
        };
        store.insert(&new, Timestamp(0)).await.unwrap();
        let hub = Hub::new(StreamLimits::default());
        hub.hold(id);
        // A status that the store doesn't have, as after it was restored from a backup.
        let phantom = Status { version: 50, ..Status::new(id, State::Processing, None, Timestamp(0)) };
        hub.learn(&owner, &phantom);
        let (mut ahead, start) = (Ahead::default(), Instant::now());
        for (after, version) in [(0, 50), (59, 50), (60, 1050), (70, 1050)] {
            compare(&hub, &store, &mut ahead, start + Duration::from_secs(after)).await.unwrap();
            assert_eq!(hub.version_of(id), Some(version), "after {after} s");
        }
        assert_eq!(hub.newest(id).unwrap().1.state, State::Queued);
        assert_eq!(store.versions(&[id]).await.unwrap()[&id], (1050, 0));
    }
}
