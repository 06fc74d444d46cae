//! Every metric of Hark: name, kind, unit, labels and meaning. The recorder describes and registers what stands here, so that
//! each series is there, at 0, from the start on; `docs/metrics.md` is made from it. `tests/metrics.rs` holds it against
//! the code and against what a node answers.

use crate::model::DELAY_BOUNDS_MS;
use std::fmt::Write;

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// What is counted or measured.
    pub unit: &'static str,
    pub labels: &'static [Label],
    pub meaning: &'static str,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The kind as Prometheus names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub name: &'static str,
    pub values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// These, and no others.
    Of(&'static [&'static str]),
    /// Those of this machine or this set-up, which are known only once it runs.
    Found(&'static str),
}

/// Metrics that belong together, under a title.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub title: &'static str,
    /// When there are such series; always if empty.
    pub only: &'static str,
    pub metrics: &'static [Metric],
}

const fn counter(name: &'static str, unit: &'static str, labels: &'static [Label], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, unit, labels, meaning }
}

const fn gauge(name: &'static str, unit: &'static str, labels: &'static [Label], meaning: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, meaning }
}

/// A histogram of durations in seconds.
const fn seconds(
    name: &'static str,
    bounds: &'static [f64],
    labels: &'static [Label],
    meaning: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram(bounds), unit: "seconds", labels, meaning }
}

const fn by(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values: Values::Of(values) }
}

const fn found(name: &'static str, what: &'static str) -> Label {
    Label { name, values: Values::Found(what) }
}

/// The bounds of delays that pages report, in seconds.
const DELAYS: [f64; DELAY_BOUNDS_MS.len()] = {
    let mut bounds = [0.0; DELAY_BOUNDS_MS.len()];
    let mut n = 0;
    while n < bounds.len() {
        bounds[n] = DELAY_BOUNDS_MS[n] as f64 / 1000.0;
        n += 1;
    }
    bounds
};
/// Bounds for what takes less than a millisecond while nothing is wrong. 0.1, 0.2 and 0.5 s are what Hark promises.
const QUICK: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of the lives of streams, which end after `HARK_STREAM_LIFETIME_SECS` at the latest.
const LIVES: &[f64] = &[0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 360.0, 600.0, 1800.0, 3600.0];
const FACTORS: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0];

const SCOPES: Label = by("kind", &["session", "owner", "models", "dashboard"]);
const ARMS: Label = by("arm", &["stream", "polling"]);
const MODES: Label = by("mode", &["live", "polling"]);

/// The codes with which sessions fail; a code that an outside worker made up counts as `other`.
pub const FAILURE_CODES: &[&str] = &[
    "unreadable",
    "empty_file",
    "no_audio_track",
    "no_such_track",
    "no_samples",
    "protected",
    "closed_format",
    "truncated",
    "too_long",
    "ffmpeg",
    "engine_unavailable",
    "engine_error",
    "engine_crashed",
    "engine_protocol",
    "engine_failed",
    "stalled",
    "stuck",
    "recording_unavailable",
    "worker_lost",
    "worker_failed",
    "internal",
    OTHER,
];

/// The failures of sessions that are because a time limit was reached.
pub const TIME_LIMITS: [&str; 2] = ["stalled", "worker_lost"];

/// The codes with which uploads are refused.
pub const UPLOAD_REFUSALS: &[&str] = &[
    "queue_full",
    "owner_queue_full",
    "address_queue_full",
    "newcomer_queue_full",
    "quota_exceeded",
    "too_many_uploads",
    "too_large",
    "too_long",
    "upload_too_slow",
    "disk_full",
    "decoders_busy",
    "storage_unavailable",
    "database_unavailable",
    "engine_unavailable",
    "bad_request",
    "invalid_title",
    "unknown_engine",
    "unknown_language",
    "unreadable",
    "empty_file",
    "no_audio_track",
    "no_such_track",
    "no_samples",
    "protected",
    "closed_format",
    "truncated",
    "ffmpeg",
    OTHER,
];

/// The value of a label for what isn't in its list.
pub const OTHER: &str = "other";

/// A value as its list has it, or [`OTHER`]: what others send must not make series without end.
#[must_use]
pub fn listed(list: &'static [&'static str], value: &str) -> &'static str {
    list.iter().find(|known| **known == value).copied().unwrap_or(OTHER)
}

