//! The counts that the dashboard shows live: sessions as the database has them, and what all nodes told with their last
//! heartbeat. Called by `http`.

use super::{
    sessions::Sessions,
    store::{STALLED_SECS, Store},
};
use crate::model::{
    State, Timestamp,
    load::{NodeInfo, Overview},
};

/// Reads the counts, and the nodes that they are of.
///
/// # Errors
/// If the database fails.
pub async fn read(sessions: &Sessions) -> Result<(Overview, Vec<NodeInfo>), sqlx::Error> {
    let store = &sessions.store;
    let nodes = sessions.registry.nodes(store).await?;
    let overview = of_sessions(store, store.now().await?).await?;
    Ok((with_nodes(overview, &nodes), nodes))
}

async fn of_sessions(store: &Store, now: Timestamp) -> Result<Overview, sqlx::Error> {
    let count = |counts: &[(State, u64)], state| counts.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
    let counts = store.counts().await?;
    let health = store.health(now, STALLED_SECS).await?;
    let midnight = Timestamp(now.0.div_euclid(86_400_000) * 86_400_000);
    let ended = store.ended_since(midnight).await?;
    Ok(Overview {
        at: now,
        queued: count(&counts, State::Queued),
        oldest_queued_secs: health.oldest_queued.map(|since| now.seconds_since(since).max(0.0)),
        waiting_for_worker: health.waiting,
        processing: count(&counts, State::Processing),
        stalled: health.stalled,
        long_running: health.long_running,
        completed_today: count(&ended, State::Completed),
        failed_today: count(&ended, State::Failed),
        cancelled_today: count(&ended, State::Cancelled),
        ..Overview::default()
    })
}

/// Adds up what the running nodes told.
fn with_nodes(mut overview: Overview, nodes: &[NodeInfo]) -> Overview {
    for node in nodes.iter().filter(|node| node.is_live) {
        overview.nodes += 1;
        overview.nodes_with_problem += u32::from(node.problem.is_some());
        overview.workers += node.workers;
        if let Some(load) = &node.load {
            overview.streams += load.streams;
            overview.events_per_sec += load.events_per_sec;
            overview.uploads += u64::from(load.uploads);
        }
    }
    overview
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load::NodeLoad;

    #[test]
    fn only_running_nodes_count() {
        let node = |is_live, problem: Option<&str>, streams| NodeInfo {
            name: "node".to_owned(),
            role: "serve".to_owned(),
            version: "1".to_owned(),
            is_live,
            workers: 2,
            running: 0,
            engines: Vec::new(),
            clock_ahead_ms: None,
            problem: problem.map(str::to_owned),
            started_at: Timestamp(0),
            heartbeat_at: Timestamp(0),
            load: Some(NodeLoad { streams, events_per_sec: 1.5, uploads: 1, ..NodeLoad::default() }),
        };
        let older = NodeInfo { load: None, ..node(true, None, 0) };
        let nodes = [node(true, None, 10), node(true, Some("disk"), 5), node(false, None, 100), older];
        let overview = with_nodes(Overview::default(), &nodes);
        assert_eq!((overview.nodes, overview.nodes_with_problem, overview.workers), (3, 1, 6));
        assert_eq!((overview.streams, overview.events_per_sec, overview.uploads), (15, 3.0, 2));
    }
}
