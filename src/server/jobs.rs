//! Works on queued sessions: claim, decode, transcribe, save; renews leases and takes back what others lost.
//! Knows nothing of who watches: everything it learns goes into the store and onto the bus.

mod job;
mod spool;

use super::{
    bus::Signal,
    space::Reservation,
    state::AppState,
    store::{self, Claim},
};
use crate::model::{SessionId, Timestamp};
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

/// How often the queue and the leases are looked at without being told to.
const LOOK: Duration = Duration::from_secs(2);

/// How often at most those who wait are told their position and arrival time. Each upload may change those of everybody.
const REFRESH: Duration = Duration::from_secs(1);

/// How long sessions have to be handed back when the node stops; longer only if the database is away.
const GRACE: Duration = Duration::from_secs(7);

/// How long a worker whose disk is full takes nothing up: trying on would go round the queue in no time.
const NO_ROOM: Duration = Duration::from_secs(10);

/// How fast this node has been lately, in audio seconds per second, for the arrival times of queued sessions.
#[derive(Debug, Default)]
pub(super) struct NodeSpeed(Mutex<Option<f64>>);

impl NodeSpeed {
    fn get(&self) -> Option<f64> {
        self.0.lock().map(|speed| *speed).unwrap_or_default()
    }

    fn set(&self, speed: f64) {
        if let Ok(mut known) = self.0.lock() {
            *known = Some(speed);
        }
    }
}

/// The sessions that this node works on. It knows that by itself, so no clock can make it take them for lost.
#[derive(Debug, Default)]
pub struct Running(Mutex<HashSet<SessionId>>);

impl Running {
    fn with<T>(&self, work: impl FnOnce(&mut HashSet<SessionId>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn list(&self) -> Vec<SessionId> {
        self.with(|running| running.iter().copied().collect())
    }
}

/// Takes back every session that an earlier run of this node left in the middle, and removes what it received that never
/// became a session. Called before the node serves: it alone has the data folder, so nobody else works on them.
///
/// # Errors
/// If the store fails.
pub async fn recover(state: &AppState) -> Result<(), sqlx::Error> {
    // Another node may be at work on what is in a shared database; its leases tell.
    let alone = !state.store.is_shared();
    let (store, now) = (&state.store, Timestamp::now());
    let reaped = || store.reap(now, alone, &[], state.jobs.max_attempts);
    // On a full disk it is deleting sessions that makes room, and nobody can do that before this is done.
    let events = state.disk.make_room(store, store::is_full, reaped).await?;
    for event in &events {
        if let Some(status) = event.new_status() {
            let id = status.session_id;
            tracing::warn!(session_id = %id, status = %status.state, "session {id} was cut off by the last stop");
        }
    }
    state.bus.publish_all(&events);
    if let Err(error) = state.sessions().take_back_cut_off() {
        tracing::warn!(%error, "uploads that were cut off could not be looked for");
    }
    Ok(())
}

/// Works until `stop`, then hands running sessions back and returns.
pub async fn run(state: AppState, stop: CancellationToken) {
    if state.jobs.workers == 0 {
        // Somebody must notice when the last worker is gone.
        let mut looks = time::interval(LOOK);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            reap(&state).await;
        }
        return;
    }
    let worker = format!("{}-{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id());
    let speed = std::sync::Arc::new(NodeSpeed::default());
    let mut signals = state.bus.signals();
    let mut looks = time::interval(LOOK);
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut running: JoinSet<job::Left> = JoinSet::new();
    let mut rests_until = time::Instant::now();
    let (mut refresh, mut refresh_from) = (false, time::Instant::now());
    while !stop.is_cancelled() {
        let rests = time::Instant::now() < rests_until;
        match take(&state, &worker, running.len(), rests).await {
            Ok(Some((claim, room))) => {
                let id = claim.session.id;
                state.running.with(|running| running.insert(id));
                refresh = true;
                let (state, stop, speed) = (state.clone(), stop.clone(), speed.clone());
                running.spawn(async move {
                    let _ended = forget_at_end(state.clone(), id);
                    job::run(state, claim, room, stop, speed).await
                });
                continue;
            }
            Ok(None) => {}
            Err(error) => trouble(&error, "the queue could not be read; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = looks.tick() => {
                reap(&state).await;
                if running.len() < state.jobs.workers as usize {
                    tell_who_waits_for_room(&state).await;
                }
            }
            Some(left) = running.join_next(), if !running.is_empty() => if let Ok(job::Left::NoRoom) = left {
                rests_until = time::Instant::now() + NO_ROOM;
            },
            signal = signals.recv() => match signal {
                // Behind running ones it should know when it will be done.
                Ok(Signal::Queued) => refresh |= running.len() >= state.jobs.workers as usize && speed.get().is_some(),
                // It may have stood in the queue, and those behind it move up.
                Ok(Signal::Stop(_)) => refresh = true,
                Err(_) => {}
            },
            () = time::sleep_until(refresh_from), if refresh => {
                refresh_queue(&state, &speed).await;
                (refresh, refresh_from) = (false, time::Instant::now() + REFRESH);
            }
        }
    }
    let handed_back = async { while running.join_next().await.is_some() {} };
    if time::timeout(GRACE, handed_back).await.is_err() {
        tracing::warn!(grace_secs = GRACE.as_secs(), "some sessions could not be handed back; their leases run out");
    }
}

/// Claims the next session whose recording has room here, and promises it that room.
async fn take(
    state: &AppState,
    worker: &str,
    running: usize,
    rests: bool,
) -> Result<Option<(Claim, Option<Reservation>)>, sqlx::Error> {
    if rests || running >= state.jobs.workers as usize {
        return Ok(None);
    }
    let now = Timestamp::now();
    let taken = state.store.claim(worker, now, lease(state, now), room(state)).await?;
    Ok(taken.map(|(claim, event)| {
        state.bus.publish(&event);
        // Should an upload have been quicker, the job finds out and hands the session back.
        let room = state.media.reserve_copy(claim.session.media.bytes).ok();
        (claim, room)
    }))
}

/// The largest recording that could be taken up now, in bytes. Where the system doesn't say, it is tried.
fn room(state: &AppState) -> u64 {
    state.media.room_for_copy().unwrap_or(u64::MAX)
}

/// Lets the pages of sessions that this node has no room for say so; others are taken up meanwhile.
async fn tell_who_waits_for_room(state: &AppState) {
    match state.store.note_room(room(state), Timestamp::now()).await {
        Ok(events) => events.iter().for_each(|event| state.bus.tell_watchers(event)),
        Err(error) => trouble(&error, "what waits for room could not be noted; trying again"),
    }
}

/// Forgets a session of this node when its attempt is over, also by a panic.
fn forget_at_end(state: AppState, id: SessionId) -> impl Drop {
    struct Guard(AppState, SessionId);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.running.with(|running| running.remove(&self.1));
        }
    }
    Guard(state, id)
}