/// All metrics.
pub const CATALOGUE: &[Group] = &[
    Group {
        title: "Status streams",
        only: "",
        metrics: &[
            gauge("hark_streams_open", "streams", &[SCOPES], "Status streams open now, by what they tell of."),
            counter("hark_streams_opened_total", "streams", &[SCOPES], "Status streams opened."),
            counter(
                "hark_streams_closed_total",
                "streams",
                &[by("reason", &["ended", "client", "stalled", "error", "shutdown", "lifetime", "idle", "logout"])],
                "Status streams closed. `ended`: the session had; `client`: the client went away; `stalled`: it read nothing \
                 for 10 s; `error`: the database could not be read; the others are announced with a `bye`.",
            ),
            counter(
                "hark_streams_refused_total",
                "streams",
                &[by("limit", &["owner", "address", "newcomers", "node"])],
                "Status streams refused, by whose limit was reached.",
            ),
            seconds(
                "hark_stream_connect_seconds",
                QUICK,
                &[],
                "From the request for a stream, whose head was just read, to the write of its first event.",
            ),
            seconds("hark_stream_open_seconds", LIVES, &[], "How long streams were open, counted when they close."),
            counter(
                "hark_stream_events_total",
                "events",
                &[by(
                    "event",
                    &["retry", "status", "segment", "heartbeat", "bye", "models", "overview", "renamed", "deleted"],
                )],
                "Events sent on status streams. `retry` is the first line of each.",
            ),
            counter(
                "hark_stream_bytes_total",
                "bytes",
                &[],
                "Bytes of events sent on status streams, as written: compressed where a client asked for it.",
            ),
            seconds(
                "hark_publish_to_write_seconds",
                QUICK,
                &[],
                "From the publishing of a change on this node to its write to a stream that was open then. What a stream is \
                 given of the time before it was opened isn't counted.",
            ),
            counter("hark_snapshot_reads_total", "reads", &[], "Times that a stream had to read the database."),
            gauge(
                "hark_hub_entries",
                "entries",
                &[SCOPES],
                "Sessions and owners whose newest status is held in memory. There is always one entry of the models, which \
                 isn't counted.",
            ),
            counter(
                "hark_updates_conflated_total",
                "statuses",
                &[],
                "Statuses replaced by a newer one before they were sent to a stream.",
            ),
        ],
    },
    Group {
        title: "Requests",
        only: "",
        metrics: &[
            counter(
                "hark_http_requests_total",
                "requests",
                &[
                    by(
                        "kind",
                        &[
                            "page", "file", "poll", "stream", "segments", "upload", "action", "report", "worker",
                            "admin", "operator", "other",
                        ],
                    ),
                    by("status", &["2xx", "3xx", "4xx", "5xx"]),
                ],
                "Requests answered, counted when the answer begins. `page`: pages and their data; `file`: files of the site, \
                 recordings and transcripts; `poll`: statuses; `action`: what changes a session; `report`: what pages measured; \
                 `worker`: outside workers; `operator`: health and metrics. A connection or a head that is refused before \
                 it is a request isn't counted.",
            ),
            counter("hark_polls_total", "requests", &[by("answer", &["200", "304"])], "Status polls by answer."),
            counter(
                "hark_poll_bytes_total",
                "bytes",
                &[],
                "Bodies of the answers to status polls, as sent: compressed where the client takes it.",
            ),
            counter(
                "hark_connections_refused_total",
                "connections",
                &[by("limit", &["node", "address"])],
                "Connections told to come back later, by whose limit was reached.",
            ),
        ],
    },
    Group {
        title: "Sessions",
        only: "",
        metrics: &[
            counter("hark_sessions_created_total", "sessions", &[], "Sessions received, those of outside workers too."),
            counter("hark_upload_bytes_total", "bytes", &[], "Bytes of recordings received."),
            counter(
                "hark_uploads_refused_total",
                "recordings",
                &[by("reason", UPLOAD_REFUSALS)],
                "Recordings refused, by the [code](api.md#errors) of the error.",
            ),
            counter(
                "hark_playable_copies_total",
                "copies",
                &[by("result", &["made", "failed"])],
                "Copies for browsers of recordings that they can't play.",
            ),
            counter(
                "hark_sessions_ended_total",
                "sessions",
                &[by("status", &["completed", "failed", "cancelled"])],
                "Sessions that ended. One that is queued again ends anew.",
            ),
            counter(
                "hark_sessions_failed_total",
                "sessions",
                &[by("code", FAILURE_CODES)],
                "Sessions that failed, by the [code](api.md#errors) of the failure.",
            ),
            counter(
                "hark_sessions_timed_out_total",
                "sessions",
                &[],
                "Sessions that failed because of a time limit: `stalled` or `worker_lost`.",
            ),
            counter(
                "hark_sessions_expired_total",
                "sessions",
                &[],
                "Sessions deleted because they ended `HARK_KEEP_DAYS` ago.",
            ),
            gauge(
                "hark_sessions",
                "sessions",
                &[by("status", &["queued", "processing", "completed", "failed", "cancelled"])],
                "Sessions in the database, of all nodes; at most 10 seconds old.",
            ),
            gauge(
                "hark_sessions_long_running",
                "sessions",
                &[],
                "Sessions processed for more than ten minutes and three times their length, of all nodes.",
            ),
            gauge(
                "hark_sessions_stalled",
                "sessions",
                &[],
                "Sessions processed of which nothing has changed for a minute, or whose lease has run out, of all nodes.",
            ),
            gauge(
                "hark_sessions_waiting_for_worker",
                "sessions",
                &[],
                "Queued sessions that no worker can take, because none has their engine with their language, or its model isn't there yet.",
            ),
            gauge(
                "hark_queue_oldest_seconds",
                "seconds",
                &[],
                "How long the session has waited that has waited longest.",
            ),
            Metric {
                name: "hark_real_time_factor",
                kind: Kind::Histogram(FACTORS),
                unit: "seconds per second",
                labels: &[by("engine", &["pocketsphinx", "whisper", "openai", "command"])],
                meaning: "Seconds of work per second of audio of the sessions that were completed.",
            },
        ],
    },
    Group {
        title: "What pages measure",
        only: "Pages report every minute and when they are left; only of the browsers of which a report comes.",
        metrics: &[
            counter(
                "hark_client_reports_total",
                "reports",
                &[by("result", &["taken", "limited", "invalid", "unbound", "impossible"])],
                "Reports of pages on their connection, by what became of them. `unbound`: without a token of a page that was \
                 seen; `impossible`: more than a page can have counted in the time.",
            ),
            counter(
                "hark_client_visits_total",
                "visits",
                &[ARMS],
                "Pages that held a connection, by their first report. Those that only followed another tab are none.",
            ),
            counter(
                "hark_client_fallbacks_total",
                "visits",
                &[ARMS],
                "Visits that polled for more than 2 s because a stream failed or was refused.",
            ),
            counter("hark_client_connects_total", "streams", &[ARMS], "Streams that pages opened."),
            counter(
                "hark_client_failures_total",
                "streams",
                &[
                    ARMS,
                    by("kind", &["error", "buffered", "silent"]),
                    by("browser", &["chromium", "firefox", "safari", "other"]),
                ],
                "Streams that failed so that somebody could notice. `error`: an error, or an end that wasn't announced; \
                 `buffered`: nothing came after the opening; `silent`: nothing came any more.",
            ),
            counter(
                "hark_client_mended_total",
                "streams",
                &[ARMS],
                "Streams that failed and were replaced within 2 seconds, before anybody could notice.",
            ),
            counter(
                "hark_client_byes_total",
                "streams",
                &[ARMS, by("reason", &["shutdown", "lifetime", "idle", "logout", "limit", "polling", "other"])],
                "Streams that the server ended or refused on purpose: `limit`, too many; `polling`, the browser must poll.",
            ),
            seconds(
                "hark_client_first_event_seconds",
                &DELAYS,
                &[ARMS],
                "From a page's opening of a stream to its first event.",
            ),
            seconds(
                "hark_client_delivery_seconds",
                &DELAYS,
                &[ARMS, MODES],
                "From the making of a status to its arrival at a page, by the page's estimate of the server's clock.",
            ),
            counter(
                "hark_client_mode_milliseconds_total",
                "milliseconds",
                &[ARMS, by("mode", &["live", "polling", "connecting", "reconnecting", "offline"])],
                "How long pages had a stream, polled, were opening one, were without one that had failed, or offline, while they were visible and had something to watch.",
            ),
            counter(
                "hark_client_requests_total",
                "requests",
                &[ARMS, by("kind", &["stream", "poll", "segments"])],
                "Requests of pages for statuses and segments.",
            ),
            counter(
                "hark_client_received_bytes_total",
                "bytes",
                &[ARMS],
                "Bytes of the bodies sent to pages, as sent: streams and the answers to polls and requests for segments.",
            ),
        ],
    },
    Group {
        title: "Database",
        only: "",
        metrics: &[
            gauge("hark_database_up", "1 or 0", &[], "Whether the database answers; an SQLite file always does."),
            counter(
                "hark_database_queries_total",
                "queries",
                &[],
                "Queries answered: a statement, or the statements of one transaction.",
            ),
            counter("hark_database_errors_total", "queries", &[], "Queries that failed."),
            seconds(
                "hark_database_query_seconds",
                QUICK,
                &[],
                "How long a query took, with the wait for a free connection.",
            ),
        ],
    },
    Group {
        title: "Between nodes",
        only: "",
        metrics: &[
            counter(
                "hark_bus_messages_total",
                "messages",
                &[by("outcome", &["taken", "malformed", "oversized", "stale", "foreign", "unsigned"])],
                "Messages of other nodes and outside workers, heard through Redis, by what became of them.",
            ),
            counter(
                "hark_bus_dropped_total",
                "changes",
                &[],
                "Changes that could not be handed to Redis or taken from it. Other nodes find them by comparing with the database.",
            ),
            gauge("hark_bus_subscriptions", "sessions", &[], "Sessions whose changes on other nodes are listened for."),
            gauge(
                "hark_clock_offset_seconds",
                "seconds",
                &[],
                "How far this machine's clock is ahead of the database's.",
            ),
        ],
    },
    Group {
        title: "Redis",
        only: REDIS,
        metrics: &[
            gauge(
                "hark_redis_up",
                "1 or 0",
                &[],
                "Whether this node's changes reach Redis and those of others come from there.",
            ),
            seconds(
                "hark_redis_ping_seconds",
                QUICK,
                &[],
                "How long Redis took to answer a ping, which it is sent every 5 s behind whatever else comes.",
            ),
            counter(
                "hark_redis_errors_total",
                "errors",
                &[],
                "Connections to Redis that failed or broke, and failed publishings.",
            ),
        ],
    },
    Group {
        title: "Process and machine",
        only: "Read when the metrics are asked for.",
        metrics: &[
            gauge(
                "hark_build_info",
                "always 1",
                &[by("version", &[env!("CARGO_PKG_VERSION")])],
                "The version of Hark that runs.",
            ),
            counter(
                "process_cpu_seconds_total",
                "seconds",
                &[],
                "Processor time of the node, without its engines and decoders.",
            ),
            gauge(
                "process_resident_memory_bytes",
                "bytes",
                &[],
                "Memory of the node, without its engines and decoders.",
            ),
            gauge("process_virtual_memory_bytes", "bytes", &[], "Address space of the node."),
            gauge("process_virtual_memory_max_bytes", "bytes", &[], "The limit of that; 2^64 without one."),
            gauge("process_open_fds", "descriptors", &[], "Open file descriptors: connections, files and pipes."),
            gauge("process_max_fds", "descriptors", &[], "The limit of that."),
            gauge("process_threads", "threads", &[], "Threads of the node."),
            gauge("process_start_time_seconds", "seconds", &[], "When the node was started, since the Unix epoch."),
            gauge(
                "hark_memory_limit_bytes",
                "bytes",
                &[],
                "The memory that the node may use: the limit of its control group, or the machine's memory.",
            ),
            gauge("hark_cpus", "processors", &[], "The processors that the node may use."),
            gauge("hark_disk_free_bytes", "bytes", &[FOLDERS], "Bytes free on the disk of a folder."),
            gauge("hark_disk_size_bytes", "bytes", &[FOLDERS], "Bytes of the disk of a folder."),
        ],
    },
    Group {
        title: "The public address",
        only: PUBLIC_ADDRESS,
        metrics: &[gauge(
            "hark_certificate_expiry_timestamp_seconds",
            "seconds",
            &[found("host", "that of the address")],
            "When the certificate that is shown there expires, since the Unix epoch. Looked at every hour.",
        )],
    },
];

