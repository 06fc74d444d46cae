//! What the rules are evaluated from: the few figures that they need, read from a node's own metrics, those of all nodes
//! added up, and their history. Pure: whoever calls says what time it is. Called by `alerts` and `rules`.

use crate::{model::Timestamp, server::telemetry::samples};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// How long single points are kept, in seconds: a little longer than the longest time that a rule looks back.
const KEEP_SECS: f64 = 900.0;
/// How many hours are kept: a day, the hour before it and the one that has begun.
const KEEP_HOURS: usize = 26;
/// An hour, in seconds.
const HOUR_SECS: f64 = 3600.0;
/// How much less than asked for a window may hold, in seconds: points come every few seconds, and never quite on time.
const SLACK_SECS: f64 = 30.0;

pub(super) const FAILURES: &str = "hark_client_failures_total";
pub(super) const CONNECTS: &str = "hark_client_connects_total";
pub(super) const FIRST_EVENTS: &str = "hark_client_first_event_seconds_count";
pub(super) const VISITS: &str = "hark_client_visits_total";
pub(super) const FALLBACKS: &str = "hark_client_fallbacks_total";
pub(super) const DELIVERY: &str = "hark_client_delivery_seconds_bucket";
pub(super) const CONNECT: &str = "hark_stream_connect_seconds_bucket";
pub(super) const FAILED: &str = "hark_sessions_failed_total";
pub(super) const TIMED_OUT: &str = "hark_sessions_timed_out_total";
pub(super) const STALLED: &str = "hark_sessions_stalled";
pub(super) const LONG_RUNNING: &str = "hark_sessions_long_running";
pub(super) const QUEUE_OLDEST: &str = "hark_queue_oldest_seconds";
pub(super) const SESSIONS: &str = "hark_sessions";
pub(super) const REDIS_UP: &str = "hark_redis_up";
pub(super) const REDIS_ERRORS: &str = "hark_redis_errors_total";
pub(super) const REDIS_PING: &str = "hark_redis_ping_seconds_bucket";
pub(super) const DATABASE_UP: &str = "hark_database_up";
pub(super) const DATABASE_ERRORS: &str = "hark_database_errors_total";
pub(super) const DATABASE_QUERY: &str = "hark_database_query_seconds_bucket";
pub(super) const QUERIES: &str = "hark_database_queries_total";
pub(super) const STREAMS: &str = "hark_streams_open";
pub(super) const EVENTS: &str = "hark_stream_events_total";
pub(super) const REQUESTS: &str = "hark_http_requests_total";
pub(super) const MEMORY: &str = "process_resident_memory_bytes";
pub(super) const MEMORY_LIMIT: &str = "hark_memory_limit_bytes";
pub(super) const CPU: &str = "process_cpu_seconds_total";
pub(super) const CPUS: &str = "hark_cpus";
pub(super) const DISK_FREE: &str = "hark_disk_free_bytes";
pub(super) const DISK_SIZE: &str = "hark_disk_size_bytes";
pub(super) const WAITING: &str = "hark_sessions_waiting_for_worker";
pub(super) const REFUSED: &str = "hark_uploads_refused_total";
pub(super) const CERTIFICATE: &str = "hark_certificate_expiry_timestamp_seconds";
/// No series of a node's, because it is about nodes that are gone: the database knows of them.
pub(super) const SILENT_NODES: &str = "silent nodes";

/// How the values of several nodes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A count since a node's start: what it grew by is added.
    Total,
    /// A value of this moment that nodes have each: added.
    Sum,
    /// A value of this moment that is the same for all, such as a count of the database: that of the node which looks. What
    /// another one said last may be older.
    Max,
    /// A value of this moment of which the least matters.
    Min,
}

/// A series that a rule needs.
struct Series {
    name: &'static str,
    kind: Kind,
    /// The label by which it stays apart; all others are added up.
    by: Option<&'static str>,
    /// Only the series with this label.
    only: Option<(&'static str, &'static str)>,
}

