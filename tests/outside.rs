//! Workers outside Hark that report on many sessions at once: several reports in one request, on both databases; and
//! messages over Redis while the database stands still; and what watchers learn after a crash of Hark.

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

use postgres::Postgres;
use process::Setup;
use redis::Redis;
use reqwest::{Body, StatusCode, header};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, Executor, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};
use support::{Sse, TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::time;

const TOKEN: &str = "token-of-the-tests";
const BATCH: &str = "/api/v1/status/batch";
/// More than are written in one statement.
const MANY: usize = 230;

async fn node(database: Option<&str>, flags: &[&str]) -> TestApp {
    let mut all = vec!["--worker-token", TOKEN, "--workers", "0"];
    all.extend(database.iter().flat_map(|url| ["--database-url", url]));
    all.extend(flags);
    TestApp::with(&all).await
}

/// Two nodes with a PostgreSQL and a Redis.
struct Pair {
    nodes: [TestApp; 2],
    postgres: Postgres,
    redis: Redis,
    _recordings: TempDir,
}

impl Pair {
    async fn start() -> Self {
        let servers = tokio::task::spawn_blocking(|| (Postgres::start(), Redis::start()));
        let (postgres, redis) = servers.await.unwrap();
        let recordings = TempDir::new().unwrap();
        let (database, folder) = (postgres.database("hark"), format!("file://{}", recordings.path().display()));
        let address = format!("redis://127.0.0.1:{}/", redis.port);
        let secret = "a5".repeat(64);
        let flags = ["--redis-url", &*address, "--recordings-url", &folder, "--secret", &secret];
        let nodes = [node(Some(&database), &flags).await, node(Some(&database), &flags).await];
        Self { nodes, postgres, redis, _recordings: recordings }
    }
}

/// Creates a session of an outside worker; returns its id.
async fn session(me: &Visitor) -> String {
    let request = me.request("POST", "/api/v1/sessions").bearer_auth(TOKEN).json(&json!({"duration_total": 100.0}));
    let answer = me.send(request).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn sessions(me: &Visitor, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(session(me).await);
    }
    ids
}

/// Sends a batch; returns the status of the answer and its JSON.
async fn send(me: &Visitor, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = me.request("POST", BATCH).bearer_auth(TOKEN).header(header::CONTENT_TYPE, "application/x-ndjson");
    let answer = me.send(request.body(body)).await;
    (answer.status(), answer.json().await.unwrap())
}

/// Sends reports that can be read; returns what became of each.
async fn report(me: &Visitor, lines: &[Value]) -> Vec<Value> {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (status, answer) = send(me, body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let results = answer["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), lines.len());
    results
}

/// What became of lines, in short: the version or the error's code.
fn short(results: &[Value]) -> Vec<String> {
    results
        .iter()
        .map(|result| match &result["error"] {
            Value::Null => result["version"].to_string(),
            error => error["code"].as_str().unwrap().to_owned(),
        })
        .collect()
}

/// Reports one status; returns the status of the answer and its JSON.
async fn put(me: &Visitor, id: &str, report: &Value) -> (StatusCode, Value) {
    let request = me.request("PUT", &format!("/api/v1/sessions/{id}/status")).bearer_auth(TOKEN).json(report);
    let answer = me.send(request).await;
    (answer.status(), answer.json().await.unwrap())
}

async fn status(me: &Visitor, id: &str) -> Value {
    me.json(&format!("/api/v1/sessions/{id}/status")).await
}

async fn every_line_has_its_result(database: Option<&str>) {
    let app = node(database, &[]).await;
    let me = app.visitor();
    me.cookie().await;
    let [a, b, c] = [session(&me).await, session(&me).await, session(&me).await];
    let own = me.session("own.wav", wav(1.0, 0.5), &[]).await;
    let nobodys = "0192f0c1-7c1e-7bb0-8000-000000000001";
    let mut stream = Sse::new(me.get(&format!("/api/v1/sessions/{a}/status/stream")).await);
    assert_eq!(stream.next().await.unwrap().json()["version"], 1);
    let line = |id: &str, mut report: Value| {
        report["session_id"] = json!(id);
        report.to_string()
    };
    let lines = [
        (line(&a, json!({"version": 5, "stage": "transcribing", "progress": 10.0})), Some(&*a), "5"),
        (line(&b, json!({"version": 2, "stage": "decoding"})), Some(&b), "2"),
        (line(&a, json!({"version": 5, "progress": 90.0})), Some(&a), "stale_version"),
        (line(nobodys, json!({"progress": 1.0})), Some(nobodys), "not_found"),
        (line(&a, json!({"progress": 20.0, "message": "“half” \u{0}a line"})), Some(&a), "6"),
        (line(&own, json!({"progress": 1.0})), Some(&own), "not_outside"),
        ("{\"session_id\":".to_owned(), None, "bad_request"),
        (json!({"progress": 1.0}).to_string(), None, "invalid_report"),
        (line(&b, json!({"progress": "half"})), Some(&b), "invalid_report"),
        (line(&c, json!({"message": "m".repeat(65_536)})), None, "too_large"),
        (line(&b, json!({"status": "completed"})), Some(&b), "3"),
        (line(&b, json!({"version": 9})), Some(&b), "ended"),
        (line(&c, json!({"status": "failed", "error": {"code": "gpu", "message": "It is gone."}})), Some(&c), "2"),
    ];
    // With lines that end in both ways, blank ones, and a last one that doesn't end; and in pieces.
    let ends = ["\n", "\r\n", "\n\n", "\r\n \r\n"].into_iter().cycle();
    let mut body: String = lines.iter().zip(ends).map(|((line, ..), end)| format!("{line}{end}")).collect();
    body.truncate(body.trim_end().len());
    let pieces: Vec<_> = body.into_bytes().chunks(37).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let (answered, answer) = send(&me, Body::wrap_stream(futures::stream::iter(pieces))).await;
    assert_eq!(answered, StatusCode::OK, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(short(results), lines.iter().map(|(_, _, expected)| *expected).collect::<Vec<_>>());
    let ids: Vec<Option<&str>> = results.iter().map(|result| result["session_id"].as_str()).collect();
    assert_eq!(ids, lines.iter().map(|(_, id, _)| *id).collect::<Vec<_>>());
    assert_eq!(results[0], json!({"session_id": a, "version": 5}));
    let why = results[9]["error"]["message"].as_str().unwrap();
    assert!(why.contains("larger than the 64 KiB"), "{why}");

    // Watchers get the last that was taken of each session, and the store has it.
    let newest = stream.next().await.unwrap().json();
    assert_eq!(
        (&newest["version"], &newest["progress"], &newest["stage"]),
        (&json!(6), &json!(20.0), &json!("transcribing"))
    );
    assert_eq!(newest["message"], "“half” a line");
    let [b, c] = [status(&me, &b).await, status(&me, &c).await];
    assert_eq!((&b["status"], &b["version"], &b["progress"]), (&json!("completed"), &json!(3), &json!(100.0)));
    assert_eq!((&c["status"], &c["error"]), (&json!("failed"), &json!({"code": "gpu", "message": "It is gone."})));
    let list = me.json("/api/v1/sessions").await;
    let ended = list["sessions"].as_array().unwrap().iter().find(|s| s["id"] == b["session_id"]).unwrap();
    assert!(ended["finished_at"].is_string(), "{ended}");
    // The same again: all is known.
    let again = [json!({"session_id": a, "version": 6}), json!({"session_id": a, "version": 7})];
    assert_eq!(short(&report(&me, &again).await), ["stale_version", "7"]);
    // A report between two batches counts, too.
    let request = me.request("PUT", &format!("/api/v1/sessions/{a}/status")).bearer_auth(TOKEN);
    assert_eq!(me.send(request.json(&json!({}))).await.json::<Value>().await.unwrap(), json!({"version": 8}));
    assert_eq!(short(&report(&me, &[json!({"session_id": a})]).await), ["9"]);
    // What is only progress is stored at the latest when the node stops.
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_batch_has_its_result_on_sqlite() {
    every_line_has_its_result(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_batch_has_its_result_on_postgresql() {
    let server = Postgres::start();
    every_line_has_its_result(Some(&server.database("hark"))).await;
}

/// Sends batches on the same sessions at once, in different orders and without versions, and single reports between them.
async fn all_are_taken(doors: &[Visitor]) {
    let ids = sessions(&doors[0], MANY).await;
    let stages = ["decoding", "transcribing", "saving"];
    let batch = async |me: &Visitor, n: usize| {
        let mut ids = ids.clone();
        ids.rotate_left(n * 50);
        if n % 2 == 1 {
            ids.reverse();
        }
        let lines: Vec<Value> = (0..3)
            .flat_map(|round| ids.iter().map(move |id| json!({"session_id": id, "stage": stages[(n + round) % 3]})))
            .collect();
        report(me, &lines).await
    };
    let singles = async |me: &Visitor| {
        let mut results = Vec::new();
        for id in ids.iter().step_by(10) {
            let (_, mut result) = put(me, id, &json!({"progress": 1.0})).await;
            result["session_id"] = json!(id);
            results.push(result);
        }
        results
    };
    let last = doors.last().unwrap();
    let done = async {
        tokio::join!(batch(&doors[0], 0), batch(last, 1), batch(&doors[0], 2), batch(last, 3), singles(&doors[0]))
    };
    let (a, b, c, d, e) = time::timeout(TIMEOUT, done).await.expect("no batch waits for another for ever");
    let results: Vec<Value> = [a, b, c, d, e].concat();
    // No version was given twice.
    let mut versions = BTreeSet::new();
    for result in &results {
        let version = result["version"].as_u64().unwrap_or_else(|| panic!("{result}"));
        assert!(versions.insert((result["session_id"].as_str().unwrap(), version)), "{result} came twice");
    }
    assert_eq!(results.len(), MANY * 3 * 4 + MANY.div_ceil(10));
    for id in &ids {
        let highest = versions.range((id.as_str(), 0)..=(id.as_str(), u64::MAX)).next_back().unwrap().1;
        assert_eq!(status(&doors[0], id).await["version"], highest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_reports_at_once_are_all_taken_on_sqlite() {
    let app = node(None, &[]).await;
    let me = app.visitor();
    me.cookie().await;
    all_are_taken(&[me]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_at_two_nodes_at_once_are_all_taken() {
    let pair = Pair::start().await;
    let me = pair.nodes[0].visitor();
    me.cookie().await;
    all_are_taken(&pair.nodes.each_ref().map(|node| me.at(&node.url))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_have_limits_and_need_the_token() {
    let app = node(None, &[]).await;
    let me = app.visitor();
    me.cookie().await;
    let id = session(&me).await;
    let line = json!({"session_id": id}).to_string();
    // As many lines as there may be, all of one session, in order.
    let (answered, answer) = send(&me, format!("{line}\n").repeat(1000)).await;
    assert_eq!(answered, StatusCode::OK, "{answer}");
    let versions: Vec<u64> =
        answer["results"].as_array().unwrap().iter().map(|result| result["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (2..=1001).collect::<Vec<_>>());
    let refused = [
        (format!("{line}\n").repeat(1001).into_bytes(), StatusCode::PAYLOAD_TOO_LARGE, "too_large", "1000 lines"),
        (format!("{line}{}", " ".repeat(1 << 20)).into_bytes(), StatusCode::PAYLOAD_TOO_LARGE, "too_large", "1024 KiB"),
        (b"\n \r\n".to_vec(), StatusCode::BAD_REQUEST, "bad_request", "no lines"),
        (Vec::new(), StatusCode::BAD_REQUEST, "bad_request", "no lines"),
        (b"{\"message\":\"\xff\"}".to_vec(), StatusCode::BAD_REQUEST, "bad_request", "UTF-8 from byte 12 on"),
    ];
    for (body, expected, code, why) in refused {
        let (answered, answer) = send(&me, body).await;
        assert_eq!((answered, &answer["error"]["code"]), (expected, &json!(code)), "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(why), "{answer}");
    }
    assert_eq!(status(&me, &id).await["version"], 1001, "none of them changed anything");
    for token in ["", "other"] {
        let answer = me.send(me.request("POST", BATCH).bearer_auth(token).body(line.clone())).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    let off = TestApp::start().await;
    let (answered, answer) = send(&off.visitor(), line).await;
    assert_eq!((answered, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!("workers_off")));
}

/// A stream of all of a visitor's sessions, and what it has told: the version and the state of each.
struct Watcher {
    stream: Sse,
    known: BTreeMap<String, (u64, String)>,
    segments: BTreeMap<String, u64>,
}

impl Watcher {
    async fn start(me: &Visitor) -> Self {
        let stream = Sse::new(me.get("/api/v1/status/stream").await);
        Self { stream, known: BTreeMap::new(), segments: BTreeMap::new() }
    }

    /// Reads on until this is so.
    async fn hears(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let heard = async {
            while !is_so(self) {
                let event = self.stream.next().await.expect("the stream goes on");
                let id = event.json()["session_id"].as_str().unwrap_or_default().to_owned();
                if event.event == "segment" {
                    *self.segments.entry(id).or_default() += 1;
                } else if let Some(version) = event.json()["version"].as_u64() {
                    self.known.insert(id, (version, event.json()["status"].as_str().unwrap().to_owned()));
                }
            }
        };
        if time::timeout(TIMEOUT, heard).await.is_err() {
            panic!("never heard {what}: {:?}", self.known);
        }
    }

    /// Reads on until each of these sessions has this version.
    async fn hears_version(&mut self, ids: &[String], version: u64) {
        let all =
            |watcher: &Self| ids.iter().all(|id| watcher.known.get(id).is_some_and(|(known, _)| *known == version));
        self.hears(&format!("version {version}"), all).await;
    }
}

/// Nothing can be read or written of the sessions, as long as the lock is held; PostgreSQL itself answers, so the nodes
/// don't take it for away, and wait.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_get_every_newest_status_over_redis_while_the_database_stands_still() {
    let pair = Pair::start().await;
    let me = pair.nodes[0].visitor();
    me.cookie().await;
    let ids = sessions(&me, 20).await;
    let mut watchers = Vec::new();
    for node in &pair.nodes {
        watchers.push(Watcher::start(&me.at(&node.url)).await);
    }
    let channel = |id: &str| format!("transcription:status:{id}");
    for id in &ids {
        support::until("both nodes subscribe", async || {
            let counted = pair.redis.cli(&["pubsub", "numsub", &channel(id)]).stdout;
            counted.ends_with(b"\n2\n").then_some(())
        })
        .await;
    }
    let publish = |id: &str, message: Value| assert_eq!(pair.redis.publish(&channel(id), &message.to_string()), 2);
    let stages = ["decoding", "transcribing", "saving"];
    // Every change of the stage is to be stored at once.
    let round = |version: u64| {
        for id in &ids {
            publish(id, json!({"version": version, "stage": stages[version as usize % 3], "progress": version}));
        }
    };
    round(2);
    for watcher in &mut watchers {
        watcher.hears_version(&ids, 2).await;
    }
    let stored = async |what: &str, rows: &str| {
        let query = format!("SELECT count(*) FROM sessions WHERE {rows}");
        support::until(what, async || (pair.postgres.query("hark", &query) == ["20"]).then_some(())).await;
    };
    stored("the first statuses are stored", "version = 2").await;

    let url = format!("postgres://postgres@127.0.0.1:{}/hark", pair.postgres.port);
    let mut lock = PgConnectOptions::from_str(&url).unwrap().connect().await.unwrap();
    lock.execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waits = async || {
        let query =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%UPDATE sessions%'";
        (pair.postgres.query("postgres", query) != ["0"]).then_some(())
    };
    // A segment is stored before it is shown, and the end of its session comes after it.
    let (with_segment, others) = ids.split_first().unwrap();
    publish(with_segment, json!({"index": 0, "start": 0, "end": 1, "text": "kept"}));
    publish(with_segment, json!({"version": 9, "status": "cancelled"}));
    for version in 3..=8 {
        round(version);
        for watcher in &mut watchers {
            watcher.hears_version(others, version).await;
        }
    }
    support::until("a node waits for the database", waits).await;
    for id in others {
        publish(id, json!({"version": 9, "status": "cancelled"}));
    }
    for watcher in &mut watchers {
        watcher.hears_version(others, 9).await;
        assert_eq!(watcher.segments.get(with_segment), None, "it isn't stored yet");
    }
    waits().await.expect("the database still stands still");

    lock.close().await.unwrap();
    stored("every end is stored", "version >= 9 AND status = 'cancelled' AND finished_at IS NOT NULL").await;
    let ended = |watcher: &Watcher| {
        watcher.segments.get(with_segment) == Some(&1)
            && watcher.known.get(with_segment).is_some_and(|(_, state)| state == "cancelled")
    };
    for watcher in &mut watchers {
        watcher.hears("the segment and the end after it", ended).await;
    }
    let kept = me.get(&format!("/api/v1/sessions/{with_segment}/transcript.txt")).await.text().await.unwrap();
    assert_eq!(kept.trim(), "kept");
    // Both nodes have taken each end in, and one of them has counted it. No other test of this file cancels anything.
    let metrics = me.get("/metrics").await.text().await.unwrap();
    let counted =
        metrics.lines().find_map(|line| line.strip_prefix("hark_sessions_ended_total{status=\"cancelled\"} "));
    assert_eq!(counted, Some("20"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_progress_that_is_not_stored_yet() {
    let app = node(None, &[]).await;
    let me = app.visitor();
    let id = session(&me).await;
    for progress in [1.0, 2.0, 3.0] {
        assert_eq!(put(&me, &id, &json!({"progress": progress})).await.0, StatusCode::OK);
    }
    // Nobody has asked for the list before, so its sessions are read from the database now.
    let mut stream = Sse::new(me.get("/api/v1/status/stream").await);
    let event = time::timeout(TIMEOUT, stream.next()).await.unwrap().unwrap();
    assert_eq!((&*event.event, &event.json()["progress"]), ("status", &json!(3.0)));
    assert_eq!(me.json("/api/v1/status").await["statuses"][0]["progress"], json!(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_do_not_wait_for_a_change_to_be_stored_but_its_worker_does() {
    let app = node(None, &[]).await;
    let me = app.visitor();
    let id = session(&me).await;
    let mut stream = Sse::new(me.get(&format!("/api/v1/sessions/{id}/status/stream")).await);
    let file = app.folder.path().join("hark.sqlite");
    let options = SqliteConnectOptions::new().filename(&file);
    let mut other = options.connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();

    let change = json!({"version": 7, "stage": "transcribing"});
    let reporting = put(&me, &id, &change);
    let watching = async {
        loop {
            let event = time::timeout(TIMEOUT, stream.next()).await.unwrap().unwrap();
            if event.event == "status" && event.json()["version"] == 7 {
                return event.json()["stage"].clone();
            }
        }
    };
    tokio::pin!(reporting);
    tokio::select! {
        stage = watching => assert_eq!(stage, "transcribing"),
        answer = &mut reporting => panic!("it was answered before it was stored: {answer:?}"),
    }
    // The database is locked for longer than a statement waits.
    assert_eq!(reporting.await.0, StatusCode::SERVICE_UNAVAILABLE);
    other.execute("ROLLBACK").await.unwrap();

    let (code, answer) = put(&me, &id, &change).await;
    assert_eq!((code, &answer["version"]), (StatusCode::OK, &json!(7)));
    let (version, stage): (i64, String) = sqlx::query_as("SELECT version, stage FROM sessions WHERE id = $1")
        .bind(&id)
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!((version, &*stage), (7, "transcribing"));
    let (code, answer) = put(&me, &id, &change).await;
    assert_eq!((code, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("stale_version")));
}

/// A client that watches one session and comes back with the id of the last event that it saw.
struct Returning {
    id: String,
    last: String,
}

impl Returning {
    async fn open(&self, me: &Visitor) -> reqwest::Response {
        let path = format!("/api/v1/sessions/{}/status/stream", self.id);
        me.send(me.request("GET", &path).header("last-event-id", &self.last)).await
    }

    /// Reads on until a status is as wanted; returns it.
    async fn read(&mut self, stream: &mut Sse, is_so: impl Fn(&Value) -> bool) -> Value {
        let read = async {
            loop {
                let event = stream.next().await.unwrap_or_else(|| panic!("it ended after {}", self.last));
                if !event.id.is_empty() {
                    self.last = event.id.clone();
                }
                if event.event == "status" && is_so(&event.json()) {
                    return event.json();
                }
            }
        };
        time::timeout(TIMEOUT, read).await.expect("the status comes")
    }

    async fn come_and_read(&mut self, me: &Visitor, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut stream = Sse::new(self.open(me).await);
        self.read(&mut stream, is_so).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_leaves_watchers_behind() {
    let folder = TempDir::new().unwrap();
    let setup = Setup::new(folder.path(), &["--workers", "0"]).env(&[("HARK_WORKER_TOKEN", TOKEN.to_owned())]);
    let mut node = setup.start();
    let me = node.visitor();
    me.cookie().await;
    // Workers that name no version, that count themselves, and that number by microseconds.
    const MICROS: u64 = 1_795_000_000_000_000;
    let [plain, batched, counting, timed] =
        [session(&me).await, session(&me).await, session(&me).await, session(&me).await];
    for (id, first) in [(&plain, None), (&batched, None), (&counting, Some(2)), (&timed, Some(MICROS))] {
        let (code, answer) = put(&me, id, &json!({"version": first, "stage": "transcribing"})).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
    }
    for n in 1..=28 {
        for (id, version) in
            [(&plain, None), (&batched, None), (&counting, Some(2 + n)), (&timed, Some(MICROS + 900_000 * n))]
        {
            let (code, answer) = put(&me, id, &json!({"version": version, "progress": 2 * n})).await;
            assert_eq!(code, StatusCode::OK, "{answer}");
        }
    }
    let mut watchers = Vec::new();
    for id in [&plain, &batched, &counting, &timed] {
        let mut watcher = Returning { id: id.clone(), last: "0.0".to_owned() };
        watcher.come_and_read(&me, |status| status["progress"] == json!(56.0)).await;
        watchers.push(watcher);
    }
    let tag = me.get(&format!("/api/v1/sessions/{plain}/status")).await.headers()["etag"].clone();
    assert_eq!(watchers[0].last, "30.0");

    node.kill();
    node = setup.start();
    let me = me.at(&node.url);
    assert_eq!(status(&me, &plain).await["version"], 2, "progress is stored late");
    let mut list = Sse::new(me.get("/api/v1/status/stream").await);
    let mut streams = Vec::new();
    for watcher in &watchers {
        streams.push(Sse::new(watcher.open(&me).await));
    }
    let (code, answer) = put(&me, &plain, &json!({"progress": 61})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let results = report(&me, &[json!({"session_id": batched, "progress": 61})]).await;
    assert_eq!(results[0]["error"], Value::Null, "{results:?}");
    for (watcher, stream) in watchers.iter_mut().zip(&mut streams).take(2) {
        watcher.read(stream, |status| status["progress"] == json!(61.0)).await;
    }
    // So does who polls, however often the versions that were announced before are reached.
    let polled = me.request("GET", &format!("/api/v1/sessions/{plain}/status")).header("if-none-match", tag);
    assert_eq!(me.send(polled).await.json::<Value>().await.unwrap()["progress"], json!(61.0));
    let above = |event: &support::SseEvent| event.event == "status" && event.json()["version"].as_u64() > Some(1 << 32);
    time::timeout(TIMEOUT, async { while !list.next().await.is_some_and(|event| above(&event)) {} }).await.unwrap();
    // An end's version doesn't matter, also where the worker names one.
    let (code, answer) = put(&me, &counting, &json!({"version": 3, "status": "completed"})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    watchers[2].read(&mut streams[2], |status| status["status"] == "completed").await;
    assert!(me.post(&format!("/api/v1/sessions/{timed}/cancel")).await.status().is_success());
    watchers[3].read(&mut streams[3], |status| status["status"] == "cancelled").await;
    drop((list, streams));

    // What was announced since then gets lost by the next one, too.
    for progress in 62..70 {
        put(&me, &plain, &json!({"progress": progress})).await;
        report(&me, &[json!({"session_id": batched, "progress": progress})]).await;
    }
    for watcher in &mut watchers[..2] {
        watcher.come_and_read(&me, |status| status["progress"] == json!(69.0)).await;
    }
    node.kill();
    let node = setup.start();
    let me = me.at(&node.url);
    let results = report(&me, &[json!({"session_id": batched, "status": "failed"})]).await;
    assert_eq!(results[0]["error"], Value::Null, "{results:?}");
    assert_eq!(put(&me, &plain, &json!({"status": "completed"})).await.0, StatusCode::OK);
    watchers[0].come_and_read(&me, |status| status["status"] == "completed").await;
    watchers[1].come_and_read(&me, |status| status["status"] == "failed").await;
    for watcher in &mut watchers {
        assert_eq!(watcher.open(&me).await.status(), StatusCode::NO_CONTENT, "it knows the end");
    }
    // Only who knows this very end. Who knows more, which a crash has lost, is told what there is.
    let (version, segments) = watchers[0].last.split_once('.').unwrap();
    watchers[0].last = format!("{}.{segments}", version.parse::<u64>().unwrap() + 1);
    watchers[0].come_and_read(&me, |status| status["status"] == "completed").await;
    assert_eq!(watchers[0].open(&me).await.status(), StatusCode::NO_CONTENT);
}