/// When the series about the public address exist.
const PUBLIC_ADDRESS: &str = "Only where `HARK_PUBLIC_URL` is set and begins with https.";
/// When the series about Redis exist.
const REDIS: &str = "Only where `REDIS_URL` is set.";
const FOLDERS: Label = found("folder", "`data`, and `recordings` unless they are in a bucket");

/// All metrics, without their titles.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    CATALOGUE.iter().flat_map(|group| group.metrics)
}

/// The groups whose series exist from the start on a node with or without Redis.
pub fn groups(redis: bool) -> impl Iterator<Item = &'static Group> {
    CATALOGUE.iter().filter(move |group| group.only != PUBLIC_ADDRESS && (group.only == REDIS) == redis)
}

impl Metric {
    /// The labels of each series that is known beforehand: every combination of their values.
    #[must_use]
    pub fn series(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        let mut all = vec![Vec::new()];
        for label in self.labels {
            let Values::Of(values) = label.values else { return Vec::new() };
            let with = |before: Vec<_>| values.iter().map(move |value| [&before[..], &[(label.name, *value)]].concat());
            all = all.into_iter().flat_map(with).collect();
        }
        all
    }
}

/// The catalogue as `docs/metrics.md`.
#[must_use]
pub fn document() -> String {
    let mut text = "# Metrics\n\n\
        What `/metrics` of each node answers, in Prometheus' text format. [operations.md](operations.md#monitoring) says what to\n\
        watch. Counters count from the node's start. Every series is there from the start, with 0. Durations are in seconds;\n\
        a histogram `x` has the series `x_bucket`, `x_sum` and `x_count`.\n\n\
        Made from `src/server/telemetry/catalogue.rs` by `make snapshots`.\n"
        .to_owned();
    for group in CATALOGUE {
        let _ = write!(text, "\n## {}\n\n", group.title);
        if !group.only.is_empty() {
            let _ = write!(text, "{}\n\n", group.only);
        }
        text.push_str("| metric | kind | unit | labels | |\n| --- | --- | --- | --- | --- |\n");
        for metric in group.metrics {
            let labels: Vec<String> = metric.labels.iter().map(Label::described).collect();
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                metric.name,
                metric.kind.as_str(),
                metric.unit,
                labels.join("; "),
                metric.meaning
            );
        }
        for metric in group.metrics {
            if let Kind::Histogram(bounds) = metric.kind {
                let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
                let _ = write!(text, "\nBuckets of `{}`: {}.\n", metric.name, bounds.join(", "));
            }
        }
    }
    text
}