const fn series(name: &'static str, kind: Kind) -> Series {
    Series { name, kind, by: None, only: None }
}

impl Series {
    const fn by(self, label: &'static str) -> Self {
        Self { by: Some(label), ..self }
    }

    const fn only(self, label: &'static str, value: &'static str) -> Self {
        Self { only: Some((label, value)), ..self }
    }
}

/// All series that rules need.
const SERIES: [Series; 32] = [
    series(FAILURES, Kind::Total),
    series(CONNECTS, Kind::Total),
    series(FIRST_EVENTS, Kind::Total),
    series(VISITS, Kind::Total).only("arm", "stream"),
    series(FALLBACKS, Kind::Total).only("arm", "stream"),
    series(DELIVERY, Kind::Total).by("le").only("mode", "live"),
    series(CONNECT, Kind::Total).by("le"),
    series(FAILED, Kind::Total).by("code"),
    series(TIMED_OUT, Kind::Total),
    series(STALLED, Kind::Max),
    series(LONG_RUNNING, Kind::Max),
    series(QUEUE_OLDEST, Kind::Max),
    series(WAITING, Kind::Max),
    series(REFUSED, Kind::Total).only("reason", "engine_unavailable"),
    series(SESSIONS, Kind::Max).only("status", "processing"),
    series(REDIS_UP, Kind::Min),
    series(REDIS_ERRORS, Kind::Total),
    series(REDIS_PING, Kind::Total).by("le"),
    series(DATABASE_UP, Kind::Min),
    series(DATABASE_ERRORS, Kind::Total),
    series(DATABASE_QUERY, Kind::Total).by("le"),
    series(QUERIES, Kind::Total),
    series(STREAMS, Kind::Sum),
    series(EVENTS, Kind::Total),
    series(REQUESTS, Kind::Total),
    series(MEMORY, Kind::Max),
    series(MEMORY_LIMIT, Kind::Max),
    series(CPU, Kind::Total),
    series(CPUS, Kind::Max),
    series(DISK_FREE, Kind::Min).by("folder"),
    series(DISK_SIZE, Kind::Max).by("folder"),
    series(CERTIFICATE, Kind::Min),
];

/// The names of all series that rules need, for a test that they exist.
pub fn names() -> impl Iterator<Item = &'static str> {
    SERIES.iter().map(|series| series.name)
}

/// The figures of one moment: by the name of the series, and behind a bar the label by which it stays apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Counts since the start.
    totals: BTreeMap<String, f64>,
    /// Values of this moment.
    values: BTreeMap<String, f64>,
}

impl Figures {
    /// Reads the figures from metrics in Prometheus' text format. Of the certificate it notes how many seconds are left.
    pub(super) fn read(text: &str, now: Timestamp) -> Self {
        let mut figures = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, labels, value)) = samples::read(line) else { continue };
            let Some(series) = SERIES.iter().find(|series| series.name == name) else { continue };
            let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_str());
            if series.only.is_some_and(|(name, value)| label(name) != Some(value)) {
                continue;
            }
            let key = match series.by.map(|by| label(by).unwrap_or_default()) {
                Some(label) => format!("{name}|{label}"),
                None => name.to_owned(),
            };
            let value = if name == CERTIFICATE { value - now.0 as f64 / 1000.0 } else { value };
            figures.note(series.kind, key, value);
        }
        figures
    }

    fn note(&mut self, kind: Kind, key: String, value: f64) {
        let map = if kind == Kind::Total { &mut self.totals } else { &mut self.values };
        let before = map.get(&key).copied();
        let value = match (before, kind) {
            (None, _) => value,
            (Some(before), Kind::Total | Kind::Sum) => before + value,
            (Some(before), Kind::Max) => before.max(value),
            (Some(before), Kind::Min) => before.min(value),
        };
        map.insert(key, value);
    }

    /// Notes a node that ended without a word, and for how many seconds it hasn't been heard of.
    pub(super) fn note_silent_node(&mut self, name: &str, secs: f64) {
        self.values.insert(format!("{SILENT_NODES}|{name}"), secs);
    }

    /// The errors that sessions have failed with.
    pub(super) fn failed_codes(&self) -> Vec<&str> {
        self.counted(FAILED).into_iter().filter(|(_, n)| *n > 0.0).map(|(code, _)| code).collect()
    }

    /// The labels of the series with this name that stay apart, with how often each was counted.
    fn counted(&self, name: &str) -> Vec<(&str, f64)> {
        let counts = self.totals.iter();
        counts.filter_map(|(key, n)| Some((key.strip_prefix(name)?.strip_prefix('|')?, *n))).collect()
    }
}

