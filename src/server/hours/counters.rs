//! What is counted for the figures, and kept as JSON for each hour and five minutes of each node. Everything here can be added
//! up, over nodes and over time. Used by `hours` and `hours::calculate`.

use crate::model::{
    Arm, Browser, ConnectionReport, Requests, State, Status, Timestamp,
    figures::{ModeTotals, RequestTotals, with_headers},
    stats::{Histogram, Sums},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counts by name.
pub(super) type Named = BTreeMap<String, u64>;

/// What was counted in some time. What is missing in a row of another version counts as nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// When counting began, if that was after the beginning of the time.
    pub since: Option<Timestamp>,
    /// What pages reported, by the arm of the comparison that they are in.
    #[serde(skip_serializing_if = "is_default")]
    pub stream: ArmCounters,
    #[serde(skip_serializing_if = "is_default")]
    pub polling: ArmCounters,
    #[serde(skip_serializing_if = "is_default")]
    pub sessions: SessionCounters,
    #[serde(skip_serializing_if = "is_default")]
    pub server: ServerCounters,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Counters {
    /// Adds what was counted elsewhere or in another time.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.into_iter().chain(other.since).min();
        self.stream.merge(&other.stream);
        self.polling.merge(&other.polling);
        self.sessions.merge(&other.sessions);
        self.server.merge(&other.server);
    }

    /// The part of an arm.
    pub(super) fn arm(&mut self, arm: Arm) -> &mut ArmCounters {
        match arm {
            Arm::Stream => &mut self.stream,
            Arm::Polling => &mut self.polling,
        }
    }

    /// Whether nothing was counted.
    pub(super) fn is_empty(&self) -> bool {
        let Self { since: _, stream, polling, sessions, server } = self;
        is_default(stream) && is_default(polling) && is_default(sessions) && is_default(server)
    }
}

/// What pages of one arm reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArmCounters {
    pub visits: u64,
    pub fell_back: u64,
    pub times: ModeTotals,
    pub requests: RequestTotals,
    pub bytes: u64,
    /// Requests, and bytes with headers, of each report, with the minutes that it covers.
    #[serde(skip_serializing_if = "is_default")]
    pub requests_by_minutes: Sums,
    #[serde(skip_serializing_if = "is_default")]
    pub bytes_by_minutes: Sums,
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub delivery_live: Histogram,
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub delivery_polling: Histogram,
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub first_event: Histogram,
    pub connects: u64,
    /// Streams that failed and were replaced before anybody could notice.
    pub mended: u64,
    /// Failures by kind, then by family of browser.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, Named>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub byes: Named,
}

impl ArmCounters {
    /// Adds a page's report.
    pub fn add(&mut self, report: &ConnectionReport, browser: Browser) {
        self.visits += u64::from(report.first);
        self.fell_back += u64::from(report.fell_back);
        let modes = report.mode_ms;
        let times = ModeTotals {
            live: modes.live.into(),
            polling: modes.polling.into(),
            connecting: modes.connecting.into(),
            reconnecting: modes.reconnecting.into(),
            offline: modes.offline.into(),
        };
        add_times(&mut self.times, &times);
        let Requests { stream, poll, segments } = report.requests;
        let requests = RequestTotals { stream: stream.into(), poll: poll.into(), segments: segments.into() };
        add_requests(&mut self.requests, &requests);
        self.bytes += report.bytes;
        let minutes = times.visible() as f64 / 60_000.0;
        let made = requests.all();
        self.requests_by_minutes.add(made as f64, minutes);
        self.bytes_by_minutes.add(with_headers(report.bytes, made) as f64, minutes);
        self.delivery_live.add(&report.delivery_live);
        self.delivery_polling.add(&report.delivery_polling);
        self.first_event.add(&report.first_event);
        self.connects += u64::from(report.connects);
        self.mended += u64::from(report.mended);
        for (kind, count) in report.failures.by_kind().into_iter().filter(|(_, count)| *count > 0) {
            let by_browser = self.failures.entry(kind.to_owned()).or_default();
            *by_browser.entry(browser.as_str().to_owned()).or_default() += u64::from(count);
        }
        for (reason, count) in report.byes.by_reason().into_iter().filter(|(_, count)| *count > 0) {
            *self.byes.entry(reason.to_owned()).or_default() += u64::from(count);
        }
    }

