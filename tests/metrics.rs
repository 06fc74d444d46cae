//! The metrics, the log and the traces of `hark serve` as a process of its own, whose counts nobody else changes: what the
//! catalogue lists is there from the start and nothing else, each figure is compared with what a client has counted itself, and
//! a receiver is sent each step of a session.

#[path = "support/collector.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod collector;
#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod redis;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;

use collector::{Collector, Step};
use hark::server::telemetry::catalogue::{self, Kind, Values};
use postgres::Postgres;
use process::{Process, Setup};
use redis::Redis;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use support::{Sse, TIMEOUT, Visitor};
use tempfile::TempDir;
use tokio::time;
use uuid::Uuid;

const TOKEN: &str = "a-workers-token";

/// A series: its name and labels.
type Series = (String, BTreeMap<String, String>);

/// A node, and what it says.
struct Node {
    process: Process,
    log: PathBuf,
    _folder: TempDir,
}

impl Node {
    fn start(flags: &[&str], env: &[(&'static str, String)]) -> Self {
        let folder = TempDir::new().unwrap();
        let log = folder.path().join("log");
        let mut variables = vec![("HARK_WORKER_TOKEN", TOKEN.to_owned()), ("HARK_LOG_FORMAT", "json".to_owned())];
        variables.extend_from_slice(env);
        let setup = Setup::new(&folder.path().join("data"), flags).env(&variables).log_to(&log);
        Self { process: setup.start(), log, _folder: folder }
    }

    async fn text(&self) -> String {
        self.process.visitor().get("/metrics").await.text().await.unwrap()
    }

    async fn metrics(&self) -> BTreeMap<Series, f64> {
        parse(&self.text().await)
    }

    /// A value, summed over the series that have these labels.
    async fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    /// Waits until a value is this.
    async fn becomes(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let mut last = f64::NAN;
        let waiting = async {
            loop {
                last = self.value(name, labels).await;
                if last == wanted {
                    return;
                }
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        let done = time::timeout(TIMEOUT, waiting).await;
        assert!(done.is_ok(), "{name} {labels:?} is {last}, not {wanted}");
    }

    /// The lines of the log.
    fn lines(&self) -> Vec<Value> {
        fs::read_to_string(&self.log).unwrap().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a line whose message begins so.
    async fn line(&self, message: &str) -> Value {
        let waiting = async {
            loop {
                let found =
                    self.lines().into_iter().find(|line| line["message"].as_str().unwrap().starts_with(message));
                if let Some(line) = found {
                    return line;
                }
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = time::timeout(TIMEOUT, waiting).await;
        found.unwrap_or_else(|_| panic!("no line begins with '{message}': {:#?}", self.lines()))
    }

    /// A session of an outside worker.
    async fn session(&self, visitor: &Visitor) -> Session {
        visitor.cookie().await;
        let request = visitor.request("POST", "/api/v1/sessions").bearer_auth(TOKEN);
        let made: Value = visitor.send(request.json(&json!({"title": "a"}))).await.json().await.unwrap();
        Session { worker: Visitor::new(&self.process.url), id: made["id"].as_str().unwrap().to_owned() }
    }
}

fn sum(metrics: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |found: &BTreeMap<String, String>| {
        labels.iter().all(|(name, value)| found.get(*name).is_some_and(|v| v == value))
    };
    metrics.iter().filter(|((found, found_labels), _)| found == name && has(found_labels)).map(|(_, value)| value).sum()
}

fn parse(text: &str) -> BTreeMap<Series, f64> {
    let series = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once("=\"").unwrap();
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        });
        ((name.to_owned(), labels.collect()), value.parse().unwrap())
    };
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(series).collect()
}

/// A session on which a test reports.
struct Session {
    worker: Visitor,
    id: String,
}

impl Session {
    async fn report(&self, status: Value) {
        let path = format!("/api/v1/sessions/{}/status", self.id);
        let request = self.worker.request("PUT", &path).bearer_auth(TOKEN).json(&status);
        assert_eq!(self.worker.send(request).await.status(), StatusCode::OK);
    }

    fn stream(&self) -> String {
        format!("/api/v1/sessions/{}/status/stream", self.id)
    }
}

/// The series that the catalogue lists, as far as they are known beforehand, with the suffix of a histogram's count.
fn listed(redis: bool) -> BTreeMap<Series, Kind> {
    let metrics = catalogue::groups(redis).flat_map(|group| group.metrics);
    let series = metrics.flat_map(|metric| {
        let histogram = matches!(metric.kind, Kind::Histogram(_));
        let name = if histogram { format!("{}_count", metric.name) } else { metric.name.to_owned() };
        metric.series().into_iter().map(move |labels| {
            let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            ((name.clone(), labels.collect()), metric.kind)
        })
    });
    series.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_series_is_there_from_the_start() {
    let node = Node::start(&[], &[]);
    let text = node.text().await;
    let found = parse(&text);
    let listed = listed(false);
    let missing: Vec<_> = listed.keys().filter(|series| !found.contains_key(*series)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for metric in catalogue::groups(false).flat_map(|group| group.metrics) {
        let kind = format!("# TYPE {} {}\n", metric.name, metric.kind.as_str());
        assert!(text.contains(&kind), "{kind}");
        assert!(
            text.contains(&format!("# HELP {} {}", metric.name, &metric.meaning[..metric.meaning.len().min(20)])),
            "{}",
            metric.name
        );
        if let Kind::Histogram(bounds) = metric.kind {
            let buckets = found.keys().filter(|(name, _)| *name == format!("{}_bucket", metric.name)).count();
            assert_eq!(buckets, (bounds.len() + 1) * metric.series().len(), "{}", metric.name);
        }
    }
    // Only what this node has done so far has a value.
    for (series, kind) in &listed {
        let own =
            ["process_", "hark_database_", "hark_http_requests_total"].iter().any(|own| series.0.starts_with(own));
        if *kind != Kind::Gauge && !own {
            assert_eq!(found[series], 0.0, "{series:?}");
        }
    }
    // Nothing else is there.
    let of_machine: BTreeSet<&str> = catalogue::metrics()
        .filter(|m| m.labels.iter().any(|l| matches!(l.values, Values::Found(_))))
        .map(|m| m.name)
        .collect();
    let others = found.keys().filter(|series| {
        let part =
            ["_bucket", "_sum"].iter().any(|end| series.0.ends_with(end) && !series.0.starts_with("hark_sessions_"));
        !part && !listed.contains_key(series) && !of_machine.contains(series.0.as_str())
    });
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&Series>::new());
}

/// The names of metrics in the code are those of the catalogue. Those of the process come from a library.
#[test]
fn the_catalogue_has_the_metrics_of_the_code() {
    fn collect(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for start in ["counter!(", "gauge!(", "histogram!("] {
                    for rest in text.split(start).skip(1) {
                        let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                        let name = name.unwrap_or_else(|| panic!("a metric without a name in {}", path.display()));
                        names.insert(name.to_owned());
                    }
                }
            }
        }
    }
    let mut used = BTreeSet::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut used);
    let listed: BTreeSet<String> = catalogue::metrics()
        .map(|metric| metric.name.to_owned())
        .filter(|name| !name.starts_with("process_"))
        .collect();
    let unlisted: Vec<_> = used.difference(&listed).collect();
    assert!(unlisted.is_empty(), "src/server/telemetry/catalogue.rs lacks {unlisted:?}");
    let unused: Vec<_> = listed.difference(&used).collect();
    assert!(unused.is_empty(), "nothing counts {unused:?}");
}

/// Only what was published while a stream was open counts as a delivery to it: neither the snapshot that a new stream begins
/// with, nor what a client that was away catches up on.
#[tokio::test(flavor = "multi_thread")]
async fn only_live_deliveries_are_timed() {
    for path in ["direct", "hyper"] {
        let node = Node::start(&["--stream-path", path, "--max-streams-per-owner", "100"], &[]);
        let me = node.process.visitor();
        let session = node.session(&me).await;
        session.report(json!({"status": "processing", "progress": 1.0})).await;
        let mut one = Sse::new(me.get(&session.stream()).await);
        let first = one.next().await.unwrap();
        let mut all = Sse::new(me.get("/api/v1/status/stream").await);
        while all.next().await.unwrap().event != "heartbeat" {}
        let mut delivered = 0;
        for step in 0..20 {
            session.report(json!({"progress": f64::from(step + 2)})).await;
            for stream in [&mut one, &mut all] {
                assert_eq!(stream.next().await.unwrap().event, "status");
                delivered += 1;
            }
        }
        session.report(json!({"status": "completed"})).await;
        assert_eq!(all.next().await.unwrap().json()["status"], "completed");
        drop(all);
        delivered += 1 + one.rest().await.len();
        let timed = async || node.value("hark_publish_to_write_seconds_count", &[]).await;
        node.becomes("hark_publish_to_write_seconds_count", &[], delivered as f64).await;
        for reconnect in 0..50 {
            let request = me.request("GET", &session.stream());
            let request = if reconnect % 2 == 0 { request } else { request.header("last-event-id", &first.id) };
            let events = Sse::new(me.send(request).await).rest().await;
            assert_eq!(events.last().unwrap().json()["status"], "completed");
        }
        assert_eq!(timed().await, delivered as f64, "{path}: after 50 connects to a session that had ended");
        // Each stream was opened, had a first event, and was closed.
        for (name, labels) in [
            ("hark_stream_connect_seconds_count", &[][..]),
            ("hark_stream_open_seconds_count", &[]),
            ("hark_streams_opened_total", &[]),
            ("hark_http_requests_total", &[("kind", "stream"), ("status", "2xx")]),
        ] {
            node.becomes(name, labels, 52.0).await;
        }
        node.becomes("hark_streams_closed_total", &[("reason", "ended")], 51.0).await;
        node.becomes("hark_streams_closed_total", &[("reason", "client")], 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_kind_and_polls_by_their_bytes() {
    let node = Node::start(&[], &[]);
    let me = node.process.visitor();
    let session = node.session(&me).await;
    session.report(json!({"status": "processing", "message": "so ".repeat(300)})).await;
    let before = node.metrics().await;
    let one = format!("/api/v1/sessions/{}/status", session.id);
    let mut bytes = 0;
    let (mut plain, mut compressed) = (0, 0);
    for (path, encoding) in
        [(one.as_str(), "identity"), (&one, "gzip"), ("/api/v1/status", "br"), ("/api/v1/status", "identity")]
    {
        for _ in 0..3 {
            let answer = me.send(me.request("GET", path).header("accept-encoding", encoding)).await;
            assert_eq!(answer.status(), StatusCode::OK);
            // The client decompresses nothing.
            let length = answer.bytes().await.unwrap().len();
            bytes += length;
            *if encoding == "identity" { &mut plain } else { &mut compressed } += length;
        }
    }
    assert!(compressed < plain / 2, "{compressed} and {plain}");
    let tag = me.get(&one).await.headers()["etag"].clone();
    bytes += me.get(&one).await.bytes().await.unwrap().len() * 2;
    for _ in 0..5 {
        let answer = me.send(me.request("GET", &one).header("if-none-match", tag.clone())).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    }
    assert_eq!(node.process.visitor().get(&one).await.status(), StatusCode::NOT_FOUND, "somebody else's");
    me.get(&format!("/api/v1/sessions/{}/segments", session.id)).await;
    me.get("/pkg/none.js").await;
    me.get("/").await;
    let refused = me.request("PUT", &one).json(&json!({}));
    assert_eq!(me.send(refused).await.status(), StatusCode::UNAUTHORIZED);
    me.post(&format!("/api/v1/sessions/{}/cancel", session.id)).await;
    me.upload("a.wav", b"no recording".to_vec(), &[]).await;
    me.send(me.request("POST", "/api/v1/reports").body("no report")).await;
    let after = node.metrics().await;
    let grown = |name: &str, labels: &[(&str, &str)]| sum(&after, name, labels) - sum(&before, name, labels);
    assert_eq!(grown("hark_poll_bytes_total", &[]), bytes as f64);
    assert_eq!(grown("hark_polls_total", &[("answer", "200")]), 14.0);
    assert_eq!(grown("hark_polls_total", &[("answer", "304")]), 5.0);
    let kinds = [
        ("poll", "2xx", 14.0),
        ("poll", "3xx", 5.0),
        ("poll", "4xx", 1.0),
        ("segments", "2xx", 1.0),
        ("file", "4xx", 1.0),
        ("page", "2xx", 1.0),
        ("worker", "4xx", 1.0),
        ("action", "2xx", 1.0),
        ("upload", "4xx", 1.0),
        ("report", "4xx", 1.0),
        // The request for the metrics is counted after they were made.
        ("operator", "2xx", 1.0),
        ("stream", "2xx", 0.0),
        ("other", "2xx", 0.0),
        ("other", "4xx", 0.0),
    ];
    for (kind, status, n) in kinds {
        assert_eq!(grown("hark_http_requests_total", &[("kind", kind), ("status", status)]), n, "{kind} {status}");
    }
    assert_eq!(grown("hark_uploads_refused_total", &[("reason", "unreadable")]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_code() {
    let node = Node::start(&["--worker-silence-secs", "1"], &[]);
    let me = node.process.visitor();
    for error in [json!({"code": "engine_error", "message": "a"}), json!({"code": "made_up", "message": "b"})] {
        let session = node.session(&me).await;
        session.report(json!({"status": "failed", "error": error})).await;
    }
    // This one's worker goes silent.
    node.session(&me).await.report(json!({"status": "processing"})).await;
    for (code, n) in [("engine_error", 1.0), ("other", 1.0), ("worker_lost", 1.0)] {
        node.becomes("hark_sessions_failed_total", &[("code", code)], n).await;
    }
    assert_eq!(node.value("hark_sessions_failed_total", &[]).await, 3.0);
    assert_eq!(node.value("hark_sessions_ended_total", &[("status", "failed")]).await, 3.0);
    assert_eq!(node.value("hark_sessions_timed_out_total", &[]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_and_its_machine_are_measured() {
    let node = Node::start(&[], &[]);
    let metrics = node.metrics().await;
    let value = |name: &str| sum(&metrics, name, &[]);
    let proc = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", node.process.id())).unwrap();
    let status = proc("status");
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let resident = field("VmRSS:") * 1024.0;
    let measured = value("process_resident_memory_bytes");
    assert!(measured > resident / 2.0 && measured < resident * 2.0, "{measured} of {resident}");
    assert!((value("process_threads") - field("Threads:")).abs() < 10.0);
    let open = fs::read_dir(format!("/proc/{}/fd", node.process.id())).unwrap().count() as f64;
    assert!((value("process_open_fds") - open).abs() < 20.0, "{} of {open}", value("process_open_fds"));
    assert!(value("process_max_fds") >= value("process_open_fds"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - value("process_start_time_seconds")).abs() < TIMEOUT.as_secs_f64());
    assert_eq!(value("hark_cpus"), std::thread::available_parallelism().unwrap().get() as f64);
    assert!(value("hark_memory_limit_bytes") > measured);
    for folder in ["data", "recordings"] {
        let [free, size] =
            ["hark_disk_free_bytes", "hark_disk_size_bytes"].map(|name| sum(&metrics, name, &[("folder", folder)]));
        let disk = rustix::fs::statvfs(&node.process.data).unwrap();
        assert_eq!(size, (disk.f_blocks * disk.f_frsize) as f64);
        assert!(free > 0.0 && free < size, "{free} of {size}");
    }
    assert_eq!(value("hark_database_up"), 1.0);
    assert_eq!(value("hark_build_info"), 1.0);
    // A request for sessions is at least a query.
    let visitor = node.process.visitor();
    for _ in 0..10 {
        visitor.json("/api/v1/sessions").await;
    }
    let after = node.metrics().await;
    let queries = sum(&after, "hark_database_queries_total", &[]);
    assert!(queries >= value("hark_database_queries_total") + 10.0, "{queries}");
    assert_eq!(queries, sum(&after, "hark_database_query_seconds_count", &[]));
    assert_eq!(sum(&after, "hark_database_errors_total", &[]), 0.0);
    let spent = sum(&after, "hark_database_query_seconds_sum", &[]);
    assert!(spent > 0.0 && spent < TIMEOUT.as_secs_f64(), "{spent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_measured_where_there_is_one() {
    let mut redis = Redis::start();
    let node = Node::start(&[], &[("REDIS_URL", format!("redis://127.0.0.1:{}/", redis.port))]);
    node.becomes("hark_redis_up", &[], 1.0).await;
    let metrics = node.metrics().await;
    let missing: Vec<_> = listed(true).into_keys().filter(|series| !metrics.contains_key(series)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(sum(&metrics, "hark_redis_errors_total", &[]), 0.0);
    let pinged = async {
        while node.value("hark_redis_ping_seconds_count", &[]).await < 1.0 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, pinged).await.expect("a ping is answered");
    redis.stop();
    node.becomes("hark_redis_up", &[], 0.0).await;
    let failed = async {
        while node.value("hark_redis_errors_total", &[]).await < 1.0 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, failed).await.expect("the broken connection is counted");
    redis.resume();
    node.becomes("hark_redis_up", &[], 1.0).await;
}

/// The owner's id, which its cookie holds and the log must not have.
fn owner_id(cookie: &str) -> String {
    let (value, _seconds) = cookie.rsplit_once('.').unwrap();
    let (_, id) = value.split_at(value.len() - 32);
    assert!(id.bytes().all(|b| b.is_ascii_hexdigit()), "{cookie}");
    id.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_for_each_stream_and_each_refusal() {
    let node = Node::start(&["--max-streams-per-owner", "1", "--node-name", "first"], &[]);
    let me = node.process.visitor();
    let session = node.session(&me).await;
    session.report(json!({"status": "processing"})).await;
    let mut stream = Sse::new(me.get(&session.stream()).await);
    stream.next().await.unwrap();
    // A second one is refused.
    let refused = Sse::new(me.get("/api/v1/status/stream").await).rest().await;
    assert_eq!(refused[0].data, r#"{"reason":"limit"}"#);
    session.report(json!({"progress": 50.0})).await;
    session.report(json!({"status": "completed"})).await;
    let events = 1 + stream.rest().await.len() as u64;

    let line = node.line("a status stream closed").await;
    assert_eq!(
        (&line["level"], &line["stream"], &line["reason"]),
        (&"INFO".into(), &"session".into(), &"ended".into())
    );
    assert_eq!((&line["session_id"], &line["events"]), (&json!(session.id), &json!(events)));
    assert_eq!(line["bytes"].as_f64().unwrap(), node.value("hark_stream_bytes_total", &[]).await);
    assert!(line["duration_ms"].is_u64() && line["opened"].is_string(), "{line}");
    let named = |line: &&str| line.contains("a status stream closed") && line.contains(r#""first""#);
    assert!(fs::read_to_string(&node.log).unwrap().lines().any(|line| named(&line)), "the node's name: {line}");
    let owner = line["owner"].as_str().unwrap().to_owned();
    assert!(owner.len() == 12 && owner.bytes().all(|b| b.is_ascii_hexdigit()), "{owner}");
    let line = node.line("a status stream was refused").await;
    assert_eq!((&line["limit"], &line["owner"]), (&"owner".into(), &owner.as_str().into()));

    // One whose client goes away.
    let gone = Sse::new(me.get("/api/v1/status/stream").await);
    drop(gone);
    let closed = async {
        while !node.lines().iter().any(|line| line["stream"] == "owner" && line["reason"] == "client") {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(TIMEOUT, closed).await.expect("a line about the client that went away");

    me.upload("a.wav", b"no recording".to_vec(), &[]).await;
    let line = node.line("a recording was refused").await;
    assert_eq!((&line["code"], &line["owner"]), (&"unreadable".into(), &owner.as_str().into()));
    me.send(me.request("POST", "/api/v1/reports").body("no report")).await;
    assert_eq!(node.line("a page's report was refused").await["code"], "invalid_report");

    let requests: Vec<Value> = node
        .lines()
        .into_iter()
        .filter(|line| line["message"].as_str().unwrap().starts_with("an outside worker's"))
        .collect();
    let statuses: Vec<_> = requests.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 200, 200, 200]);
    assert_eq!((&requests[1]["session_id"], &requests[1]["method"]), (&json!(session.id), &json!("PUT")));

    let text = fs::read_to_string(&node.log).unwrap();
    assert!(!text.contains(&owner_id(&me.cookie().await)), "the log has an owner's id:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_has_a_line() {
    let node = Node::start(&["--max-connections-per-address", "1"], &[]);
    let _held = TcpStream::connect(node.process.url.strip_prefix("http://").unwrap()).unwrap();
    let refused = async { while node.process.visitor().get("/").await.status() != StatusCode::TOO_MANY_REQUESTS {} };
    time::timeout(TIMEOUT, refused).await.expect("a connection is refused");
    assert_eq!(node.line("a connection was refused").await["limit"], "address");
}

/// Lines beyond the rate are left out, and one line says how many.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_limited_number_of_lines_in_a_second() {
    let node = Node::start(&["--log-rate", "2"], &[]);
    let me = node.process.visitor();
    for _ in 0..40 {
        let request = me.request("PUT", "/api/v1/sessions/x/status").json(&json!({}));
        assert_eq!(me.send(request).await.status(), StatusCode::UNAUTHORIZED);
    }
    let counts = || {
        let lines = node.lines();
        let about = |message: &str| {
            lines.iter().filter(|line| line["message"].as_str().unwrap().contains(message)).cloned().collect::<Vec<_>>()
        };
        let left_out: u64 =
            about("requests of outside workers were left out").iter().map(|l| l["left_out"].as_u64().unwrap()).sum();
        (about("an outside worker's request").len() as u64, left_out)
    };
    let told = async {
        while counts().0 + counts().1 < 40 {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(time::timeout(TIMEOUT, told).await.is_ok(), "{:?}", counts());
    let (written, left_out) = counts();
    assert_eq!(written + left_out, 40);
    assert!(left_out > 0, "40 requests took 20 seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_measures_nothing_if_it_is_told_so() {
    let node = Node::start(&["--monitoring", "false"], &[]);
    let me = node.process.visitor();
    let session = node.session(&me).await;
    let mut stream = Sse::new(me.get(&session.stream()).await);
    stream.next().await.unwrap();
    session.report(json!({"status": "completed"})).await;
    assert_eq!(stream.rest().await.last().unwrap().json()["status"], "completed");
    let answer = me.get("/metrics").await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(answer.text().await.unwrap().contains("HARK_MONITORING"));
    // Other lines are there.
    node.line("an outside worker's request").await;
    assert!(node.lines().iter().all(|line| !line["message"].as_str().unwrap().starts_with("a status stream closed")));

    let folder = TempDir::new().unwrap();
    let webhook = [("HARK_ALERT_WEBHOOK", "http://127.0.0.1:9/".to_owned())];
    let output = Setup::new(&folder.path().join("data"), &["--monitoring", "false"]).env(&webhook).refused();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("HARK_MONITORING"), "{said}");
}

/// The steps of a session by their names; of steps that happen again the first that began.
fn steps_by_name(steps: &[Step], id: &str) -> BTreeMap<String, Step> {
    let trace = Uuid::parse_str(id).unwrap().into_bytes();
    let mut named: BTreeMap<String, Step> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.span.trace_id == trace) {
        let earliest = named.entry(step.span.name.clone()).or_insert_with(|| step.clone());
        if step.span.start_time_unix_nano < earliest.span.start_time_unix_nano {
            *earliest = step.clone();
        }
    }
    named
}

/// The parent of each step must be this: none, the first step of the session, or another step.
fn check_parents(named: &BTreeMap<String, Step>, id: &str, parents: &[(&str, &str)]) {
    let names: BTreeSet<&str> = named.keys().map(String::as_str).collect();
    assert_eq!(names, parents.iter().map(|(name, _)| *name).collect());
    for (name, parent) in parents {
        let wanted = named.get(*parent).map_or(&[][..], |parent| &parent.span.span_id);
        assert_eq!(named[*name].span.parent_span_id, wanted, "{name}");
    }
    // So others can add steps of their own to the trace.
    let first = named.values().find(|step| step.span.parent_span_id.is_empty()).unwrap();
    assert_eq!(first.span.span_id, Uuid::parse_str(id).unwrap().as_bytes()[8..]);
}

const STEPS: [(&str, &str); 11] = [
    ("upload", ""),
    ("probe", "upload"),
    ("keep", "upload"),
    ("queue", "upload"),
    ("attempt", "upload"),
    ("decode", "attempt"),
    ("engine", "attempt"),
    ("load model", "engine"),
    ("store", "attempt"),
    ("publish", "attempt"),
    ("page", "upload"),
];

/// Settings of OpenTelemetry with which nothing is sent before the node stops.
fn only_at_the_stop(collector: &Collector) -> [(&'static str, String); 2] {
    [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.clone()), ("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_has_the_steps_of_its_session() {
    let collector = Collector::start().await;
    let folder = TempDir::new().unwrap();
    let engine = support::pitch_engine(folder.path(), 0.2);
    let mut env = vec![
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret".to_owned()),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("HARK_ENGINE", "command".to_owned()),
    ];
    env.extend(only_at_the_stop(&collector));
    let mut node = Node::start(&["--engine-command", &engine, "--node-name", "first"], &env);
    let me = node.process.visitor();
    let id = transcribe(&me, &me).await;
    let lines = me.json(&format!("/api/v1/sessions/{id}/status")).await["segments"].as_u64().unwrap() as usize;
    assert_eq!(collector.requests().len(), 0, "before the stop");
    node.process.terminate();

    let steps = collector.steps();
    let named = steps_by_name(&steps, &id);
    check_parents(&named, &id, &STEPS);
    let began = |name: &str| named[name].span.start_time_unix_nano;
    let ended = |name: &str| named[name].span.end_time_unix_nano;
    for step in &steps {
        assert_eq!(step.span.trace_id, Uuid::parse_str(&id).unwrap().into_bytes(), "{step:?}");
        assert!(step.span.start_time_unix_nano <= step.span.end_time_unix_nano, "{step:?}");
        let resource = [
            ("service.name", "hark"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", "first"),
            ("deployment.environment.name", "test"),
        ];
        assert!(resource.iter().all(|(name, value)| step.resource[*name] == *value), "{step:?}");
    }
    assert!(began("upload") < began("probe") && ended("keep") <= ended("upload"));
    assert!(began("upload") < began("attempt") && began("attempt") <= began("decode"));
    assert!(began("decode") <= began("engine") && ended("load model") <= ended("engine"));
    assert!(ended("engine") <= ended("attempt") && began("load model") < began("store"));
    assert_eq!(named["upload"].attributes["hark.session_id"], id);
    assert_eq!(named["attempt"].attributes["hark.attempt"], "1");
    assert_eq!(named["attempt"].attributes["hark.engine"], "command");
    assert_eq!(named["queue"].attributes["hark.session_id"], id);
    // Every line is stored, published and delivered, and so is the end.
    assert!(lines > 1, "{lines}");
    for name in ["store", "publish", "page"] {
        assert_eq!(steps.iter().filter(|step| step.span.name == name).count(), lines + 1, "{name}");
    }
    let events =
        |event: &str| steps.iter().filter(|s| s.attributes.get("hark.event").is_some_and(|e| e == event)).count();
    assert_eq!((events("segment"), events("end")), (lines, 1));
    let heads = collector.requests();
    assert!(!heads.is_empty() && heads.iter().all(|head| head["authorization"] == "Bearer secret"), "{heads:?}");
    assert!(heads.iter().all(|head| head["content-encoding"] == "gzip"), "{heads:?}");
}

/// Has somebody upload a recording to one node and watch all sessions on another, until it is transcribed. Returns the session.
async fn transcribe(uploads: &Visitor, watches: &Visitor) -> String {
    uploads.cookie().await;
    let watches = uploads.at(&watches.url);
    let mut stream = Sse::new(watches.get("/api/v1/status/stream").await);
    while stream.next().await.unwrap().event != "heartbeat" {}
    // A tone each other second, which is a line each.
    let tones = (0..8 * 16_000).map(|n| if n / 16_000 % 2 == 0 { ((n as f32 * 0.1).sin() * 6000.0) as i16 } else { 0 });
    let id = uploads.session("a.wav", support::wav_of(tones), &[]).await;
    let end = loop {
        let event = stream.next().await.unwrap();
        if event.event == "status" && event.json()["status"] == "completed" {
            break event.json();
        }
    };
    assert_eq!(end["session_id"], id);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn several_nodes_add_to_one_trace() {
    let collector = Collector::start().await;
    let (postgres, redis) = tokio::task::spawn_blocking(|| (Postgres::start(), Redis::start())).await.unwrap();
    let folder = TempDir::new().unwrap();
    let recordings = folder.path().join("recordings");
    fs::create_dir(&recordings).unwrap();
    let mut env = vec![
        ("DATABASE_URL", postgres.database("traces")),
        ("REDIS_URL", format!("redis://127.0.0.1:{}/", redis.port)),
        ("HARK_RECORDINGS_URL", format!("file://{}", recordings.display())),
        ("HARK_ENGINE", "command".to_owned()),
        ("HARK_ENGINE_COMMAND", support::pitch_engine(folder.path(), 0.2)),
    ];
    env.extend(only_at_the_stop(&collector));
    let start = |name: &str, workers: &str| Node::start(&["--node-name", name, "--workers", workers], &env);
    let mut nodes = [start("first", "0"), start("works", "1"), start("watched", "0")];
    for node in &nodes {
        node.becomes("hark_redis_up", &[], 1.0).await;
    }
    let [uploads, _, watches] = nodes.each_ref().map(|node| node.process.visitor());
    let id = transcribe(&uploads, &watches).await;
    nodes.iter_mut().for_each(|node| node.process.terminate());

    let steps = collector.steps();
    check_parents(&steps_by_name(&steps, &id), &id, &STEPS);
    let mut nodes_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for step in &steps {
        nodes_of.entry(&step.span.name).or_default().insert(&step.resource["service.instance.id"]);
    }
    for (name, _) in STEPS {
        let node = match name {
            "upload" | "probe" | "keep" => "first",
            "page" => "watched",
            _ => "works",
        };
        assert_eq!(nodes_of[name], BTreeSet::from([node]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_traces_that_are_sampled_are_sent() {
    let collector = Collector::start().await;
    const SESSIONS: usize = 40;
    for (sampler, sent) in [("always_off", 0..=0), ("traceidratio", 5..=35), ("parentbased_traceidratio", 5..=35)] {
        let before = collector.steps().len();
        let mut env = vec![
            ("OTEL_TRACES_SAMPLER", sampler.to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5".to_owned()),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=replaced".to_owned()),
            ("OTEL_SERVICE_NAME", "another".to_owned()),
        ];
        env.extend(only_at_the_stop(&collector));
        let mut node = Node::start(&[], &env);
        let me = node.process.visitor();
        for _ in 0..SESSIONS {
            node.session(&me).await.report(json!({"status": "completed"})).await;
        }
        node.process.terminate();
        let steps = collector.steps().split_off(before);
        let mut traces: BTreeMap<&[u8], BTreeSet<&str>> = BTreeMap::new();
        for step in &steps {
            assert_eq!(step.resource["service.name"], "another");
            traces.entry(&step.span.trace_id).or_default().insert(&step.span.name);
        }
        assert!(sent.contains(&traces.len()), "{sampler}: {} of {SESSIONS}", traces.len());
        let whole = BTreeSet::from(["announce", "store", "publish"]);
        assert!(traces.values().all(|names| *names == whole), "{sampler}: {traces:?}");
    }
}

/// A receiver that is away costs one line in the log, however many batches it doesn't get.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_receiver_is_logged_once() {
    let collector = Collector::start().await;
    collector.refuse(true);
    let env = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/v1/traces", collector.url)),
        ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ];
    let node = Node::start(&["--node-name", "first"], &env);
    let me = node.process.visitor();
    let until = async |what: &dyn Fn() -> bool| {
        let waiting = async {
            while !what() {
                node.session(&me).await;
                time::sleep(Duration::from_millis(30)).await;
            }
        };
        assert!(time::timeout(TIMEOUT, waiting).await.is_ok(), "{:#?}", node.lines());
    };
    until(&|| collector.requests().len() > 5).await;
    collector.refuse(false);
    let about = |message: &str| {
        let lines = node.lines().into_iter();
        lines.filter(|line| line["message"].as_str().unwrap().starts_with(message)).collect::<Vec<_>>()
    };
    until(&|| !about("traces are sent again").is_empty()).await;
    let lost = about("traces are sent again")[0]["lost"].as_u64().unwrap();
    assert!(lost >= 5, "{lost}");
    let said = about("traces can't be sent");
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0]["message"].as_str().unwrap().contains(&collector.url), "{said:#?}");
    assert_eq!(said[0]["level"], "WARN");
    let named = |line: &&str| line.contains("traces can't be sent") && line.contains(r#""first""#);
    assert_eq!(fs::read_to_string(&node.log).unwrap().lines().filter(named).count(), 1, "the node's name: {said:#?}");
    assert_eq!(about("OTEL_EXPORTER_OTLP_PROTOCOL").len(), 1);
    // The SDK's own lines about batches aren't there.
    assert!(node.lines().iter().all(|line| line["level"] != "ERROR"), "{:#?}", node.lines());
}

#[test]
fn an_address_of_a_receiver_without_a_scheme_is_refused() {
    let folder = TempDir::new().unwrap();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318".to_owned())];
    let output = Setup::new(&folder.path().join("data"), &[]).env(&env).refused();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT must be an address like"), "{said}");
}