/// The figures of all nodes, added up. A node that stops takes nothing away from what was counted.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// What each node said last, by its id, which is another one after each start.
    last: BTreeMap<String, BTreeMap<String, f64>>,
    totals: BTreeMap<String, f64>,
    begun: bool,
}

impl Cluster {
    /// Takes what the nodes said last, `own` among them, and returns the figures of all together. What they had counted
    /// before the first call doesn't count.
    pub(super) fn take(&mut self, nodes: Vec<(String, Figures)>, own: &str) -> Figures {
        let mut all = Figures::default();
        for (id, figures) in nodes {
            let is_own = id == own;
            let last = self.last.insert(id, figures.totals.clone());
            for (key, n) in figures.totals {
                let before = match &last {
                    Some(last) => last.get(&key).copied().unwrap_or(0.0),
                    None if self.begun => 0.0,
                    None => n,
                };
                *self.totals.entry(key).or_insert(0.0) += (n - before).max(0.0);
            }
            for (key, value) in figures.values {
                let name = key.split_once('|').map_or(&*key, |(name, _)| name);
                let kind = SERIES.iter().find(|series| series.name == name).map_or(Kind::Max, |series| series.kind);
                if kind != Kind::Max || is_own {
                    all.note(kind, key, value);
                }
            }
        }
        self.begun = true;
        all.totals = self.totals.clone();
        all
    }
}

/// What was measured in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Hour {
    index: u64,
    least_memory: Option<f64>,
    queries: (f64, f64),
    streams: (f64, u32),
}

/// Figures of the last minutes, and some of the last hours.
#[derive(Debug, Default)]
pub(super) struct History {
    points: VecDeque<(f64, Figures)>,
    hours: VecDeque<Hour>,
    /// Errors that no session had failed with before, with the time when the first did.
    fresh: BTreeMap<String, f64>,
}

impl History {
    /// Adds the figures of the moment `now`, in seconds since any beginning.
    pub(super) fn push(&mut self, now: f64, figures: Figures) {
        self.note_hour(now, &figures);
        self.points.push_back((now, figures));
        while self.points.front().is_some_and(|(at, _)| *at < now - KEEP_SECS) {
            self.points.pop_front();
        }
        self.fresh.retain(|_, since| *since >= now - KEEP_SECS);
    }

    /// Notes an error that no session had failed with before.
    pub(super) fn note_new_error(&mut self, code: &str, now: f64) {
        self.fresh.insert(code.to_owned(), now);
    }

    fn note_hour(&mut self, now: f64, figures: &Figures) {
        let index = (now / HOUR_SECS) as u64;
        let queries = figures.totals.get(QUERIES).copied().unwrap_or(0.0);
        if self.hours.back().is_none_or(|hour| hour.index != index) {
            self.hours.push_back(Hour { index, least_memory: None, queries: (queries, queries), streams: (0.0, 0) });
        }
        if let Some(hour) = self.hours.back_mut() {
            let memory = figures.values.get(MEMORY).copied();
            hour.least_memory = hour.least_memory.into_iter().chain(memory).reduce(f64::min);
            hour.queries.1 = queries;
            hour.streams.0 += figures.values.get(STREAMS).copied().unwrap_or(0.0);
            hour.streams.1 += 1;
        }
        while self.hours.len() > KEEP_HOURS {
            self.hours.pop_front();
        }
    }

