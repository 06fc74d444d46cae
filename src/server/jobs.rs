//! The workers: they claim queued sessions, have them decoded and transcribed, store the result, renew leases, and put
//! back the sessions of workers that are gone. They don't know who watches: whatever they learn goes into the store and
//! onto the bus.

mod copies;
mod engine_watch;
mod job;
mod order;
mod reaper;
mod retention;
mod spool;
mod waits;

pub use copies::run as remove_old_copies;
pub use retention::run as delete_expired;

use super::{
    bus::Signal,
    clock_watch::ClockWatch,
    config::JobConfig,
    load::LoadMeter,
    outside::Outside,
    registry::{self, Registry},
    sessions::Sessions,
    space::Reservation,
    store::{self, Claim, Store},
};
use crate::model::{Session, SessionId, Status, Timestamp, load::WorkerLoad};
use engine_watch::{Change, EngineWatch};
use reaper::Reaper;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use waits::Waits;

/// How often the queue and the leases are checked without a signal from the bus.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often positions and arrival times in the queue are updated at most. Each upload may change those of everybody.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the node waits, when it stops, for its sessions to be put back into the queue. They need it only if the
/// database can't be reached.
const GRACE_PERIOD: Duration = Duration::from_secs(7);

/// How long a worker claims nothing after it had to give a session back because of its surroundings: at first, and at
/// most. Without a pause it would claim and give back the whole queue in no time.
const MIN_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The latest measured speed of this node, in audio seconds per second, for the arrival times of queued sessions.
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

/// The workers of a node and the sessions that they work on. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    sessions: Arc<Sessions>,
    config: Arc<JobConfig>,
    running: Arc<Running>,
}

impl Workers {
    /// Creates the workers that the settings ask for.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, config: JobConfig) -> Self {
        Self { sessions, config: Arc::new(config), running: Arc::default() }
    }
}

/// The sessions that this node works on, with what is being done. It never puts these back into the queue, whatever a clock
/// says about their leases.
#[derive(Debug, Default)]
struct Running(Mutex<HashMap<SessionId, WorkerLoad>>);

impl Running {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<SessionId, WorkerLoad>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn list(&self) -> Vec<SessionId> {
        self.with(|running| running.keys().copied().collect())
    }

    /// What all workers do, beginning with the one that has done it for longest.
    fn work(&self) -> Vec<WorkerLoad> {
        let mut work: Vec<WorkerLoad> = self.with(|running| running.values().cloned().collect());
        work.sort_by_key(|work| (work.since, work.session));
        work
    }

    fn begin(&self, session: &Session) {
        let work = WorkerLoad {
            session: session.id,
            engine: session.engine,
            since: Timestamp::now(),
            stage: session.status.stage,
            progress: session.status.progress,
            speed: None,
        };
        self.with(|running| running.insert(session.id, work));
    }

    fn update(&self, status: &Status) {
        self.with(|running| {
            if let Some(work) = running.get_mut(&status.session_id) {
                (work.stage, work.progress, work.speed) = (status.stage, status.progress, status.processing_speed);
            }
        });
    }
}

/// Puts back into the queue every session on which an earlier run of this node was working, and removes uploads that
/// never became a session. Called before the node serves: it alone uses the data folder, so nobody else works on them.
///
/// # Errors
/// If the store fails.
pub async fn recover(workers: &Workers) -> Result<(), sqlx::Error> {
    let store = &workers.sessions.store;
    let mut events = Vec::new();
    // Other nodes may be working on sessions of a shared database. There only leases tell which sessions are lost, and
    // the reaper looks at them.
    if !store.is_shared() {
        let reaped = || store.reap(Timestamp::now(), true, &[], workers.config.max_attempts);
        // On a full disk only deleting sessions makes room, and people can't do that before the node has started.
        events = workers.sessions.disk.make_room(store, store::is_full, reaped).await?;
    }
    for event in &events {
        if let Some(status) = event.new_status() {
            let id = status.session_id;
            tracing::warn!(session_id = %id, status = %status.state, "session {id} was interrupted when Hark stopped");
        }
    }
    workers.sessions.bus.publish_all(&events);
    if let Err(error) = workers.sessions.remove_interrupted_uploads() {
        tracing::warn!(%error, "uploads that were cut off could not be looked for");
    }
    Ok(())
}

/// When a node may claim again after its surroundings failed: a full disk, or a storage that is away.
struct Pause {
    until: time::Instant,
    length: Duration,
}

impl Pause {
    fn new(now: time::Instant) -> Self {
        Self { until: now, length: MIN_PAUSE }
    }

    fn is_over(&self, now: time::Instant) -> bool {
        now >= self.until
    }

