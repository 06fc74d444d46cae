//! Counts what pages report, how sessions end and what the node does, and keeps it in the database by hour, and for the last
//! hours by five minutes. So the figures of the dashboard outlast a restart, and those of all nodes can be added up.
//! Counted by `bus`, `jobs` and `http`; stored by `node`; read for the dashboard.

mod calculate;
pub mod counters;

use super::{
    config::FiguresConfig,
    retention::DAY_SECS,
    store::{self, FiguresRow, Store},
};
use crate::model::{
    Arm, Browser, ConnectionReport, Status, Timestamp,
    figures::{Figures, Prices, Range},
};
use counters::Counters;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The times by which is counted, in seconds.
const HOUR: i64 = 3600;
const FIVE_MINUTES: i64 = 300;
/// How often what was counted is stored: a crash loses no more.
const INTERVAL_SECS: i64 = 60;
/// How long counts by five minutes are kept, in seconds: those of the last hour and the hour before.
const KEEP_FIVE_MINUTES_SECS: f64 = 3.0 * 3600.0;
/// How many times may wait to be stored while the database is away: those of two days.
const MAX_UNSTORED: usize = 600;
/// How long a time is kept in memory after its end, in seconds. If the clock is set back, what is counted then is added to what
/// the database has, and doesn't replace it.
const KEEP_IN_MEMORY_SECS: i64 = 2 * HOUR;
/// How long storing may take when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Callers within this time get the same figures, because those of 90 days take a while.
const CACHE_TIME: Duration = Duration::from_secs(5);

/// What a node looks at every minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Streams that are open.
    pub streams: u64,
    /// The share of its processors that the node used since the last sample.
    pub cpu: Option<f64>,
    /// In bytes.
    pub memory: Option<u64>,
    /// What was counted of streams since the node started.
    pub totals: StreamTotals,
}

/// What was counted of streams since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamTotals {
    pub opened: u64,
    pub refused: u64,
    /// By reason.
    pub closed: Vec<(&'static str, u64)>,
    pub events: u64,
    /// As sent.
    pub bytes: u64,
}

impl StreamTotals {
    /// Streams that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        let closed = self.closed.iter().map(|(_, count)| count).sum();
        self.opened.saturating_sub(closed)
    }
}

/// What this run of the node counts. Cheap to clone.
#[derive(Clone)]
pub struct Hours(Arc<Inner>);

struct Inner {
    /// This run of the node.
    run: String,
    config: FiguresConfig,
    /// Polls, those of them without anything new, and the bytes of their bodies, since they were added to `counted`.
    polls: AtomicU64,
    polls_unchanged: AtomicU64,
    poll_bytes: AtomicU64,
    counted: Mutex<Counted>,
    /// Held while rows are stored, so that an older row never replaces a newer one.
    storing: tokio::sync::Mutex<()>,
    cache: tokio::sync::Mutex<Vec<(Instant, Arc<Figures>)>>,
}

struct Counted {
    /// What was counted since it was last added to `times`.
    pending: Counters,
    /// The times that are under way, those that ended lately, and those whose last count hasn't been stored.
    times: Vec<Time>,
    /// The totals of the last sample.
    totals: StreamTotals,
    /// When this run began.
    since: Timestamp,
}

/// What was counted in a time.
#[derive(Clone)]
struct Time {
    starts_at: Timestamp,
    seconds: i64,
    counters: Counters,
    /// Whether the database has it.
    is_stored: bool,
}

impl Time {
    fn is_over(&self, now: Timestamp) -> bool {
        now.0 > self.starts_at.0 + (self.seconds + KEEP_IN_MEMORY_SECS) * 1000
    }
}

impl fmt::Debug for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hours({})", self.0.run)
    }
}