impl Label {
    fn described(&self) -> String {
        match self.values {
            Values::Of(values) => {
                let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
                format!("`{}`: {}", self.name, values.join(", "))
            }
            Values::Found(what) => format!("`{}`: {what}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_used_once_and_follow_prometheus() {
        let mut names = BTreeSet::new();
        for metric in metrics() {
            assert!(names.insert(metric.name), "{} stands there twice", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.meaning.ends_with('.'), "{}", metric.name);
            assert!(!metric.unit.contains('|') && !metric.meaning.contains('|'), "{}", metric.name);
        }
    }

    #[test]
    fn buckets_grow_and_have_the_promised_bounds() {
        let promised = [0.1, 0.2, 0.5];
        for metric in metrics() {
            let Kind::Histogram(bounds) = metric.kind else { continue };
            assert!(bounds.is_sorted_by(|a, b| a < b), "{}", metric.name);
            let delay = metric.unit == "seconds" && metric.name != "hark_stream_open_seconds";
            assert!(!delay || promised.iter().all(|bound| bounds.contains(bound)), "{}", metric.name);
        }
    }

    #[test]
    fn series_are_all_combinations() {
        const BOTH: Metric = counter("x_total", "", &[by("a", &["1", "2"]), by("b", &["3"])], "");
        assert_eq!(BOTH.series(), [[("a", "1"), ("b", "3")], [("a", "2"), ("b", "3")]]);
        assert_eq!(counter("x_total", "", &[], "").series(), [[]; 1]);
        assert!(gauge("x", "", &[FOLDERS], "").series().is_empty());
    }
}