/// Logs what failed and is tried again. Of a full disk the log is told once, by `disk`, and not by all who meet it.
fn trouble(error: &sqlx::Error, what: &str) {
    if store::is_full(error) {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::error!(%error, "{what}");
    }
}

fn lease(state: &AppState, now: Timestamp) -> Timestamp {
    now.plus_seconds(f64::from(state.jobs.lease_secs))
}

async fn reap(state: &AppState) {
    let running = state.running.list();
    match state.store.reap(Timestamp::now(), false, &running, state.jobs.max_attempts).await {
        Ok(events) => {
            for status in events.iter().filter_map(|e| e.new_status()) {
                let id = status.session_id;
                tracing::warn!(session_id = %id, status = %status.state, "session {id} lost its worker");
            }
            state.bus.publish_all(&events);
        }
        Err(error) => trouble(&error, "leases could not be checked; trying again"),
    }
}

/// Fails the sessions whose workers, outside Hark, went silent; stores what the others reported. Runs until `stop`.
pub async fn look_after_outside(state: AppState, stop: CancellationToken) {
    let silence = state.outside_config.worker_silence_secs;
    // As often as the store's lag and the leases need it, no more: there may be thousands of sessions to go through.
    let mut looks = time::interval(Duration::from_secs(u64::from(silence / 10).clamp(1, 10)));
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let on = stop.run_until_cancelled(looks.tick()).await.is_some();
        if let Err(error) = state.outside.store_steps(&state.store, silence, !on).await {
            trouble(&error, "what outside workers reported could not be stored; trying again");
        }
        if !on {
            return;
        }
        match state.store.reap_outside(Timestamp::now()).await {
            Ok(events) => {
                for status in events.iter().filter_map(|e| e.new_status()) {
                    let id = status.session_id;
                    tracing::warn!(session_id = %id, "the outside worker of session {id} went silent");
                }
                state.bus.publish_all(&events);
            }
            Err(error) => trouble(&error, "outside workers could not be checked; trying again"),
        }
    }
}

async fn refresh_queue(state: &AppState, speed: &NodeSpeed) {
    match state.store.refresh_queue(Timestamp::now(), speed.get(), state.jobs.workers).await {
        // Not `Bus::publish`, which would call every queued session newly queued.
        Ok(events) => events.iter().for_each(|event| state.bus.tell_watchers(event)),
        Err(error) => trouble(&error, "the queue's positions could not be written; trying again"),
    }
}
