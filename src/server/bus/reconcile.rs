//! Compares what watchers were told with the store: what another node or an operator's command changed and nobody
//! announced here, or what got lost on the way. Seldom where all changes pass this node, often where they can't be heard.

use crate::{
    model::SessionId,
    server::{sessions::recently, store::Store, stream::Hub},
};
use std::time::Duration;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

/// How long a lost change stays unseen at most, in general.
const RARELY: Duration = Duration::from_secs(10);
/// The same while changes of other nodes can't be heard.
const OFTEN: Duration = Duration::from_secs(1);
/// Sessions compared in one statement, and owners whose sessions are.
const STEP: usize = 500;

/// How often to compare.
pub(super) enum Every {
    Rarely,
    Second,
    /// Rarely while this says that changes are heard, at once when they are again, and every second otherwise.
    UnlessConnected(watch::Receiver<bool>),
}

/// Compares until `stop`.
pub(super) async fn run(hub: &Hub, store: &Store, mut every: Every, stop: &CancellationToken) {
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
            if let Err(error) = compare(hub, store).await {
                tracing::warn!(%error, "what is watched could not be compared with the store; trying again");
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Tells the watchers what the store knows and they don't.
///
/// # Errors
/// If the database fails; some may have been told by then.
pub(super) async fn compare(hub: &Hub, store: &Store) -> Result<(), sqlx::Error> {
    let mut changed: Vec<SessionId> = Vec::new();
    let held = hub.held();
    let ids: Vec<SessionId> = held.keys().copied().collect();
    for step in ids.chunks(STEP) {
        let there = store.versions(step).await?;
        for id in step {
            match (there.get(id), held.get(id)) {
                (Some((version, segments)), Some((known, counted))) if version > known || segments > counted => {
                    changed.push(*id);
                }
                (None, _) => hub.forget(*id),
                _ => {}
            }
        }
    }
    for owners in hub.held_owners().chunks(STEP) {
        let all = store.versions_of_owners(owners, recently()).await?;
        let news = all.into_iter().filter(|(id, owner, version)| hub.known_to_owner(owner, *id) < Some(*version));
        changed.extend(news.map(|(id, ..)| id));
    }
    changed.sort_unstable();
    changed.dedup();
    for step in changed.chunks(STEP) {
        for (session, owner) in store.many(step).await? {
            hub.refresh(&owner, &session.status);
        }
    }
    Ok(())
}
