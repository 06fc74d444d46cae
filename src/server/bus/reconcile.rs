//! Compares what watchers were told with the store: what another node or an operator's command changed and nobody
//! announced here, or what got lost on the way. Seldom where all changes pass this node, often where they can't be heard.

use super::Watchers;
use crate::{
    model::SessionId,
    server::store::{Store, recent_cutoff},
};
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, time, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long a lost change stays unseen at most, in general.
const RARELY: Duration = Duration::from_secs(10);
/// The same while changes of other nodes can't be heard.
const OFTEN: Duration = Duration::from_secs(1);
/// Sessions compared in one statement, and owners whose sessions are.
const STEP: usize = 500;
/// How long watchers may know a newer version than the store does: what outside workers report is stored within half a
/// minute. After that the store is right, for example because it was restored from a copy.
const AHEAD: Duration = Duration::from_secs(60);

/// How often to compare.
pub(super) enum Every {
    Rarely,
    Second,
    /// Rarely while this says that changes are heard, at once when they are again, and every second otherwise.
    UnlessConnected(watch::Receiver<bool>),
}

/// Compares until `stop`.
pub(super) async fn run(watchers: &dyn Watchers, store: &Store, mut every: Every, stop: &CancellationToken) {
    let mut ahead = Ahead::default();
    let work = async {
        loop {
            match &mut every {
                Every::Rarely => time::sleep(RARELY).await,
                Every::Second => time::sleep(OFTEN).await,
                Every::UnlessConnected(connected) => {
                    let pause = if *connected.borrow_and_update() { RARELY } else { OFTEN };
                    tokio::select! {
                        () = time::sleep(pause) => {}
                        changed = connected.changed() => if changed.is_err() { return },
                    }
                }
            }
            if let Err(error) = compare(watchers, store, &mut ahead, Instant::now()).await {
                tracing::warn!(%error, "what is watched could not be compared with the store; trying again");
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Sessions of which watchers know more than the store does: since when, and what the store knew then.
#[derive(Debug, Default)]
pub(super) struct Ahead(HashMap<SessionId, (Instant, u64)>);

impl Ahead {
    /// Notes that watchers of a session are ahead of version `stored`. True if they have been for too long.
    fn is_overdue(&mut self, id: SessionId, stored: u64, now: Instant) -> bool {
        let noted = self.0.entry(id).or_insert((now, stored));
        if noted.1 != stored {
            *noted = (now, stored);
        }
        now.duration_since(noted.0) >= AHEAD
    }
}

/// Tells the watchers what the store knows and they don't. What they have known and the store hasn't, for too long, is
/// taken back: the session gets a version above theirs.
///
/// # Errors
/// If the database fails; some may have been told by then.
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
    for step in ids.chunks(STEP) {
        let there = store.versions(step).await?;
        for id in step {
            match (there.get(id), held.get(id)) {
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
    for owners in watchers.held_owners().chunks(STEP) {
        let all = store.versions_of_owners(owners, recent_cutoff()).await?;
        let news = all.into_iter().filter(|(id, owner, version)| watchers.known_to_owner(owner, *id) < Some(*version));
        changed.extend(news.map(|(id, ..)| id));
    }
    for (id, known) in overdue {
        ahead.0.remove(&id);
        if store.raise_version(id, known).await? {
            tracing::warn!(session_id = %id, "watchers of session {id} knew more than the database has; they are set right");
            changed.push(id);
        }
    }
    changed.sort_unstable();
    changed.dedup();
    for step in changed.chunks(STEP) {
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
        model::{EngineId, Media, State, Status, Timestamp, Title},
        server::{
            owner::Owner,
            store::NewSession,
            stream::{Hub, StreamLimits},
        },
    };
    use uuid::Uuid;

    #[tokio::test]
    async fn watchers_that_know_too_much_are_set_right() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
        let (id, owner) = (SessionId(Uuid::from_u128(7)), Owner::from_store("me".to_owned()));
        let new = NewSession {
            id,
            owner: owner.clone(),
            title: Title::new("A talk").unwrap(),
            engine: EngineId::External,
            language: None,
            media: Media::default(),
            duration_total: None,
            lease_until: None,
            address: None,
        };
        store.insert(&new, Timestamp(0)).await.unwrap();
        let hub = Hub::new(StreamLimits::default());
        hub.hold(id);
        // What the store doesn't have, as after it was restored from a copy.
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
