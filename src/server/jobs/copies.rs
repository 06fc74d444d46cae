//! Removes copies for browsers that are old, or whose room is needed. Every node does it, because there is no harm in removing
//! one twice. Run by `server`.

use crate::{
    model::Timestamp,
    server::{retention::DAY_SECS, sessions::Sessions},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// How often the room on the disk is looked at, at the most; the copies are listed then if it is too little.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often the copies are listed in any case, and at the most: a part of the time that they are kept, within these bounds.
const MIN_INTERVAL_SECS: f64 = 1.0;
const MAX_INTERVAL_SECS: f64 = 3600.0;

/// Removes copies until `stop`.
pub async fn run(sessions: Arc<Sessions>, stop: CancellationToken) {
    let keep_secs = sessions.kept.keep_copies_days * DAY_SECS;
    let list = Duration::from_secs_f64((keep_secs / 20.0).clamp(MIN_INTERVAL_SECS, MAX_INTERVAL_SECS));
    let mut poll = time::interval(list.min(INTERVAL));
    poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut listed: Option<Instant> = None;
    while stop.run_until_cancelled(poll.tick()).await.is_some() {
        // If the system doesn't tell, the sweep says why.
        let lack_room = sessions.copies.lack_room().unwrap_or(true);
        if !lack_room && listed.is_some_and(|listed| listed.elapsed() < list) {
            continue;
        }
        let since = Timestamp::now().plus_seconds(-keep_secs);
        match stop.run_until_cancelled(sessions.copies.sweep(since)).await {
            Some(Err(error)) => tracing::warn!(%error, "old copies for browsers could not be removed; trying again"),
            Some(Ok(())) => {}
            None => return,
        }
        listed = Some(Instant::now());
    }
}
