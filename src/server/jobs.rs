//! Works on queued sessions: claim, decode, transcribe, save; renews leases and takes back what others lost.
//! Knows nothing of who watches: everything it learns goes into the store and onto the bus.

mod job;
mod retention;
mod spool;

pub use retention::run as delete_expired;

use super::{
    bus::Signal,
    config::JobConfig,
    outside::Outside,
    sessions::Sessions,
    space::Reservation,
    store::{self, Claim},
};
use crate::model::{SessionId, Timestamp};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
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

/// The workers of a node, and what they work on. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    sessions: Arc<Sessions>,
    config: Arc<JobConfig>,
    running: Arc<Running>,
}

impl Workers {
    /// Those that the settings ask for.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, config: JobConfig) -> Self {
        Self { sessions, config: Arc::new(config), running: Arc::default() }
    }
}

/// The sessions that this node works on. It knows that by itself, so no clock can make it take them for lost.
#[derive(Debug, Default)]
struct Running(Mutex<HashSet<SessionId>>);

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
pub async fn recover(workers: &Workers) -> Result<(), sqlx::Error> {
    // Another node may be at work on what is in a shared database; its leases tell.
    let alone = !workers.sessions.store.is_shared();
    let (store, now) = (&workers.sessions.store, Timestamp::now());
    let reaped = || store.reap(now, alone, &[], workers.config.max_attempts);
    // On a full disk it is deleting sessions that makes room, and nobody can do that before this is done.
    let events = workers.sessions.disk.make_room(store, store::is_full, reaped).await?;
    for event in &events {
        if let Some(status) = event.new_status() {
            let id = status.session_id;
            tracing::warn!(session_id = %id, status = %status.state, "session {id} was cut off by the last stop");
        }
    }
    workers.sessions.bus.publish_all(&events);
    if let Err(error) = workers.sessions.remove_interrupted_uploads() {
        tracing::warn!(%error, "uploads that were cut off could not be looked for");
    }
    Ok(())
}

/// Works until `stop`, then hands running sessions back and returns.
pub async fn run(workers: Workers, stop: CancellationToken) {
    if workers.config.workers == 0 {
        // Somebody must notice when the last worker is gone.
        let mut looks = time::interval(LOOK);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            reap(&workers).await;
        }
        return;
    }
    let worker = format!("{}-{}", rustix::system::uname().nodename().to_string_lossy(), std::process::id());
    let speed = Arc::new(NodeSpeed::default());
    let mut signals = workers.sessions.bus.signals();
    let mut looks = time::interval(LOOK);
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut running: JoinSet<job::Left> = JoinSet::new();
    let mut rests_until = time::Instant::now();
    let (mut refresh, mut refresh_from) = (false, time::Instant::now());
    while !stop.is_cancelled() {
        let rests = time::Instant::now() < rests_until;
        match take(&workers, &worker, running.len(), rests).await {
            Ok(Some((claim, room))) => {
                let id = claim.session.id;
                workers.running.with(|running| running.insert(id));
                refresh = true;
                let (workers, stop, speed) = (workers.clone(), stop.clone(), speed.clone());
                running.spawn(async move {
                    let _ended = forget_at_end(workers.clone(), id);
                    job::run(workers, claim, room, stop, speed).await
                });
                continue;
            }
            Ok(None) => {}
            Err(error) => trouble(&error, "the queue could not be read; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = looks.tick() => {
                reap(&workers).await;
                if running.len() < workers.config.workers as usize {
                    tell_who_waits_for_room(&workers).await;
                }
            }
            Some(left) = running.join_next(), if !running.is_empty() => if let Ok(job::Left::NoRoom) = left {
                rests_until = time::Instant::now() + NO_ROOM;
            },
            signal = signals.recv() => match signal {
                // Behind running ones it should know when it will be done.
                Ok(Signal::Queued) => refresh |= running.len() >= workers.config.workers as usize && speed.get().is_some(),
                // It may have stood in the queue, and those behind it move up.
                Ok(Signal::Stop(_)) => refresh = true,
                Err(_) => {}
            },
            () = time::sleep_until(refresh_from), if refresh => {
                refresh_queue(&workers, &speed).await;
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
    workers: &Workers,
    worker: &str,
    running: usize,
    rests: bool,
) -> Result<Option<(Claim, Option<Reservation>)>, sqlx::Error> {
    if rests || running >= workers.config.workers as usize {
        return Ok(None);
    }
    let now = Timestamp::now();
    let taken = workers.sessions.store.claim(worker, now, lease(&workers.config, now), room(workers)).await?;
    Ok(taken.map(|(claim, event)| {
        workers.sessions.bus.publish(&event);
        // Should an upload have been quicker, the job finds out and hands the session back.
        let room = workers.sessions.media.reserve_copy(claim.session.media.bytes).ok();
        (claim, room)
    }))
}

/// The largest recording that could be taken up now, in bytes. Where the system doesn't say, it is tried.
fn room(workers: &Workers) -> u64 {
    workers.sessions.media.room_for_copy().unwrap_or(u64::MAX)
}

/// Lets the pages of sessions that this node has no room for say so; others are taken up meanwhile.
async fn tell_who_waits_for_room(workers: &Workers) {
    match workers.sessions.store.note_room(room(workers), Timestamp::now()).await {
        Ok(events) => events.iter().for_each(|event| workers.sessions.bus.tell_watchers(event)),
        Err(error) => trouble(&error, "what waits for room could not be noted; trying again"),
    }
}

/// Forgets a session of this node when its attempt is over, also by a panic.
fn forget_at_end(workers: Workers, id: SessionId) -> impl Drop {
    struct Guard(Workers, SessionId);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.running.with(|running| running.remove(&self.1));
        }
    }
    Guard(workers, id)
}