    /// Takes in how an attempt ended. Failures in a row make the pauses longer; an operator reads of the first.
    fn after(&mut self, end: &job::AttemptEnd, registry: &Registry, now: time::Instant) {
        match end {
            job::AttemptEnd::Ready => {
                self.length = MIN_PAUSE;
                if registry.set_problem(None).is_some() {
                    tracing::info!("this node works on sessions again");
                }
            }
            job::AttemptEnd::Unfit(problem) => {
                self.until = now + self.length;
                if registry.set_problem(Some(problem.clone())).is_none() {
                    tracing::warn!(
                        "{problem}; this node tries again in {} s, then less and less often",
                        self.length.as_secs()
                    );
                }
                self.length = (self.length * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// What every node looks after, with workers or without.
struct Upkeep {
    reaper: Reaper,
    waits: Waits,
}

impl Upkeep {
    fn new(workers: &Workers) -> Self {
        Self { reaper: Reaper::new(workers.config.lease_secs), waits: Waits::new() }
    }

    async fn check(&mut self, workers: &Workers) {
        self.reaper.check(workers).await;
        self.waits.check(workers).await;
    }
}

/// Tells the other nodes regularly what this one is and does, and the dashboard, until `stop`.
pub async fn announce(workers: Workers, clock: Arc<ClockWatch>, load: Arc<LoadMeter>, stop: CancellationToken) {
    let sessions = &workers.sessions;
    let mut watch = EngineWatch::default();
    let mut interval = time::interval(registry::HEARTBEAT);
    interval.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        let mut engines = registry::engines_of(&sessions.engines);
        // Without workers nobody uses them.
        if workers.config.workers > 0 {
            watch.check(&mut engines).iter().for_each(Change::log);
        }
        let work = workers.running.work();
        let running = u32::try_from(work.len()).unwrap_or(u32::MAX);
        let load = load.read(sessions, work);
        let problem = sessions.cluster.problem().or_else(|| sessions.registry.problem());
        let announced =
            sessions.registry.announce(&sessions.store, engines, running, problem, clock.offset(), load).await;
        if let Err(error) = announced {
            log_error(&error, "the other nodes could not be told that this one runs; trying again");
        }
    }
    sessions.registry.leave(&sessions.store).await;
}

/// Runs the workers until `stop`, then puts running sessions back into the queue and returns.
pub async fn run(workers: Workers, stop: CancellationToken) {
    let mut upkeep = Upkeep::new(&workers);
    if workers.config.workers == 0 {
        // In case the last worker is gone.
        let mut poll = time::interval(POLL_INTERVAL);
        while stop.run_until_cancelled(poll.tick()).await.is_some() {
            upkeep.check(&workers).await;
        }
        return;
    }
    let worker = format!("{}-{}", workers.sessions.registry.node_name(), std::process::id());
    let speed = Arc::new(NodeSpeed::default());
    let mut signals = workers.sessions.bus.signals();
    let mut poll = time::interval(POLL_INTERVAL);
    poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut running: JoinSet<job::AttemptEnd> = JoinSet::new();
    let mut pause = Pause::new(time::Instant::now());
    let (mut refresh, mut refresh_from) = (false, time::Instant::now());
    while !stop.is_cancelled() {
        match claim_next(&workers, &worker, running.len(), &pause).await {
            Ok(Some((claim, room))) => {
                let id = claim.session.id;
                workers.running.begin(&claim.session);
                refresh = true;
                let (workers, stop, speed) = (workers.clone(), stop.clone(), speed.clone());
                let attempt = async move {
                    let _ended = forget_at_end(workers.clone(), id);
                    job::run(workers, claim, room, stop, speed).await
                };
                // The lines of all nodes may stand in one log.
                running.spawn(attempt.instrument(tracing::info_span!("worker", name = %worker)));
                continue;
            }
            // Nothing is left to try, so nothing shows that the surroundings still fail.
            Ok(None) if running.is_empty() && pause.is_over(time::Instant::now()) => {
                drop(workers.sessions.registry.set_problem(None));
            }
            Ok(None) => {}
            Err(error) => log_error(&error, "the queue could not be read; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = poll.tick() => {
                upkeep.check(&workers).await;
                if running.len() < workers.config.workers as usize {
                    update_waiting_for_room(&workers).await;
                }
            }
            Some(end) = running.join_next(), if !running.is_empty() => if let Ok(end) = end {
                pause.after(&end, &workers.sessions.registry, time::Instant::now());
            },
            signal = signals.recv() => match signal {
                // While all workers are busy, a new session needs an arrival time.
                Ok(Signal::Queued) => refresh |= running.len() >= workers.config.workers as usize && speed.get().is_some(),
                // The session may have been queued, so those behind it move up.
                Ok(Signal::Stop(_)) => refresh = true,
                Err(_) => {}
            },
            () = time::sleep_until(refresh_from), if refresh => {
                refresh_queue(&workers, &speed).await;
                (refresh, refresh_from) = (false, time::Instant::now() + REFRESH_INTERVAL);
            }
        }
    }
    let handed_back = async { while running.join_next().await.is_some() {} };
    if time::timeout(GRACE_PERIOD, handed_back).await.is_err() {
        tracing::warn!(
            grace_secs = GRACE_PERIOD.as_secs(),
            "some sessions could not be put back into the queue; that happens when their leases run out"
        );
    }
}

/// Claims the next session that this node has an engine for that knows its language, and whose recording fits on its disk, and
/// reserves that room.
async fn claim_next(
    workers: &Workers,
    worker: &str,
    running: usize,
    pause: &Pause,
) -> Result<Option<(Claim, Option<Reservation>)>, sqlx::Error> {
    let full = running >= workers.config.workers as usize;
    if full || !pause.is_over(time::Instant::now()) || workers.sessions.cluster.problem().is_some() {
        return Ok(None);
    }
    let engines = registry::ready_engines(&workers.sessions.engines);
    let store = &workers.sessions.store;
    let lease = lease(store, &workers.config).await?;
    let claimed = store.claim(worker, Timestamp::now(), lease, room(workers), &engines).await?;
    Ok(claimed.map(|(claim, event)| {
        workers.sessions.bus.publish(&event);
        // An upload may have taken the room meanwhile. Then the job finds the disk full and puts the session back.
        let room = workers.sessions.media.reserve_copy(claim.session.media.bytes).ok();
        (claim, room)
    }))
}

/// Returns the size of the largest recording that could be claimed now, in bytes. If the system doesn't tell, any size
/// is tried.
fn room(workers: &Workers) -> u64 {
    workers.sessions.media.room_for_copy().unwrap_or(u64::MAX)
}

/// Makes the pages of sessions say so if this node has no room for their recordings. Other sessions are claimed
/// meanwhile.
async fn update_waiting_for_room(workers: &Workers) {
    match workers.sessions.store.update_needs_room(room(workers), Timestamp::now()).await {
        Ok(events) => events.iter().for_each(|event| workers.sessions.bus.tell_watchers(event)),
        Err(error) => log_error(&error, "the sessions that wait for disk space could not be updated; trying again"),
    }
}

/// Removes a session from those that this node works on when its attempt ends, also by a panic.
fn forget_at_end(workers: Workers, id: SessionId) -> impl Drop {
    struct Guard(Workers, SessionId);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.running.with(|running| running.remove(&self.1));
        }
    }
    Guard(workers, id)
}

/// Logs an error after which the work is tried again. A full disk is logged once, by `disk`, and a database that is away by
/// `store`, and not by everybody who runs into it.
fn log_error(error: &sqlx::Error, what: &str) {
    if store::is_full(error) || store::is_away(error) {
        tracing::debug!(%error, "{what}");
    } else {
        tracing::error!(%error, "{what}");
    }
}

/// When a lease that begins now runs out, by the database's clock.
async fn lease(store: &Store, config: &JobConfig) -> Result<Timestamp, sqlx::Error> {
    Ok(store.now().await?.plus_seconds(f64::from(config.lease_secs)))
}

/// Fails the sessions whose workers, outside Hark, went silent; stores what the others reported. Runs until `stop`.
pub async fn watch_outside_workers(outside: Arc<Outside>, stop: CancellationToken) {
    let mut poll = time::interval(outside.poll_interval());
    poll.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        let running = stop.run_until_cancelled(poll.tick()).await.is_some();
        if let Err(error) = outside.store_steps(!running).await {
            log_error(&error, "reports of outside workers could not be stored; trying again");
        }
        if !running {
            return;
        }
        if let Err(error) = outside.fail_silent().await {
            log_error(&error, "the leases of outside workers could not be checked; trying again");
        }
    }
}

async fn refresh_queue(workers: &Workers, speed: &NodeSpeed) {
    match workers.sessions.store.refresh_queue(Timestamp::now(), speed.get(), workers.config.workers).await {
        // Not `Bus::publish`, which would announce every queued session as newly queued.
        Ok(events) => events.iter().for_each(|event| workers.sessions.bus.tell_watchers(event)),
        Err(error) => log_error(&error, "the queue's positions could not be written; trying again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::registry::NodeIdentity;
    use job::AttemptEnd::{Ready, Unfit};

    #[test]
    fn pauses_grow_until_an_attempt_succeeds() {
        let identity = NodeIdentity { name: "node".to_owned(), serves: false, workers: 1, cookie_keys: Vec::new() };
        let registry = Registry::new(identity);
        let full = || Unfit("this node's disk is full".to_owned());
        let mut now = time::Instant::now();
        let mut pause = Pause::new(now);
        assert!(pause.is_over(now), "it begins at once");
        for secs in [10, 20, 40, 80, 160, 300, 300] {
            pause.after(&full(), &registry, now);
            assert_eq!(registry.problem().as_deref(), Some("this node's disk is full"));
            let end = now + Duration::from_secs(secs);
            assert!(!pause.is_over(end - Duration::from_millis(1)) && pause.is_over(end), "{secs} s");
            now = end;
        }
        // A success ends the problem, and the next failure is the first of a row again.
        pause.after(&Ready, &registry, now);
        assert_eq!(registry.problem(), None);
        assert!(pause.is_over(now));
        pause.after(&full(), &registry, now);
        assert!(!pause.is_over(now + MIN_PAUSE - Duration::from_millis(1)) && pause.is_over(now + MIN_PAUSE));
        // Another worker's success doesn't end a pause that has begun.
        pause.after(&Ready, &registry, now);
        assert!(!pause.is_over(now) && pause.is_over(now + MIN_PAUSE));
    }
}