impl Hours {
    /// Begins to count.
    #[must_use]
    pub fn new(config: FiguresConfig) -> Self {
        let counted = Counted {
            pending: Counters::default(),
            times: Vec::new(),
            totals: StreamTotals::default(),
            since: Timestamp::now(),
        };
        Self(Arc::new(Inner {
            run: Uuid::new_v4().to_string(),
            config,
            polls: AtomicU64::new(0),
            polls_unchanged: AtomicU64::new(0),
            poll_bytes: AtomicU64::new(0),
            counted: Mutex::new(counted),
            storing: tokio::sync::Mutex::default(),
            cache: tokio::sync::Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a page reported that is in this arm of the comparison.
    pub fn reported(&self, arm: Arm, browser: Browser, report: &ConnectionReport) {
        self.lock().pending.arm(arm).add(report, browser);
    }

    /// Counts bytes that were sent to pages of this arm, and that no report of theirs has taken.
    pub fn sent(&self, arm: Arm, bytes: u64) {
        self.lock().pending.arm(arm).add_bytes(bytes);
    }

    /// Counts a session that has reached a terminal state.
    pub fn session_ended(&self, status: &Status) {
        self.lock().pending.sessions.ended(status);
    }

    /// Counts seconds of audio that were transcribed in so many seconds of work.
    pub fn transcribed(&self, audio_secs: f64, work_secs: f64) {
        let sessions = &mut self.lock().pending.sessions;
        sessions.audio_secs += audio_secs;
        sessions.work_secs += work_secs;
    }

    /// Counts a poll. There may be thousands in a second, so it takes no lock.
    pub fn polled(&self, is_unchanged: bool) {
        self.0.polls.fetch_add(1, Relaxed);
        self.0.polls_unchanged.fetch_add(is_unchanged.into(), Relaxed);
    }

    /// Counts bytes of a poll's body, as sent.
    pub fn poll_sent(&self, bytes: u64) {
        self.0.poll_bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes in what the node looked at at a full minute.
    pub fn sampled(&self, sample: &Sample) {
        let counted = &mut *self.lock();
        let server = &mut counted.pending.server;
        server.minutes += 1;
        server.most_streams = server.most_streams.max(sample.streams);
        if let Some(cpu) = sample.cpu {
            server.cpu += cpu;
            server.cpu_minutes += 1;
        }
        server.most_memory = server.most_memory.max(sample.memory.unwrap_or_default());
        counted.add_totals(&sample.totals);
    }

    /// Stores what was counted until `now`. What can't be stored is kept for the next time.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn store(&self, store: &Store, now: Timestamp) -> Result<(), sqlx::Error> {
        let _storing = self.0.storing.lock().await;
        let unstored: Vec<Time> = {
            let counted = &mut *self.lock();
            let server = &mut counted.pending.server;
            server.polls += self.0.polls.swap(0, Relaxed);
            server.polls_unchanged += self.0.polls_unchanged.swap(0, Relaxed);
            server.poll_bytes += self.0.poll_bytes.swap(0, Relaxed);
            counted.settle(now);
            counted.times.iter().filter(|time| !time.is_stored).cloned().collect()
        };
        for Time { starts_at, seconds, counters, .. } in unstored {
            let json = serde_json::to_string(&counters).map_err(|e| sqlx::Error::Encode(e.into()))?;
            let row = FiguresRow { starts_at, seconds, node: self.0.run.clone(), counters: json };
            store.put_figures(&row).await?;
            let times = &mut self.lock().times;
            // Nothing was added meanwhile, because only this function adds, one call at a time.
            if let Some(time) = times.iter_mut().find(|time| (time.starts_at, time.seconds) == (starts_at, seconds)) {
                time.is_stored = true;
            }
        }
        self.lock().times.retain(|time| !(time.is_stored && time.is_over(now)));
        Ok(())
    }

    /// Takes a sample at every full minute and stores what was counted, until `stop`. Deletes what is older than
    /// `HARK_FIGURES_DAYS`. Call [`Hours::store_at_stop`] once everybody has counted.
    pub async fn run(&self, store: &Store, sample: impl Fn() -> Sample, stop: &CancellationToken) {
        let mut deleted_at = None;
        while stop.run_until_cancelled(time::sleep(until_minute(Timestamp::now()))).await.is_some() {
            self.sampled(&sample());
            let stored = async {
                let now = Timestamp::now();
                self.store(store, now).await?;
                let hour = now.0.div_euclid(HOUR * 1000);
                if deleted_at != Some(hour) {
                    self.delete_old(store, now).await?;
                    deleted_at = Some(hour);
                }
                Ok::<(), sqlx::Error>(())
            };
            if let Some(Err(error)) = stop.run_until_cancelled(stored).await {
                log_error(&error);
            }
        }
    }

    /// Deletes figures that are older than they are kept. Every node may do it.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn delete_old(&self, store: &Store, now: Timestamp) -> Result<(), sqlx::Error> {
        let before = now.plus_seconds(-self.0.config.figures_days * DAY_SECS);
        let hours = store.delete_figures(HOUR, before).await?;
        store.delete_figures(FIVE_MINUTES, now.plus_seconds(-KEEP_FIVE_MINUTES_SECS)).await?;
        if hours > 0 {
            tracing::debug!(hours, "figures older than HARK_FIGURES_DAYS were deleted");
        }
        Ok(())
    }

    /// Stores what was counted until the node stopped.
    pub async fn store_at_stop(&self, store: &Store, totals: &StreamTotals) {
        self.lock().add_totals(totals);
        match time::timeout(STOP_TIMEOUT, self.store(store, Timestamp::now())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log_error(&error),
            Err(_) => tracing::warn!("the last figures could not be stored in {} s", STOP_TIMEOUT.as_secs()),
        }
    }

    /// The figures of a range that ends now, of all nodes: of this one to this moment, of the others to their last full minute.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn figures(&self, store: &Store, range: Range) -> Result<Arc<Figures>, sqlx::Error> {
        // Held while they are calculated, so that of several callers one does it.
        let mut cache = self.0.cache.lock().await;
        cache.retain(|(at, _)| at.elapsed() < CACHE_TIME);
        if let Some((_, figures)) = cache.iter().find(|(_, figures)| figures.range == range) {
            return Ok(Arc::clone(figures));
        }
        let now = Timestamp::now();
        self.store(store, now).await?;
        let figures = Arc::new(self.calculate(store, range, now).await?);
        cache.push((Instant::now(), Arc::clone(&figures)));
        Ok(figures)
    }

    /// The figures of a range that ends at `now`, of what is stored.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn calculate(&self, store: &Store, range: Range, now: Timestamp) -> Result<Figures, sqlx::Error> {
        let seconds = if range == Range::Hour { FIVE_MINUTES } else { HOUR };
        let from = range.start(now).plus_seconds(-(range.seconds() as f64));
        let rows = store.figures(seconds, from).await?;
        let config = self.0.config.clone();
        let calculated = tokio::task::spawn_blocking(move || {
            let rows: Vec<(Timestamp, Counters)> = rows.iter().filter_map(read).collect();
            let rows = rows.iter().map(|(at, counters)| (*at, counters));
            calculate::figures(range, now, rows, config.prices(), config.figures_days)
        });
        calculated.await.map_err(|_| sqlx::Error::WorkerCrashed)
    }
}

impl Counted {
    /// Adds what was counted of streams since the last totals.
    fn add_totals(&mut self, totals: &StreamTotals) {
        let (server, last) = (&mut self.pending.server, &self.totals);
        server.streams_opened += totals.opened.saturating_sub(last.opened);
        server.streams_refused += totals.refused.saturating_sub(last.refused);
        server.events += totals.events.saturating_sub(last.events);
        server.stream_bytes += totals.bytes.saturating_sub(last.bytes);
        for (reason, count) in &totals.closed {
            let before = last.closed.iter().find(|(known, _)| known == reason).map_or(0, |(_, count)| *count);
            if *count > before {
                *server.streams_closed.entry((*reason).to_owned()).or_default() += count - before;
            }
        }
        self.totals = totals.clone();
    }