/// Logs what failed and is tried again. Of a full disk the log is told once, by `disk`, and not by all who meet it.
fn trouble(error: &sqlx::Error, what: &str) {
    if store::is_full(error) {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::error!(%error, "{what}");
    }
}

fn lease(config: &JobConfig, now: Timestamp) -> Timestamp {
    now.plus_seconds(f64::from(config.lease_secs))
}

async fn reap(workers: &Workers) {
    let running = workers.running.list();
    match workers.sessions.store.reap(Timestamp::now(), false, &running, workers.config.max_attempts).await {
        Ok(events) => {
            for status in events.iter().filter_map(|e| e.new_status()) {
                let id = status.session_id;
                tracing::warn!(session_id = %id, status = %status.state, "session {id} lost its worker");
            }
            workers.sessions.bus.publish_all(&events);
        }
        Err(error) => trouble(&error, "leases could not be checked; trying again"),
    }
}

/// Fails the sessions whose workers, outside Hark, went silent; stores what the others reported. Runs until `stop`.
pub async fn look_after_outside(outside: Arc<Outside>, stop: CancellationToken) {
    let mut looks = time::interval(outside.poll_interval());
    looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let on = stop.run_until_cancelled(looks.tick()).await.is_some();
        if let Err(error) = outside.store_steps(!on).await {
            trouble(&error, "what outside workers reported could not be stored; trying again");
        }
        if !on {
            return;
        }
        if let Err(error) = outside.fail_silent().await {
            trouble(&error, "outside workers could not be checked; trying again");
        }
    }
}

async fn refresh_queue(workers: &Workers, speed: &NodeSpeed) {
    match workers.sessions.store.refresh_queue(Timestamp::now(), speed.get(), workers.config.workers).await {
        // Not `Bus::publish`, which would call every queued session newly queued.
        Ok(events) => events.iter().for_each(|event| workers.sessions.bus.tell_watchers(event)),
        Err(error) => trouble(&error, "the queue's positions could not be written; trying again"),
    }
}
