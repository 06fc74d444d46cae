//! The dashboard's figures against counts that Hark didn't make itself: sessions and their speed by the engine's own clock, and
//! what two nodes add up to by the log of the nginx before them. What pages measure is in `end2end/figures.spec.ts`.

#[path = "support/nginx.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod nginx;
#[path = "support/postgres.rs"]
#[allow(unreachable_pub, reason = "shared by test binaries")]
mod postgres;
#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod redis;
#[path = "support/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod servers;
mod support;

use hark::model::{
    Timestamp,
    figures::{HEADER_BYTES, MIN_POLLS},
};
use nginx::Nginx;
use postgres::Postgres;
use redis::Redis;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use servers::{Process, free_port};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};
use support::{Sse, TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};
use tokio_util::sync::CancellationToken;

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const WORKER_TOKEN: &str = "a-workers-token";

/// The answer to an administrator.
async fn admin(visitor: &Visitor, path: &str) -> Value {
    let request = visitor.request("GET", &format!("/api/v1/admin/{path}"));
    let answer = visitor.send(request.header("authorization", format!("Bearer {ADMIN_TOKEN}"))).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

/// Waits until the answer to an administrator is as it should be.
async fn admin_once(visitor: &Visitor, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waiting = async {
        loop {
            last = admin(visitor, path).await;
            if is_it(&last) {
                return;
            }
            time::sleep(Duration::from_millis(200)).await;
        }
    };
    let done = time::timeout(TIMEOUT, waiting).await;
    assert!(done.is_ok(), "never as it should be: {last:#}");
    last
}

/// A session of an outside worker. Returns its id.
async fn announce(visitor: &Visitor) -> String {
    visitor.cookie().await;
    let request = visitor.request("POST", "/api/v1/sessions").bearer_auth(WORKER_TOKEN);
    let made: Value = visitor.send(request.json(&json!({"title": "a"}))).await.json().await.unwrap();
    made["id"].as_str().unwrap().to_owned()
}

/// Reports on a session of an outside worker.
async fn tell(url: &str, id: &str, status: Value) {
    let worker = Visitor::new(url);
    let request = worker.request("PUT", &format!("/api/v1/sessions/{id}/status"));
    let answer = worker.send(request.bearer_auth(WORKER_TOKEN).json(&status)).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

/// An engine that says a line for each second, crashes after five of them, and notes by its own clock how long it took for
/// what it heard to the end.
fn noting_engine(folder: &Path, seconds_per_segment: f64) -> String {
    let (file, notes) = (folder.join("engine.py"), folder.join("notes"));
    let script = format!(
        r#"import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
say(type="ready", protocol=1, model="noting")
began, heard = time.monotonic(), 0
while data := sys.stdin.buffer.read(32000):
    time.sleep({seconds_per_segment})
    start, heard = heard, heard + len(data) / 32000
    if heard > 5: sys.exit(3)
    say(type="segment", start=start, end=heard, text="a line")
    say(type="progress", processed=heard)
with open(sys.argv[1], "a") as notes: notes.write("%s %s\n" % (heard, time.monotonic() - began))
say(type="done")
"#
    );
    fs::write(&file, script).unwrap();
    format!("python3 {} {}", file.display(), notes.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_counted_as_they_ended_and_their_speed_by_the_engines_clock() {
    let folder = TempDir::new().unwrap();
    let command = noting_engine(folder.path(), 0.3);
    let flags = ["--engine", "command", "--engine-command", &command, "--admin-token", ADMIN_TOKEN];
    let more = ["--worker-token", WORKER_TOKEN, "--worker-silence-secs", "1", "--max-attempts", "1", "--workers", "2"];
    let app = TestApp::on(folder, &[&flags[..], &more].concat()).await;
    let me = app.visitor();
    let mut ids = Vec::new();
    for seconds in [2.0, 3.0, 4.0, 4.5, 8.0] {
        ids.push(me.session("a.wav", wav(seconds, 5000.0), &[]).await);
    }
    for status in [
        json!({"status": "processing", "progress": 50.0}),
        json!({"status": "failed", "error": {"code": "made_up", "message": "a"}}),
        // This one's worker goes silent.
        json!({"status": "processing"}),
    ] {
        let id = announce(&me).await;
        let is_done = status.get("progress").is_some();
        tell(&app.url, &id, status).await;
        if is_done {
            tell(&app.url, &id, json!({"status": "completed"})).await;
        }
        ids.push(id);
    }
    let cancelled = announce(&me).await;
    assert_eq!(me.post(&format!("/api/v1/sessions/{cancelled}/cancel")).await.status(), StatusCode::OK);
    ids.push(cancelled);
    // How each ended, as its owner sees it.
    let (mut ended, mut codes) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    for id in &ids {
        let waiting = async {
            loop {
                let status = me.json(&format!("/api/v1/sessions/{id}/status")).await;
                if !["queued", "processing"].contains(&status["status"].as_str().unwrap()) {
                    return status;
                }
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        let status = time::timeout(TIMEOUT, waiting).await.expect("each session ends");
        *ended.entry(status["status"].as_str().unwrap().to_owned()).or_default() += 1;
        if let Some(code) = status["error"]["code"].as_str() {
            *codes.entry(code.to_owned()).or_default() += 1;
        }
    }
    assert_eq!((ended["completed"], ended["failed"], ended["cancelled"]), (5, 3, 1), "{ended:?}");
    let is_whole = |figures: &Value| {
        let sessions = &figures["current"]["sessions"];
        ["completed", "failed", "cancelled"].iter().filter_map(|n| sessions[n].as_u64()).sum::<u64>() == 9
    };
    let figures = admin_once(&me, "figures?range=hour", is_whole).await;
    let sessions = &figures["current"]["sessions"];
    for (state, count) in &ended {
        assert_eq!(sessions[state], *count, "{state}: {sessions:#}");
    }
    let counted = sessions["failures"].as_array().unwrap().iter();
    let counted =
        counted.map(|failure| (failure["name"].as_str().unwrap().to_owned(), failure["count"].as_u64().unwrap()));
    assert_eq!(counted.collect::<BTreeMap<_, _>>(), codes);
    assert_eq!((&sessions["success"]["value"], &sessions["success"]["of"]), (&(5.0 / 8.0).into(), &8.into()));
    assert_eq!(sessions["stuck"], codes["worker_lost"]);
    let promise = figures["promises"].as_array().unwrap().iter().find(|promise| promise["kind"] == "stuck").unwrap();
    assert!(promise["value"].is_null() || promise["value"] == 1.0, "{promise}");
    let point: u64 = figures["points"].as_array().unwrap().iter().filter_map(|point| point["failed"].as_u64()).sum();
    assert_eq!(point, 3);

    let notes = fs::read_to_string(app.folder.path().join("notes")).unwrap();
    let notes = notes.lines().map(|line| line.split_once(' ').unwrap());
    let (audio, work) = notes.fold((0.0, 0.0), |(audio, work), (heard, took)| {
        (audio + heard.parse::<f64>().unwrap(), work + took.parse::<f64>().unwrap())
    });
    let number = |name: &str| sessions[name].as_f64().unwrap();
    assert!((audio - 13.5).abs() < 0.01 && (number("audio_secs") - audio).abs() < 0.5, "{audio} in {sessions:#}");
    // The engine's lines are read a moment after it has written them, on a machine that has other things to do.
    assert!((number("work_secs") - work).abs() < 0.25 * work, "{work} in {sessions:#}");
    assert!((number("speed") - number("audio_secs") / number("work_secs")).abs() < 1e-9, "{sessions:#}");
    assert!(number("speed") < 1.0 / 0.3, "faster than the engine can be: {sessions:#}");
}

/// What the figures count for the headers of an answer is what an answer has.
#[tokio::test(flavor = "multi_thread")]
async fn headers_count_as_what_a_poll_has() {
    let app = TestApp::start().await;
    let me = app.visitor();
    let page = me.page().await;
    let tag = me.poll(&page).await.headers()["etag"].to_str().unwrap().to_owned();
    let address = app.url.strip_prefix("http://").unwrap();
    let cookie = me.cookie().await;
    let request = format!(
        "GET /api/v1/status HTTP/1.1\r\nhost: {address}\r\ncookie: {cookie}\r\nhark-page: {page}\r\nif-none-match: {tag}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = time::timeout(TIMEOUT, connection.read_buf(&mut answer)).await.expect("an answer").unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 304 "), "{}", String::from_utf8_lossy(&answer));
    let (length, counted) = (answer.len() as f64, HEADER_BYTES as f64);
    assert!((length - counted).abs() < 0.1 * counted, "{length} bytes: {}", String::from_utf8_lossy(&answer));
}

/// A web node as a process of its own.
struct Node {
    url: String,
    process: Process,
}

impl Node {
    async fn start(name: &str, folder: &Path, env: &[(&str, String)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_hark"));
        command.args(["serve", "--workers", "0"]).envs(env.iter().map(|(name, value)| (*name, value)));
        command.env("LEPTOS_SITE_ADDR", &address).env("HARK_NODE_NAME", name).env("HARK_DATA_DIR", folder.join(name));
        let mut process = Process::start(name, &mut command, folder.join(format!("{name}.log")));
        let url = format!("http://{address}");
        let ready = async {
            while !reqwest::get(format!("{url}/readyz")).await.is_ok_and(|answer| answer.status().is_success()) {
                process.must_run();
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(time::timeout(TIMEOUT, ready).await.is_ok(), "{name} isn't ready: {}", process.tail());
        Self { url, process }
    }
}

/// What a browser is assigned to, by its cookie. Calculated here as it is defined, not by Hark's own code.
fn polls(cookie: &str, control_percent: u32) -> bool {
    let (value, _seconds) = cookie.rsplit_once('.').unwrap();
    let (_, owner) = value.split_at(value.len() - 32);
    let hash = Sha256::digest(format!("hark: the arm of an owner {owner}"));
    u32::from_be_bytes(hash[..4].try_into().unwrap()) % 100 < control_percent
}

/// A line of nginx's log.
#[derive(Debug)]
struct Logged {
    path: String,
    status: u16,
    body: u64,
    page: String,
    node: String,
}

fn log(nginx: &Nginx) -> Vec<Logged> {
    let text = fs::read_to_string(nginx.folder.path().join("access.log")).unwrap();
    let read = |line: &str| {
        let [_, path, status, body, page, node] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (status, body) = (status.parse().unwrap(), body.parse().unwrap());
        // What is missing is '-'.
        Logged { path: path.to_owned(), status, body, page: page.replace('-', ""), node: node.to_owned() }
    };
    text.lines().filter(|line| line.starts_with("GET ")).map(read).collect()
}

/// Reads a stream until `stop`, and then leaves it. Returns the number of its events.
async fn count_events(mut stream: Response, stop: CancellationToken) -> u64 {
    let mut text = Vec::new();
    while let Some(Ok(Some(chunk))) = stop.run_until_cancelled(stream.chunk()).await {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap().lines().filter(|line| line.starts_with("event: ")).count() as u64
}

/// How often a page polls.
const POLLS: u32 = 12;
/// How old a page must be until it is believed to have polled so often: 5 times, and once for each second.
const BELIEVED: Duration = Duration::from_secs(POLLS as u64 - 5);

/// Delays of which so many were 5 to 10 ms.
fn delays(count: u64) -> Vec<u64> {
    (0..15).map(|n| if n == 1 { count } else { 0 }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_two_nodes_add_up_to_what_nginx_has_seen() {
    let folder = TempDir::new().unwrap();
    let recordings = folder.path().join("recordings");
    fs::create_dir(&recordings).unwrap();
    let servers = tokio::task::spawn_blocking(|| (Postgres::start_on(free_port()), Redis::start()));
    let (postgres, redis) = servers.await.unwrap();
    let setting = |name, value: &str| (name, value.to_owned());
    let env = [
        setting("DATABASE_URL", &postgres.database("hark")),
        setting("REDIS_URL", &format!("redis://127.0.0.1:{}/", redis.port)),
        setting("HARK_RECORDINGS_URL", &format!("file://{}", recordings.display())),
        setting("HARK_ADMIN_TOKEN", ADMIN_TOKEN),
        setting("HARK_WORKER_TOKEN", WORKER_TOKEN),
        setting("HARK_CONTROL_PERCENT", "50"),
        setting("HARK_ENGINE", "pocketsphinx"),
        setting("HARK_MODEL_FETCH", "false"),
        setting("HARK_MIN_FREE_BYTES", "1"),
        // All come from one address, and none has been here before.
        setting("HARK_MAX_STREAMS_PER_ADDRESS", "1000"),
        setting("HARK_MAX_QUEUE_PER_ADDRESS", "1000"),
        setting("HARK_MAX_REPORTS_PER_ADDRESS", "10000"),
    ];
    let mut nodes = [Node::start("a", folder.path(), &env).await, Node::start("b", folder.path(), &env).await];
    let addresses = nodes.each_ref().map(|node| node.url.strip_prefix("http://").unwrap().to_owned());
    let nginx = tokio::task::spawn_blocking(move || {
        // Without chunks, whose heads nginx would count as part of the body.
        let format = "server_tokens off; chunked_transfer_encoding off; \
            log_format counts '$request_method $uri $status $body_bytes_sent $http_hark_page$arg_page $upstream_addr';";
        let log = "client_max_body_size 2g; access_log access.log counts;";
        Nginx::start_changed(&addresses, &[("server_tokens off;", format), ("client_max_body_size 2g;", log)])
    });
    let nginx = nginx.await.unwrap();

    // An administrator's own stream is none of those that the dashboard counts.
    let at_a = Visitor::new(&nodes[0].url);
    let watching = at_a.request("GET", "/api/v1/admin/stream").header("authorization", format!("Bearer {ADMIN_TOKEN}"));
    let mut watching = Sse::new(at_a.send(watching).await);
    watching.next().await.unwrap();

    // Pages of both arms. Those with streams hold theirs open, and each is sent a few updates; the others poll.
    let (mut pages, mut open, leave) = (Vec::new(), Vec::new(), CancellationToken::new());
    let mut tags = 0;
    for n in 0..30 {
        let visitor = Visitor::new(&nginx.url);
        let page = visitor.page().await;
        let polls = polls(&visitor.cookie().await, 50);
        let id = announce(&visitor).await;
        if polls {
            let mut tag = None;
            for _ in 0..POLLS {
                let mut request = visitor.request("GET", "/api/v1/status").header("hark-page", &page);
                request = request.header("accept-encoding", if n % 2 == 0 { "gzip" } else { "identity" });
                if let Some(tag) = tag {
                    request = request.header("if-none-match", tag);
                }
                let answer = visitor.send(request).await;
                tags += u64::from(answer.status() == StatusCode::NOT_MODIFIED);
                tag = answer.headers().get("etag").cloned();
                answer.bytes().await.unwrap();
            }
        } else {
            let stream = visitor.get(&format!("/api/v1/status/stream?page={page}")).await;
            assert_eq!(stream.status(), StatusCode::OK);
            open.push(tokio::spawn(count_events(stream, leave.clone())));
        }
        tell(&nginx.url, &id, json!({"status": "processing"})).await;
        for step in 1..4 {
            tell(&nginx.url, &id, json!({"progress": f64::from(step) * 20.0})).await;
        }
        let segments = visitor.request("GET", &format!("/api/v1/sessions/{id}/segments")).header("hark-page", &page);
        visitor.send(segments).await.bytes().await.unwrap();
        // Something else that pages ask for, which is no request for updates.
        visitor.send(visitor.request("GET", "/api/v1/models").header("hark-page", &page)).await.bytes().await.unwrap();
        pages.push((visitor, page, polls));
    }
    assert!(tags > 0 && open.len() >= 3 && pages.len() - open.len() >= 9, "{tags}, {}", open.len());

    let shown = time::Instant::now();

    // What is open now, of both nodes, once each has told it.
    let since = Timestamp::now().to_string();
    let have_told = |nodes: &Value| {
        nodes["nodes"].as_array().unwrap().iter().all(|node| node["heartbeat_at"].as_str().unwrap() > &*since)
    };
    let told = admin_once(&at_a, "nodes", have_told).await;
    let streams: Vec<u64> =
        told["nodes"].as_array().unwrap().iter().map(|node| node["load"]["streams"].as_u64().unwrap()).collect();
    assert!(streams.len() == 2 && streams.iter().all(|streams| *streams > 0), "{streams:?}");
    assert_eq!(admin(&at_a, "overview").await["streams"], open.len(), "{streams:?}");

    let with_streams = open.len() as u64;
    leave.cancel();
    let read = futures::future::join_all(open).await;
    let events: u64 = read.into_iter().map(Result::unwrap).sum();
    time::sleep_until(shown + BELIEVED).await;
    let mut fell_back = 0;
    for (n, (visitor, page, polls)) in pages.iter().enumerate() {
        let falls_back = !polls && n % 3 == 0;
        fell_back += u64::from(falls_back);
        let times = if *polls { json!({"polling": 300}) } else { json!({"live": 200, "reconnecting": 50}) };
        let report = json!({
            "page": page, "first": true, "fell_back": falls_back, "mode_ms": times, "connects": u32::from(!polls),
            "requests": {"stream": u32::from(!polls), "poll": if *polls { POLLS } else { 0 }, "segments": 1},
            "delivery_live": delays(if *polls { 0 } else { 4 }), "delivery_polling": delays(u64::from(*polls)),
        });
        let sent = visitor.send(visitor.request("POST", "/api/v1/reports").body(report.to_string())).await;
        assert_eq!(sent.status(), StatusCode::NO_CONTENT);
    }
    drop(watching);
    for node in &mut nodes {
        node.process.terminate(TIMEOUT).await;
    }
    let later = Node::start("later", folder.path(), &env).await;
    let figures = admin(&Visitor::new(&later.url), "figures?range=hour").await;
    let (current, server) = (&figures["current"], &figures["current"]["server"]);
    let logged = log(&nginx);
    let of_pages = |polling: bool, what: fn(&str) -> bool| {
        let pages: BTreeSet<&str> =
            pages.iter().filter(|(.., polls)| *polls == polling).map(|(_, page, _)| &**page).collect();
        logged.iter().filter(move |line| pages.contains(&*line.page) && what(&line.path))
    };
    let bytes = |polling| -> u64 { of_pages(polling, |path| path != "/api/v1/models").map(|line| line.body).sum() };
    let count = |polling, what| of_pages(polling, what).count() as u64;
    let is_stream: fn(&str) -> bool = |path| path.ends_with("/stream");
    let is_poll: fn(&str) -> bool = |path| path == "/api/v1/status";
    let is_segments: fn(&str) -> bool = |path| path.ends_with("/segments");
    for (arm, polling) in [("stream", false), ("polling", true)] {
        let found = &current[arm];
        let visits = pages.iter().filter(|(.., polls)| *polls == polling).count() as u64;
        assert_eq!(found["visits"], visits, "{arm}");
        let requests = json!({
            "stream": count(polling, is_stream), "poll": count(polling, is_poll), "segments": count(polling, is_segments),
        });
        assert_eq!(found["requests"], requests, "{arm}");
        assert_eq!(found["connects"], count(polling, is_stream), "{arm}");
        assert_eq!(found["bytes"], bytes(polling), "{arm}: {found:#}");
        assert!(bytes(polling) > 1000, "{arm}");
        assert_eq!(found["fell_back"], if polling { 0 } else { fell_back }, "{arm}");
        assert_eq!(found["delay"]["count"], if polling { visits } else { 4 * visits }, "{arm}");
        assert_eq!(found["uptime"], if polling { 0.0 } else { 0.8 }, "{arm}");
    }
    // What each node counted of streams and of polls.
    let sum =
        |what: fn(&str) -> bool| -> u64 { logged.iter().filter(|line| what(&line.path)).map(|line| line.body).sum() };
    assert_eq!((&server["streams_opened"], &server["stream_bytes"]), (&with_streams.into(), &sum(is_stream).into()));
    // One may have been on its way when its reader left.
    assert!(server["events"].as_u64().unwrap() - events <= 1, "{events} of {server:#}");
    let polled: Vec<&Logged> = logged.iter().filter(|line| is_poll(&line.path)).collect();
    assert_eq!((&server["polls"], &server["poll_bytes"]), (&polled.len().into(), &sum(is_poll).into()));
    assert_eq!(server["polls_unchanged"], tags);
    assert_eq!(polled.iter().filter(|line| line.status == 304).count() as u64, tags);
    // Enough polls to know how long one is.
    assert!(polled.len() as u64 >= MIN_POLLS, "{}", polled.len());
    let by_polling = &current["stream"]["by_polling"];
    let mean = sum(is_poll) as f64 / polled.len() as f64;
    assert_eq!(by_polling["is_measured"], true);
    assert!((by_polling["bytes_per_poll"].as_f64().unwrap() - mean).abs() < 1e-9, "{mean}: {by_polling}");
    // nginx used both nodes for all of it.
    for what in [is_stream, is_poll] {
        let used: BTreeSet<&str> = logged.iter().filter(|line| what(&line.path)).map(|line| &*line.node).collect();
        assert_eq!(used.len(), 2, "{used:?}");
    }
}
