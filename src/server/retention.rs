//! Deletes sessions that ended long enough ago, with their recordings and texts. Any node may do it, one at a time does.
//! Run by `server`; pages and `sessions` ask what is due.

use super::{config::KeepConfig, event::Event, state::AppState, store::Ended};
use crate::model::{
    Timestamp, bytes, duration,
    text::{count, decimal},
};
use std::{fmt::Display, time::Duration};
use tokio::time;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DAY_SECS: f64 = 86_400.0;
/// The name of the chore in the store.
const CHORE: &str = "retention";
/// How many sessions are read at once.
const BATCH: u32 = 50;
/// What is due can't be queued again. It is deleted this many seconds later, when whoever saw it a moment before it was
/// due has done so, by any node's clock.
const MARGIN_SECS: f64 = 5.0;
/// For how many seconds a node has the chore after each batch: longer than a storage that is slow takes for one.
const HELD_SECS: f64 = 120.0;
/// How often to look, in seconds: a part of what is kept, within these.
const SOONEST_SECS: f64 = 1.0;
const LATEST_SECS: f64 = 600.0;

/// Whether a session that ended then is to be deleted.
#[must_use]
pub fn is_due(keep_days: Option<f64>, finished_at: Option<Timestamp>, now: Timestamp) -> bool {
    keep_days.zip(finished_at).is_some_and(|(days, at)| now.seconds_since(at) > days * DAY_SECS)
}

/// How long and how much is kept, for people; nothing if neither is limited.
#[must_use]
pub fn told(kept: &KeepConfig) -> Option<String> {
    let days = kept.keep_days.map(|days| {
        let long = match days {
            days if days >= 1.0 && days.fract() == 0.0 => count(days as usize, "day"),
            days if days >= 1.0 => format!("{} days", decimal(days, 1)),
            days => duration(days * DAY_SECS),
        };
        format!("Sessions are deleted with their recordings {long} after they have ended.")
    });
    let most = kept.max_bytes_per_owner.map(|most| format!("You can keep recordings of up to {} here.", bytes(most)));
    let told: Vec<String> = days.into_iter().chain(most).collect();
    (!told.is_empty()).then(|| told.join(" "))
}

/// Deletes what is due until `stop`.
pub async fn run(state: AppState, stop: CancellationToken) {
    let Some(days) = state.kept.keep_days else { return };
    let keep_secs = days * DAY_SECS;
    let every = (keep_secs / 20.0).clamp(SOONEST_SECS, LATEST_SECS);
    let node = Uuid::new_v4().to_string();
    let mut looks = time::interval(Duration::from_secs_f64(every));
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let swept = stop.run_until_cancelled(sweep(&state, &node, keep_secs)).await;
        if let Some(Err(error)) = swept {
            tracing::warn!(%error, "sessions that are due could not be deleted; trying again");
        }
    }
}

/// What a sweep has done.
#[derive(Default)]
struct Swept {
    sessions: usize,
    bytes: u64,
    failed: usize,
}

async fn sweep(state: &AppState, node: &str, keep_secs: f64) -> Result<(), sqlx::Error> {
    let before = Timestamp::now().plus_seconds(-keep_secs - MARGIN_SECS);
    let mut swept = Swept::default();
    let mut last: Option<Ended> = None;
    let ended = loop {
        let now = Timestamp::now();
        if !state.store.take_chore(CHORE, node, now, now.plus_seconds(HELD_SECS)).await? {
            break Ok(());
        }
        let batch = match state.store.ended(before, last.as_ref(), BATCH).await {
            Ok(batch) => batch,
            Err(error) => break Err(error),
        };
        for ended in &batch {
            match delete(state, ended).await {
                Ok(()) => {
                    swept.sessions += 1;
                    swept.bytes += ended.bytes;
                }
                Err(error) => {
                    swept.failed += 1;
                    let id = ended.id;
                    tracing::warn!(session_id = %id, %error, "session {id} is due and could not be deleted");
                }
            }
        }
        if batch.len() < BATCH as usize {
            // Lets it go: the next to look may be another node.
            break state.store.take_chore(CHORE, node, now, now).await.map(drop);
        }
        last = batch.into_iter().last();
    };
    if swept.sessions + swept.failed > 0 {
        let Swept { sessions, bytes, failed } = swept;
        tracing::info!(sessions, bytes, failed, keep_secs, "sessions that ended long enough ago were deleted");
        metrics::counter!("hark_sessions_expired_total").increment(sessions as u64);
    }
    ended
}

async fn delete(state: &AppState, ended: &Ended) -> Result<(), Box<dyn Display + Send + Sync>> {
    let Ended { id, owner, .. } = ended;
    // First, so that no recording stays behind a session that is gone: if this fails, the next sweep tries again.
    state.media.remove(*id).await.map_err(|e| Box::new(e) as Box<dyn Display + Send + Sync>)?;
    let gone = state.store.delete(owner, *id).await.map_err(|e| Box::new(e) as Box<dyn Display + Send + Sync>)?;
    if gone {
        state.bus.publish(&Event::deleted(owner.clone(), *id));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_long_enough_ago_is_due() {
        let now = Timestamp(10 * 86_400_000);
        let ended = |days_ago: i64| Some(Timestamp(now.0 - days_ago * 86_400_000));
        assert!(is_due(Some(2.0), ended(3), now));
        assert!(!is_due(Some(2.0), ended(2), now));
        assert!(!is_due(Some(2.0), None, now), "it hasn't ended");
        assert!(!is_due(None, ended(10), now), "everything is kept");
    }

    #[test]
    fn people_are_told_what_is_kept() {
        let told = |keep_days, max_bytes_per_owner| told(&KeepConfig { keep_days, max_bytes_per_owner });
        assert_eq!(told(None, None), None);
        assert_eq!(
            told(Some(30.0), Some(10_000_000_000)).unwrap(),
            "Sessions are deleted with their recordings 30 days after they have ended. You can keep recordings of up \
             to 10.0 GB here."
        );
        assert!(told(Some(1.0), None).unwrap().contains("recordings 1 day after"));
        assert!(told(Some(0.5), None).unwrap().contains("recordings 12 h after"));
        assert!(told(Some(1.5), None).unwrap().contains("recordings 1.5 days after"));
    }
}