    /// Adds what is pending to the hour and the five minutes in which `now` lies. Called at each full minute, so at most a
    /// moment of it belongs into another.
    fn settle(&mut self, now: Timestamp) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        // A full minute ends the time before it.
        let counted_at = Timestamp(now.0 - 1000);
        for seconds in [HOUR, FIVE_MINUTES] {
            let starts_at = Timestamp(counted_at.0.div_euclid(seconds * 1000) * seconds * 1000);
            let position = self.times.iter().position(|time| (time.starts_at, time.seconds) == (starts_at, seconds));
            let position = position.unwrap_or_else(|| {
                let is_within = self.since > starts_at && self.since.0 < starts_at.0 + seconds * 1000;
                let since = is_within.then_some(self.since);
                let counters = Counters { since, ..Counters::default() };
                self.times.push(Time { starts_at, seconds, counters, is_stored: false });
                self.times.len() - 1
            });
            let time = &mut self.times[position];
            time.counters.merge(&pending);
            time.is_stored = false;
        }
        let excess = self.times.len().saturating_sub(MAX_UNSTORED);
        self.times.drain(..excess);
    }
}

/// The counters of a row. A row that can't be read is left out: a node of another version may have written it.
fn read(row: &FiguresRow) -> Option<(Timestamp, Counters)> {
    match serde_json::from_str(&row.counters) {
        Ok(counters) => Some((row.starts_at, counters)),
        Err(error) => {
            tracing::debug!(%error, at = %row.starts_at, "figures of another version can't be read");
            None
        }
    }
}

/// How long it is to the next full minute.
fn until_minute(now: Timestamp) -> Duration {
    let minute = INTERVAL_SECS * 1000;
    Duration::from_millis(u64::try_from(minute - now.0.rem_euclid(minute)).unwrap_or_default())
}

fn log_error(error: &sqlx::Error) {
    // The log has these already.
    if store::is_away(error) || store::is_full(error) {
        tracing::debug!(%error, "figures could not be stored; trying again");
    } else {
        tracing::warn!(%error, "figures could not be stored; trying again");
    }
}

impl FiguresConfig {
    fn prices(&self) -> Prices {
        Prices { per_million_requests: self.price_per_million_requests, per_gb: self.price_per_gb }
    }
}
