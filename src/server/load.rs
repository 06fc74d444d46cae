//! Measures what this node does now: its streams, processor time, memory, descriptors, uploads and workers. Read
//! at each heartbeat, which tells the other nodes, and at each full minute, for the figures. Called by `jobs` and `node`.

use super::{
    hours::{Sample, StreamTotals},
    sessions::Sessions,
    stream::Hub,
    telemetry::machine,
    uploads::UploadPermits,
};
use crate::model::load::{NodeLoad, WorkerLoad};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};
use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Measures the load of this node.
pub struct LoadMeter {
    hub: Arc<Hub>,
    uploads: Arc<UploadPermits>,
    max_streams: u64,
    /// What was read at the last heartbeat, and at the last full minute.
    at_heartbeat: Mutex<Reading>,
    at_minute: Mutex<Reading>,
}

/// Counters that grow, at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    cpu: Duration,
    events: u64,
}

impl Reading {
    fn now(events: u64) -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::new(
            u64::try_from(cpu.tv_sec).unwrap_or_default(),
            u32::try_from(cpu.tv_nsec).unwrap_or_default(),
        );
        Self { at: Instant::now(), cpu, events }
    }

    /// The share of the processors that was used since `last`, and the events in a second. None within no time.
    fn since(&self, last: &Self, cpus: u32) -> Option<(f64, f64)> {
        let secs = self.at.duration_since(last.at).as_secs_f64();
        let cpu = self.cpu.saturating_sub(last.cpu).as_secs_f64() / secs / f64::from(cpus);
        let events = self.events.saturating_sub(last.events) as f64 / secs;
        (secs > 0.0).then_some((cpu, events))
    }
}

/// Reads again what was read before as `last`, and returns the share of the processors and the events in a second since then.
fn step(last: &Mutex<Reading>, events: u64) -> Option<(f64, f64)> {
    let now = Reading::now(events);
    let last = std::mem::replace(&mut *last.lock().unwrap_or_else(PoisonError::into_inner), now);
    now.since(&last, cpus())
}

impl LoadMeter {
    /// A meter of a node that may have so many streams.
    #[must_use]
    pub fn new(hub: Arc<Hub>, uploads: Arc<UploadPermits>, max_streams: u32) -> Self {
        let now = Reading::now(0);
        Self {
            hub,
            uploads,
            max_streams: max_streams.into(),
            at_heartbeat: Mutex::new(now),
            at_minute: Mutex::new(now),
        }
    }

    /// The load since the last heartbeat. `work`: what the workers do.
    pub fn read(&self, sessions: &Sessions, work: Vec<WorkerLoad>) -> NodeLoad {
        let totals = self.totals();
        let rates = step(&self.at_heartbeat, totals.events);
        NodeLoad {
            streams: totals.open(),
            max_streams: self.max_streams,
            events_per_sec: rates.map_or(0.0, |(_, events)| events),
            cpu: rates.map(|(cpu, _)| cpu),
            cpus: cpus(),
            memory: memory(),
            memory_limit: Some(machine::memory_limit()),
            files: files(),
            max_files: getrlimit(Resource::Nofile).current,
            uploads: self.uploads.taken(),
            work,
            bus: sessions.bus.is_connected(),
            database_ms: None,
            disk_free: sessions.media.free_bytes().ok(),
        }
    }

    /// What the figures need, since the last full minute.
    pub fn sample(&self) -> Sample {
        let totals = self.totals();
        let rates = step(&self.at_minute, totals.events);
        Sample { streams: totals.open(), cpu: rates.map(|(cpu, _)| cpu), memory: memory(), totals }
    }

    /// What was counted of streams since the node started.
    pub fn totals(&self) -> StreamTotals {
        self.hub.totals()
    }
}

fn cpus() -> u32 {
    u32::try_from(machine::processors()).unwrap_or(u32::MAX)
}

/// The resident memory of this process in bytes, if the system tells.
fn memory() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// How many descriptors this process has open, if the system tells.
fn files() -> Option<u64> {
    // Newer kernels tell the number as the folder's size; counting ten thousand takes milliseconds.
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told);
    }
    // One of them is the folder itself.
    Some((fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rates_are_those_of_the_time_between_two_readings() {
        let last = Reading { at: Instant::now(), cpu: Duration::from_secs(7), events: 100 };
        let now = Reading { at: last.at + Duration::from_secs(5), cpu: last.cpu + Duration::from_secs(4), events: 150 };
        assert_eq!(now.since(&last, 2), Some((0.4, 10.0)));
        assert_eq!(last.since(&last, 2), None);
    }

    #[test]
    fn this_process_uses_memory_and_files() {
        let held: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let (memory, files) = (memory().unwrap(), files().unwrap());
        assert!(memory > 1_000_000 && memory < machine::memory_limit(), "{memory}");
        assert!(files >= held.len() as u64 && files < 100_000, "{files}");
        let used = Reading::now(0).cpu;
        assert!(used > Duration::ZERO && used < Duration::from_secs(86_400), "{used:?}");
    }
}