    fn now(&self) -> Option<f64> {
        self.points.back().map(|(at, _)| *at)
    }

    /// A value of the last point.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.points.back()?.1.values.get(name).copied()
    }

    /// The values of the last point that stay apart by a label.
    pub(super) fn values(&self, name: &str) -> Vec<(&str, f64)> {
        let Some((_, last)) = self.points.back() else { return Vec::new() };
        let values = last.values.iter();
        values.filter_map(|(key, value)| Some((key.strip_prefix(name)?.strip_prefix('|')?, *value))).collect()
    }

    /// The greatest value in the last `secs` seconds.
    pub(super) fn greatest(&self, name: &str, secs: f64) -> Option<f64> {
        let since = self.now()? - secs;
        let points = self.points.iter().filter(|(at, _)| *at >= since);
        points.filter_map(|(_, figures)| figures.values.get(name).copied()).reduce(f64::max)
    }

    /// The point at the beginning of the last `secs` seconds; none if there are no figures from that long ago.
    fn before(&self, secs: f64) -> Option<&Figures> {
        let since = self.now()? - secs;
        let (first, _) = self.points.front()?;
        if *first > since + SLACK_SECS {
            return None;
        }
        self.points.iter().find(|(at, _)| *at >= since).map(|(_, figures)| figures)
    }

    /// By how much a total has grown in the last `secs` seconds; none if that isn't known.
    pub(super) fn increase(&self, name: &str, secs: f64) -> Option<f64> {
        let of = |figures: &Figures| figures.totals.get(name).copied().unwrap_or(0.0);
        Some((of(&self.points.back()?.1) - of(self.before(secs)?)).max(0.0))
    }

    /// By how much a total has grown in the last `secs` seconds, or in the time since the first figures if that is shorter.
    pub(super) fn known_increase(&self, name: &str, secs: f64) -> Option<f64> {
        let since = self.now()? - secs;
        let (_, before) = self.points.iter().find(|(at, _)| *at >= since)?;
        let of = |figures: &Figures| figures.totals.get(name).copied().unwrap_or(0.0);
        Some((of(&self.points.back()?.1) - of(before)).max(0.0))
    }

    /// The value below which the share `q` of what a histogram has counted in the last `secs` seconds lies, interpolated
    /// within its bucket as Prometheus does, and how much that is. None if it isn't known.
    pub(super) fn quantile(&self, name: &str, q: f64, secs: f64) -> Option<(f64, f64)> {
        let (before, last) = (self.before(secs)?, &self.points.back()?.1);
        let counted_before: BTreeMap<_, _> = before.counted(name).into_iter().collect();
        let grown = last.counted(name).into_iter().filter_map(|(text, n)| {
            let before = counted_before.get(text).copied().unwrap_or(0.0);
            Some((text.parse().ok()?, (n - before).max(0.0)))
        });
        let mut buckets: Vec<(f64, f64)> = grown.collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = buckets.last().map_or(0.0, |(_, n)| *n);
        if count <= 0.0 {
            return Some((0.0, 0.0));
        }
        let rank = q * count;
        let at = buckets.iter().position(|(_, n)| *n >= rank).unwrap_or(buckets.len() - 1);
        let (low, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (high, n) = buckets[at];
        let value = if high.is_infinite() { low } else { low + (high - low) * (rank - below) / (n - below).max(1e-9) };
        Some((value, count))
    }

    /// Errors that no session had failed with before the last `secs` seconds.
    pub(super) fn new_errors(&self, secs: f64) -> Vec<&str> {
        let since = self.now().unwrap_or(0.0) - secs;
        self.fresh.iter().filter(|(_, at)| **at > since).map(|(code, _)| code.as_str()).collect()
    }

    /// The hour that ended `back` hours before the last whole one.
    fn hour(&self, back: u64) -> Option<&Hour> {
        let index = self.hours.back()?.index.checked_sub(1 + back)?;
        self.hours.iter().find(|hour| hour.index == index)
    }

    /// By how many bytes an hour the memory has grown over the last whole hours, by the least of each.
    pub(super) fn memory_growth(&self, hours: u64) -> Option<f64> {
        let (now, before) = (self.hour(0)?.least_memory?, self.hour(hours)?.least_memory?);
        Some((now - before) / hours as f64)
    }

    /// Queries a second, and open streams, in the hour that ended `back` hours before the last whole one.
    pub(super) fn queries(&self, back: u64) -> Option<(f64, f64)> {
        let hour = self.hour(back)?;
        let rate = (hour.queries.1 - hour.queries.0).max(0.0) / HOUR_SECS;
        Some((rate, hour.streams.0 / f64::from(hour.streams.1.max(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Figures {
        Figures::read(text, Timestamp(1_000_000))
    }

    #[test]
    fn figures_are_read_from_the_metrics() {
        let text = concat!(
            "# TYPE hark_client_connects_total counter\n",
            "hark_client_connects_total{arm=\"stream\"} 3\nhark_client_connects_total{arm=\"polling\"} 1\n",
            "hark_client_visits_total{arm=\"stream\"} 7\nhark_client_visits_total{arm=\"polling\"} 9\n",
            "hark_disk_free_bytes{folder=\"a \\\"b\\\" {c}, d\"} 5e3\nhark_sessions{status=\"queued\"} 4\n",
            "hark_client_delivery_seconds_bucket{arm=\"stream\",mode=\"live\",le=\"0.5\"} 2\n",
            "hark_certificate_expiry_timestamp_seconds 1060\nhark_bus_dropped_total 8\nnonsense\n",
        );
        let figures = read(text);
        let totals = [
            ("hark_client_connects_total", 4.0),
            ("hark_client_delivery_seconds_bucket|0.5", 2.0),
            ("hark_client_visits_total", 7.0),
        ];
        assert_eq!(figures.totals, totals.map(|(key, n)| (key.to_owned(), n)).into());
        let values =
            [("hark_certificate_expiry_timestamp_seconds", 60.0), ("hark_disk_free_bytes|a \"b\" {c}, d", 5000.0)];
        assert_eq!(figures.values, values.map(|(key, n)| (key.to_owned(), n)).into());
    }

    #[test]
    fn nodes_that_come_and_go_change_no_sum() {
        let node = |n: u32, open: u32| {
            read(&format!("{CONNECTS} {n}\n{STREAMS}{{kind=\"owner\"}} {open}\n{STALLED} {}\n", open % 5 + 1))
        };
        let mut cluster = Cluster::default();
        let mut take = |nodes: Vec<(&str, Figures)>| {
            let nodes = nodes.into_iter().map(|(id, figures)| (id.to_owned(), figures)).collect();
            let all = cluster.take(nodes, "b");
            (all.totals[CONNECTS], all.values[STREAMS], all.values[STALLED])
        };
        assert_eq!(take(vec![("a", node(100, 5)), ("b", node(50, 6))]), (0.0, 11.0, 2.0));
        assert_eq!(take(vec![("a", node(103, 5)), ("b", node(51, 6))]), (4.0, 11.0, 2.0));
        assert_eq!(take(vec![("b", node(52, 7))]), (5.0, 7.0, 3.0), "one is gone");
        assert_eq!(take(vec![("b", node(52, 7)), ("c", node(2, 1))]), (7.0, 8.0, 3.0), "one has started");
        assert_eq!(take(vec![("a", node(104, 5)), ("b", node(52, 7))]), (8.0, 12.0, 3.0), "one is back");
    }
}