    /// Adds bytes that were sent to pages, and that no report tells of. The time in which they were sent is that of reports.
    pub(super) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.bytes_by_minutes.add(bytes as f64, 0.0);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.visits += other.visits;
        self.fell_back += other.fell_back;
        add_times(&mut self.times, &other.times);
        add_requests(&mut self.requests, &other.requests);
        self.bytes += other.bytes;
        self.requests_by_minutes.merge(&other.requests_by_minutes);
        self.bytes_by_minutes.merge(&other.bytes_by_minutes);
        self.delivery_live.merge(&other.delivery_live);
        self.delivery_polling.merge(&other.delivery_polling);
        self.first_event.merge(&other.first_event);
        self.connects += other.connects;
        self.mended += other.mended;
        for (kind, by_browser) in &other.failures {
            add_named(self.failures.entry(kind.clone()).or_default(), by_browser);
        }
        add_named(&mut self.byes, &other.byes);
    }

    /// The failures of all kinds and browsers.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().flat_map(BTreeMap::values).sum()
    }
}

/// How sessions ended, and how fast they were transcribed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionCounters {
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Failed sessions by the error's code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: Named,
    pub audio_secs: f64,
    pub work_secs: f64,
}

impl SessionCounters {
    /// The most codes that are told apart: outside workers choose their own.
    const MAX_CODES: usize = 100;

    /// Counts a session that has ended.
    pub fn ended(&mut self, status: &Status) {
        match status.state {
            State::Completed => self.completed += 1,
            State::Cancelled => self.cancelled += 1,
            State::Failed => {
                self.failed += 1;
                let code = status.error.as_ref().map_or("unknown", |error| &*error.code);
                let known = self.failures.contains_key(code) || self.failures.len() < Self::MAX_CODES;
                *self.failures.entry(if known { code } else { "other" }.to_owned()).or_default() += 1;
            }
            State::Queued | State::Processing => {}
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        add_named(&mut self.failures, &other.failures);
        self.audio_secs += other.audio_secs;
        self.work_secs += other.work_secs;
    }
}

/// What a node counted of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerCounters {
    /// Full minutes, at each of which the node looked at its load.
    pub minutes: u64,
    pub streams_opened: u64,
    pub streams_refused: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub streams_closed: Named,
    pub events: u64,
    pub stream_bytes: u64,
    pub polls: u64,
    pub polls_unchanged: u64,
    pub poll_bytes: u64,
    /// At a full minute.
    pub most_streams: u64,
    /// The sum of the shares of processors in the minutes of which they are known, and how many those are.
    pub cpu: f64,
    pub cpu_minutes: u64,
    pub most_memory: u64,
}

impl ServerCounters {
    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        self.minutes += other.minutes;
        self.streams_opened += other.streams_opened;
        self.streams_refused += other.streams_refused;
        add_named(&mut self.streams_closed, &other.streams_closed);
        self.events += other.events;
        self.stream_bytes += other.stream_bytes;
        self.polls += other.polls;
        self.polls_unchanged += other.polls_unchanged;
        self.poll_bytes += other.poll_bytes;
        self.most_streams = self.most_streams.max(other.most_streams);
        self.cpu += other.cpu;
        self.cpu_minutes += other.cpu_minutes;
        self.most_memory = self.most_memory.max(other.most_memory);
    }
}

fn add_named(sum: &mut Named, more: &Named) {
    for (name, count) in more {
        *sum.entry(name.clone()).or_default() += count;
    }
}

fn add_times(sum: &mut ModeTotals, more: &ModeTotals) {
    sum.live += more.live;
    sum.polling += more.polling;
    sum.connecting += more.connecting;
    sum.reconnecting += more.reconnecting;
    sum.offline += more.offline;
}

fn add_requests(sum: &mut RequestTotals, more: &RequestTotals) {
    sum.stream += more.stream;
    sum.poll += more.poll;
    sum.segments += more.segments;
}
