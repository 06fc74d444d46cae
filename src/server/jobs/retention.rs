//! Deletes sessions that ended long enough ago, with their recordings and texts. Any node may do it, but only one at a
//! time. Run by `server`.

use crate::{
    model::Timestamp,
    server::{
        event::Event,
        media::CopyName,
        retention::DAY_SECS,
        sessions::Sessions,
        store::{self, EndedSession},
    },
};
use std::{fmt::Display, sync::Arc, time::Duration};
use tokio::time;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The name of the chore in the store.
const CHORE: &str = "retention";
/// Sessions read at once.
const BATCH: u32 = 50;
/// A session that is due can't be retried any more. It is deleted this many seconds later, so that a retry that was
/// accepted just before is stored by then, by any node's clock.
const MARGIN_SECS: f64 = 5.0;
/// Seconds for which a node takes the chore with each batch: longer than a slow storage needs for one batch.
const CHORE_SECS: f64 = 120.0;
/// The interval of checks in seconds is a part of the time that sessions are kept, within these bounds.
const MIN_INTERVAL_SECS: f64 = 1.0;
const MAX_INTERVAL_SECS: f64 = 600.0;

/// Deletes sessions that are due, until `stop`.
pub async fn run(sessions: Arc<Sessions>, stop: CancellationToken) {
    let Some(days) = sessions.kept.keep_days else { return };
    let keep_secs = days * DAY_SECS;
    let interval = (keep_secs / 20.0).clamp(MIN_INTERVAL_SECS, MAX_INTERVAL_SECS);
    let node = Uuid::new_v4().to_string();
    let mut poll = time::interval(Duration::from_secs_f64(interval));
    poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(poll.tick()).await.is_some() {
        let swept = stop.run_until_cancelled(sweep(&sessions, &node, keep_secs)).await;
        if let Some(Err(error)) = swept
            && !store::is_away(&error)
        {
            tracing::warn!(%error, "sessions that are due could not be deleted; trying again");
        }
        // So that another node may do the next sweep; also when this one was stopped or failed.
        let _ = sessions.store.release_chore(CHORE, &node).await;
    }
}

/// The result of a sweep.
#[derive(Default)]
struct Swept {
    sessions: usize,
    bytes: u64,
    failed: usize,
}

async fn sweep(sessions: &Sessions, node: &str, keep_secs: f64) -> Result<(), sqlx::Error> {
    let before = Timestamp::now().plus_seconds(-keep_secs - MARGIN_SECS);
    let mut swept = Swept::default();
    let mut last: Option<EndedSession> = None;
    let ended = loop {
        let now = sessions.store.now().await?;
        if !sessions.store.take_chore(CHORE, node, now, now.plus_seconds(CHORE_SECS)).await? {
            break Ok(());
        }
        let batch = match sessions.store.ended_before(before, last.as_ref(), BATCH).await {
            Ok(batch) => batch,
            Err(error) => break Err(error),
        };
        for ended in &batch {
            match delete(sessions, ended).await {
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
            break Ok(());
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

async fn delete(sessions: &Sessions, ended: &EndedSession) -> Result<(), Box<dyn Display + Send + Sync>> {
    let EndedSession { id, owner, track, tracks, .. } = ended;
    let copies = CopyName::all(*id, *track, *tracks);
    // The recording first, so that none is left behind without a session. If this fails, the next sweep tries again.
    sessions.media.remove(*id, &copies).await.map_err(|e| Box::new(e) as Box<dyn Display + Send + Sync>)?;
    let gone = sessions.store.delete(owner, *id).await.map_err(|e| Box::new(e) as Box<dyn Display + Send + Sync>)?;
    if gone {
        // A copy for browsers may have been stored since.
        sessions.media.remove_copies(&copies).await.map_err(|e| Box::new(e) as Box<dyn Display + Send + Sync>)?;
        sessions.bus.publish(&Event::deleted(owner.clone(), *id));
    }
    Ok(())
}
