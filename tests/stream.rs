//! The contract of status streams, tested with independent clients and raw sockets, over both cases of serving them; and
//! the checks of what workers outside Hark publish.

mod support;

use eventsource_stream::Eventsource;
use flate2::read::GzDecoder;
use futures::StreamExt;
use miniz_oxide::{
    DataFormat, MZFlush,
    inflate::{self, stream::InflateState},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::{
    io::Read,
    process::{Command, Stdio},
    time::Duration,
};
use support::{Sse, TIMEOUT, TestApp, Visitor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

const TOKEN: &str = "token-of-the-tests";
const PATHS: [&str; 2] = ["direct", "hyper"];
/// The query of a stream's address: for a plain stream, and for a compressed one.
const PACKINGS: [&str; 2] = ["", "?compress=gzip"];

async fn node(path: &str, flags: &[&str]) -> TestApp {
    let own = ["--worker-token", TOKEN, "--workers", "0", "--stream-path", path];
    TestApp::with(&[&own, flags].concat()).await
}

/// A worker outside Hark.
struct Worker<'a> {
    visitor: &'a Visitor,
    id: String,
}

impl<'a> Worker<'a> {
    /// Creates a session of the visitor.
    async fn start(visitor: &'a Visitor, title: &str) -> Self {
        visitor.cookie().await;
        let body = json!({"title": title, "duration_total": 100.0});
        let request = visitor.request("POST", "/api/v1/sessions").bearer_auth(TOKEN).json(&body);
        let response = visitor.send(request).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let session: Value = response.json().await.unwrap();
        assert_eq!((&session["engine"], &session["status"]["status"]), (&json!("external"), &json!("queued")));
        Self { visitor, id: session["id"].as_str().unwrap().to_owned() }
    }

    async fn try_status(&self, body: Value) -> (StatusCode, Value) {
        let path = format!("/api/v1/sessions/{}/status", self.id);
        answer(self.visitor, self.visitor.request("PUT", &path).bearer_auth(TOKEN).json(&body)).await
    }

    async fn status(&self, body: Value) {
        let (status, answer) = self.try_status(body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    async fn try_segments(&self, body: Value) -> (StatusCode, Value) {
        let path = format!("/api/v1/sessions/{}/segments", self.id);
        answer(self.visitor, self.visitor.request("POST", &path).bearer_auth(TOKEN).json(&body)).await
    }

    async fn segment(&self, index: usize, text: &str) {
        let segment = json!({"index": index, "start": index, "end": index + 1, "text": text});
        let (status, answer) = self.try_segments(segment).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    fn stream_path(&self) -> String {
        format!("/api/v1/sessions/{}/status/stream", self.id)
    }
}

async fn answer(visitor: &Visitor, request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = visitor.send(request).await;
    (response.status(), response.json().await.unwrap())
}

/// Texts that break naive framing of events.
fn texts() -> Vec<String> {
    vec![
        "plain".to_owned(),
        String::new(),
        "two\nlines\r\nand\rthree".to_owned(),
        "\u{2028}\u{2029}\u{85}\u{1}\u{feff}".to_owned(),
        "data: fake\n\nevent: bye\ndata: {}\n\n".to_owned(),
        "😀 👩‍👩‍👧 ẞ 漢字".to_owned(),
        "x".repeat(64 * 1024),
        " leading and trailing ".to_owned(),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    event: String,
    id: String,
    data: String,
}

/// A client in a process of its own that prints each event as a line of JSON.
struct Client {
    child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
}

impl Client {
    fn start(program: &str, script: &str, url: &str, cookie: &str) -> Self {
        let mut command = Command::new(program);
        command.arg(format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"))).args([url, cookie]);
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
        Self { child, lines }
    }

    async fn next(&mut self) -> Option<Seen> {
        let line = time::timeout(TIMEOUT, self.lines.next_line()).await.expect("the client goes on").unwrap()?;
        let event: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        Some(Seen { event: text("event"), id: text("id"), data: text("data") })
    }

    async fn rest(mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        while let Some(seen) = self.next().await {
            all.push(seen);
        }
        assert!(self.child.wait().await.unwrap().success());
        all
    }
}

/// Publishes a whole session.
async fn publish_session(worker: &Worker<'_>) {
    for (index, text) in texts().iter().enumerate() {
        worker.segment(index, text).await;
        worker.status(json!({"version": 10 + index, "stage": "transcribing", "progress": index})).await;
    }
    worker.status(json!({"version": 100, "status": "completed"})).await;
}

/// Checks the events that every client must have received in the end.
fn check(events: &[Seen], who: &str) {
    let segments: Vec<&Seen> = events.iter().filter(|e| e.event == "segment").collect();
    let json = |e: &Seen| serde_json::from_str::<Value>(&e.data).unwrap_or_else(|_| panic!("{who}: {}", e.data));
    let texts_seen: Vec<String> = segments.iter().map(|e| json(e)["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts_seen, texts(), "{who}");
    let statuses: Vec<&Seen> = events.iter().filter(|e| e.event == "status").collect();
    let versions: Vec<u64> = statuses.iter().map(|e| json(e)["version"].as_u64().unwrap()).collect();
    assert!(versions.windows(2).all(|w| w[0] < w[1]), "{who}: {versions:?}");
    let last = statuses.last().unwrap();
    assert_eq!((json(last)["status"].clone(), last.id.as_str()), (json!("completed"), "100.8"), "{who}");
    for status in &statuses {
        let value = json(status);
        assert_eq!(status.id, format!("{}.{}", value["version"], value["segments"]), "{who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_clients_read_the_stream() {
    // The path where scripts/setup installs it.
    let home = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let python = format!("{home}/hark/python-clients/bin/python");
    let clients = [("node", "eventsource.mjs"), ("node", "parser.mjs"), (python.as_str(), "httpx_client.py")];
    for path in PATHS {
        let app = node(path, &[]).await;
        let me = app.visitor();
        for ((program, script), packing) in clients.into_iter().flat_map(|client| PACKINGS.map(|p| (client, p))) {
            let worker = Worker::start(&me, script).await;
            worker.status(json!({"version": 2, "stage": "loading_model"})).await;
            let url = format!("{}{}{packing}", app.url, worker.stream_path());
            let mut client = Client::start(program, script, &url, &me.cookie().await);
            let mut events = Vec::new();
            // The client must be connected before the rest is published, or this would only test snapshots.
            while !events.iter().any(|e: &Seen| e.event == "status") {
                events.push(client.next().await.expect(script));
            }
            publish_session(&worker).await;
            events.extend(client.rest().await);
            check(&events, &format!("{script} over {path}{packing}"));
            if script == "eventsource.mjs" {
                let last = events.last().unwrap();
                assert_eq!((last.event.as_str(), last.data.as_str()), ("closed", "204"), "it is told to stop");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_the_stream_over_http_1_and_2() {
    let cases = [("direct", "--http1.1"), ("hyper", "--http1.1"), ("direct", "--http2-prior-knowledge")];
    for ((path, version), packing) in cases.into_iter().flat_map(|case| PACKINGS.map(|p| (case, p))) {
        let app = node(path, &[]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "curl").await;
        worker.status(json!({"version": 2})).await;
        let child = tokio::process::Command::new("curl")
            .args(["-sN", "-i", "--compressed", version, "--max-time", "90", "-H", "Accept-Encoding: gzip, br", "-H"])
            .arg(format!("Cookie: {}", me.cookie().await))
            .arg(format!("{}{}{packing}", app.url, worker.stream_path()))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        publish_session(&worker).await;
        let done = time::timeout(TIMEOUT, child.wait_with_output()).await.unwrap().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        // 0: the response was complete.
        assert_eq!(done.status.code(), Some(0), "{path} {version}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        for line in [
            "content-type: text/event-stream",
            "cache-control: no-cache, no-store, no-transform",
            "x-accel-buffering: no",
        ] {
            assert!(head.contains(line), "{path} {version}: {head}");
        }
        assert_eq!(head.contains("content-encoding: gzip"), !packing.is_empty(), "{head}");
        assert!(!head.contains("content-length"), "{head}");
        let retry: u32 = body.strip_prefix("retry: ").unwrap().lines().next().unwrap().parse().unwrap();
        assert!((250..=750).contains(&retry));
        assert!(body.contains("\"status\":\"completed\""), "{path} {version}");
        assert!(body.ends_with("\n\n"));
    }
}

/// Reads a stream with the crate `eventsource-stream`.
async fn events(visitor: &Visitor, path: &str) -> Vec<Seen> {
    let response = visitor.get(path).await;
    assert_eq!(response.status(), StatusCode::OK);
    let read = response.bytes_stream().eventsource().map(|event| {
        let event = event.unwrap();
        Seen { event: event.event, id: event.id, data: event.data }
    });
    time::timeout(TIMEOUT, read.collect()).await.expect("the stream ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_client_resumes_and_gets_204_at_the_end() {
    for path in PATHS {
        let app = node(path, &[]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "rust").await;
        publish_session(&worker).await;
        let all = events(&me, &worker.stream_path()).await;
        check(&all, path);
        let later = events(&me, &format!("{}?last_event_id=14.5", worker.stream_path())).await;
        let kinds: Vec<&str> = later.iter().map(|e| e.event.as_str()).collect();
        assert_eq!(kinds, ["segment", "segment", "segment", "status"]);
        let over = me.send(me.request("GET", &worker.stream_path()).header("last-event-id", "100.8")).await;
        assert_eq!(over.status(), StatusCode::NO_CONTENT);
        let other = app.visitor();
        other.cookie().await;
        let poll = format!("/api/v1/sessions/{}/status", worker.id);
        for path in [worker.stream_path(), poll] {
            assert_eq!(other.get(&path).await.status(), StatusCode::NOT_FOUND);
        }
    }
}

/// A compressed stream, and the text that can be decoded so far.
struct GzipStream {
    response: reqwest::Response,
    packed: Vec<u8>,
    /// Decodes what follows gzip's header.
    inflate: Box<InflateState>,
    taken: usize,
    text: String,
}

impl GzipStream {
    async fn open(visitor: &Visitor, path: &str) -> Self {
        let request = visitor.request("GET", &format!("{path}?compress=gzip")).header("accept-encoding", "br, gzip");
        let response = visitor.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(response.headers()["vary"], "accept-encoding");
        let inflate = InflateState::new_boxed(DataFormat::Raw);
        Self { response, packed: Vec::new(), inflate, taken: 10, text: String::new() }
    }

    /// Reads and decodes the next bytes. False at the end.
    async fn more(&mut self) -> bool {
        let next = time::timeout(TIMEOUT, self.response.chunk()).await.expect("the stream goes on").unwrap();
        let Some(bytes) = next else { return false };
        self.packed.extend_from_slice(&bytes);
        let mut plain = [0; 4096];
        loop {
            let packed = self.packed.get(self.taken..).unwrap_or_default();
            let done = inflate::stream::inflate(&mut self.inflate, packed, &mut plain, MZFlush::None);
            self.taken += done.bytes_consumed;
            self.text.push_str(std::str::from_utf8(&plain[..done.bytes_written]).expect("this text is ASCII"));
            if done.bytes_written < plain.len() {
                return true;
            }
        }
    }

    async fn read_until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.more().await, "it ended without {wanted}: {}", self.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_of_a_compressed_stream_can_be_read_when_it_comes() {
    for path in PATHS {
        let app = node(path, &["--max-streams-per-owner", "2"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "packed").await;
        worker.status(json!({"version": 2, "message": "the snapshot"})).await;
        let mut one = GzipStream::open(&me, &worker.stream_path()).await;
        let mut all = GzipStream::open(&me, "/api/v1/status/stream").await;
        for stream in [&mut one, &mut all] {
            stream.read_until("the snapshot\"").await;
            assert!(stream.text.starts_with("retry: "), "{}", stream.text);
        }
        // The `bye` of a refused stream is compressed too, and ends it.
        let mut third = GzipStream::open(&me, "/api/v1/status/stream").await;
        while third.more().await {}
        assert!(third.text.ends_with("data: {\"reason\":\"limit\"}\n\n"), "{}", third.text);
        worker.status(json!({"version": 3, "message": "a change"})).await;
        for stream in [&mut one, &mut all] {
            stream.read_until("a change\"").await;
        }
        worker.segment(0, "a line of text").await;
        for stream in [&mut one, &mut all] {
            stream.read_until("a line of text\"").await;
        }
        // More than a batch, and more than the dictionary holds.
        let long: Vec<String> = (0..20).map(|n| format!("{n}:").repeat(3_000)).collect();
        for (index, text) in long.iter().enumerate() {
            worker.segment(index + 1, text).await;
        }
        worker.status(json!({"version": 4, "status": "completed"})).await;
        while one.more().await {}
        for text in &long {
            assert!(one.text.contains(text));
        }
        assert!(one.text.contains("\"status\":\"completed\""));
        // The gzip file is complete, or a browser would report a broken stream.
        for stream in [one, third] {
            let (mut whole, mut file) = (String::new(), GzDecoder::new(stream.packed.as_slice()));
            file.read_to_string(&mut whole).unwrap();
            assert_eq!(whole, stream.text, "{path}");
            assert!(file.into_inner().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_plain_unless_both_the_address_and_the_header_ask_for_gzip() {
    for path in PATHS {
        let app = node(path, &[]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "plain").await;
        worker.status(json!({"version": 2})).await;
        for stream in [worker.stream_path(), "/api/v1/status/stream".to_owned()] {
            for (query, accepted, varies) in [
                ("", Some("gzip, deflate, br"), false),
                ("?compress=gzip", None, true),
                ("?compress=gzip", Some("br, gzip;q=0"), true),
            ] {
                let request = me.request("GET", &format!("{stream}{query}"));
                let request = accepted.into_iter().fold(request, |r, accepted| r.header("accept-encoding", accepted));
                let mut response = me.send(request).await;
                assert_eq!(response.status(), StatusCode::OK);
                assert!(!response.headers().contains_key("content-encoding"), "{stream}{query} {accepted:?}");
                assert_eq!(response.headers().contains_key("vary"), varies, "{stream}{query} {accepted:?}");
                let first = time::timeout(TIMEOUT, response.chunk()).await.unwrap().unwrap().unwrap();
                assert!(first.starts_with(b"retry: "), "{stream}{query} {accepted:?}");
            }
            for wrong in ["br", "GZIP", "", "gzip,br"] {
                let (status, answer) = answer(&me, me.request("GET", &format!("{stream}?compress={wrong}"))).await;
                assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
                assert!(answer["error"]["message"].as_str().unwrap().contains("`gzip`"), "{answer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_a_bye() {
    for path in PATHS {
        let app = node(path, &["--stream-lifetime-secs", "2", "--stream-idle-secs", "300"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "lifetime").await;
        worker.status(json!({"version": 2})).await;
        let last = events(&me, &worker.stream_path()).await.pop().unwrap();
        assert_eq!((last.event.as_str(), last.data.as_str()), ("bye", r#"{"reason":"lifetime"}"#));

        let app = node(path, &["--stream-idle-secs", "1"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "idle").await;
        for stream in [worker.stream_path(), "/api/v1/status/stream".to_owned()] {
            let last = events(&me, &stream).await.pop().unwrap();
            assert_eq!((last.event.as_str(), last.data.as_str()), ("bye", r#"{"reason":"idle"}"#), "{stream}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_ends_the_streams() {
    let app = node("direct", &[]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "out").await;
    worker.status(json!({"version": 2})).await;
    let mut streams = [open(&app, &me, &worker.stream_path()).await, open(&app, &me, "/api/v1/status/stream").await];
    let out = me.send(me.request("POST", "/api/v1/logout").json(&json!({"confirm": true}))).await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    let set = out.headers()["set-cookie"].to_str().unwrap();
    assert!(set.starts_with("hark_owner_") && set.contains("=; ") && set.contains("Max-Age=0"), "{set}");
    for stream in &mut streams {
        read_until(stream, r#"{"reason":"logout"}"#).await;
    }
}

/// Uses a real process, because a signal goes to a process.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_node_ends_five_thousand_streams_with_a_bye() {
    const STREAMS: usize = 5000;
    for path in PATHS {
        let folder = tempfile::TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let addr = format!("127.0.0.1:{port}");
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_hark"))
            .args(["serve", "--workers", "0", "--max-streams-per-owner", "10000", "--stream-path", path])
            .args(["--max-connections-per-address", "10000"])
            .env("LEPTOS_SITE_ADDR", &addr)
            .env("HARK_DATA_DIR", folder.path())
            .env("HARK_MODEL_FETCH", "false")
            .env("HARK_WORKER_TOKEN", TOKEN)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Used only for its client; no request goes to this node.
        let app = TestApp::start().await;
        let mut me = app.visitor();
        me.url = format!("http://{addr}");
        let starting = async {
            while TcpStream::connect(&addr).await.is_err() {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, starting).await.expect("the server starts");
        let worker = Worker::start(&me, "many").await;
        worker.status(json!({"version": 2})).await;
        let request =
            format!("GET {} HTTP/1.1\r\nHost: hark\r\nCookie: {}\r\n\r\n", worker.stream_path(), me.cookie().await);
        let mut streams = Vec::with_capacity(STREAMS);
        for _ in 0..STREAMS {
            let mut socket = TcpStream::connect(&addr).await.unwrap();
            socket.write_all(request.as_bytes()).await.unwrap();
            streams.push(socket);
        }
        for socket in &mut streams {
            read_until(socket, "event: status").await;
        }
        let pid = rustix::process::Pid::from_raw(child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut waits = std::collections::HashSet::new();
        for socket in &mut streams {
            let mut text = String::new();
            time::timeout(TIMEOUT, socket.read_to_string(&mut text)).await.expect("it ends").unwrap();
            assert!(text.contains("event: bye\ndata: {\"reason\":\"shutdown\"}\n\n"), "{path}: {text}");
            assert!(text.ends_with("0\r\n\r\n"), "{path}: the end is clean: {text}");
            waits.insert(text.split_once("retry: ").unwrap().1.lines().next().unwrap().to_owned());
        }
        assert!(waits.len() > 100, "{path}: each has a wait of its own: {waits:?}");
        // The node cuts slow connections off after 8 s, and none was slow.
        let status = time::timeout(TIMEOUT, child.wait()).await.expect("it exits").unwrap();
        assert!(status.success(), "{path}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_running_session_is_not_closed_as_idle() {
    let app = node("direct", &["--stream-idle-secs", "1"]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "quiet").await;
    worker.status(json!({"version": 2})).await;
    let response = me.get(&worker.stream_path()).await;
    let reading = tokio::spawn(async move { response.text().await.unwrap() });
    // Lasts several sweeps, each of which would close an idle stream.
    time::sleep(Duration::from_secs(4)).await;
    worker.status(json!({"version": 3, "status": "completed"})).await;
    let text = time::timeout(TIMEOUT, reading).await.unwrap().unwrap();
    assert!(text.contains("completed") && !text.contains("bye"), "{text}");
}

/// What the stream's next heartbeat promises: within how many seconds the next event comes.
async fn promise(stream: &mut Sse) -> u64 {
    // Far below the interval of the node, and far above the short one.
    let next = async {
        loop {
            let event = stream.next().await.expect("the stream goes on");
            if event.event == "heartbeat" {
                return event.json()["within_secs"].as_u64().unwrap();
            }
        }
    };
    time::timeout(Duration::from_secs(20), next).await.expect("a heartbeat comes soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_more_often_while_something_runs_and_keep_their_promise() {
    for path in PATHS {
        let app = node(path, &["--stream-heartbeat-secs", "30"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "quiet").await;
        let mut stream = Sse::new(me.get("/api/v1/status/stream").await);
        assert_eq!(promise(&mut stream).await, 31, "{path}: with the snapshot, of a session that waits");
        drop(stream);
        worker.status(json!({"version": 2})).await;
        let mut stream = Sse::new(me.get("/api/v1/status/stream").await);
        for _ in 0..3 {
            assert_eq!(promise(&mut stream).await, 4, "{path}");
        }
        worker.status(json!({"version": 3, "status": "completed"})).await;
        // What was promised last is kept.
        assert_eq!(promise(&mut stream).await, 31, "{path}");
        // The setting is the upper bound, and holds for streams of one session.
        let app = node(path, &["--stream-heartbeat-secs", "1"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "quiet").await;
        worker.status(json!({"version": 2})).await;
        let mut stream = Sse::new(me.get("/api/v1/status/stream").await);
        assert_eq!(promise(&mut stream).await, 2, "{path}");
        let app = node(path, &["--stream-heartbeat-secs", "4"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "quiet").await;
        worker.status(json!({"version": 2})).await;
        let mut stream = Sse::new(me.get(&worker.stream_path()).await);
        assert_eq!(promise(&mut stream).await, 5, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renaming_and_deleting_are_told_on_streams_and_to_those_who_poll() {
    let list = "/api/v1/status";
    for path in PATHS {
        let app = node(path, &[]).await;
        let (me, other) = (app.visitor(), app.visitor());
        let (one, two) = (Worker::start(&me, "One").await, Worker::start(&me, "Two").await);
        let _theirs = Worker::start(&other, "Theirs").await;
        let mut stream = Sse::new(me.get("/api/v1/status/stream").await);
        let mut foreign = Sse::new(other.get("/api/v1/status/stream").await);
        promise(&mut stream).await;
        promise(&mut foreign).await;
        let before = me.get(list).await;
        let etag = before.headers()["etag"].clone();
        assert_eq!(before.json::<Value>().await.unwrap().as_object().unwrap().keys().collect::<Vec<_>>(), ["statuses"]);

        let address = |worker: &Worker| format!("/api/v1/sessions/{}", worker.id);
        for title in ["Uno", "\"Eins\"\u{2028}x"] {
            let request = me.request("PATCH", &address(&one)).json(&json!({"title": title}));
            assert_eq!(me.send(request).await.status(), StatusCode::OK);
            let event = stream.next().await.unwrap();
            assert_eq!((&*event.event, &*event.id), ("renamed", ""), "{path}");
            assert_eq!(event.json(), json!({"session_id": one.id, "title": title}));
        }
        assert_eq!(me.send(me.request("DELETE", &address(&two))).await.status(), StatusCode::NO_CONTENT);
        // It is cancelled first.
        let event = stream.next().await.unwrap();
        assert_eq!((&*event.event, &event.json()["status"]), ("status", &json!("cancelled")));
        let event = stream.next().await.unwrap();
        assert_eq!((&*event.event, event.json()), ("deleted", json!({"session_id": two.id})));

        // Those who poll learn the newest of each, and so does a stream that comes a moment later.
        let known = me.send(me.request("GET", list).header("if-none-match", etag)).await;
        assert_eq!(known.status(), StatusCode::OK, "{path}");
        let polled: Value = known.json().await.unwrap();
        assert_eq!(polled["renamed"], json!([{"session_id": one.id, "title": "\"Eins\"\u{2028}x"}]));
        assert_eq!(polled["deleted"], json!([{"session_id": two.id}]));
        assert_eq!(polled["statuses"].as_array().unwrap().len(), 1);
        let mut late = Sse::new(me.get("/api/v1/status/stream").await);
        let events = [late.next().await.unwrap(), late.next().await.unwrap(), late.next().await.unwrap()];
        assert_eq!(events.each_ref().map(|event| &*event.event), ["status", "renamed", "deleted"]);
        // Nobody else does.
        assert!(other.json(list).await.get("renamed").is_none());
        assert!(time::timeout(Duration::from_millis(300), foreign.next()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_get_a_bye_and_permits_are_given_back() {
    for path in PATHS {
        let app = node(path, &["--max-streams-per-owner", "2", "--max-streams", "3"]).await;
        let (me, other) = (app.visitor(), app.visitor());
        let worker = Worker::start(&me, "mine").await;
        worker.status(json!({"version": 2})).await;
        let theirs = Worker::start(&other, "theirs").await;
        theirs.status(json!({"version": 2})).await;
        let first = open(&app, &me, &worker.stream_path()).await;
        let second = open(&app, &me, &worker.stream_path()).await;
        let refused = events(&me, &worker.stream_path()).await;
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].event.as_str(), refused[0].data.as_str()), ("bye", r#"{"reason":"limit"}"#));
        let third = open(&app, &other, &theirs.stream_path()).await;
        assert_eq!(events(&other, &theirs.stream_path()).await[0].data, r#"{"reason":"limit"}"#);
        drop(first);
        admitted(&app, &me, &worker.stream_path()).await;
        drop((second, third));
        // The permits of streams that have ended are given back too.
        let open = [open(&app, &me, &worker.stream_path()).await, open(&app, &me, &worker.stream_path()).await];
        worker.status(json!({"version": 3, "status": "completed"})).await;
        let next = Worker::start(&me, "next").await;
        next.status(json!({"version": 2})).await;
        admitted(&app, &me, &next.stream_path()).await;
        drop(open);
    }
}

/// Opens a stream over a raw socket and reads its first status.
async fn open(app: &TestApp, visitor: &Visitor, path: &str) -> TcpStream {
    let mut socket = raw(app).await;
    let cookie = visitor.cookie().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: hark\r\nCookie: {cookie}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut socket, "event: status").await;
    socket
}

async fn raw(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap()
}

async fn read_until(socket: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(wanted) {
            assert!(socket.read_buf(&mut text).await.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
        }
    };
    time::timeout(TIMEOUT, reading).await.expect(wanted);
    String::from_utf8_lossy(&text).into_owned()
}

/// Waits until a stream is admitted again, because a permit was given back.
async fn admitted(app: &TestApp, visitor: &Visitor, path: &str) {
    let cookie = visitor.cookie().await;
    let trying = async {
        loop {
            let mut socket = raw(app).await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: hark\r\nCookie: {cookie}\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let text = read_until(&mut socket, "event: ").await + &read_until_event(&mut socket).await;
            if text.contains("event: status") || text.contains("event: segment") {
                return;
            }
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    time::timeout(TIMEOUT, trying).await.expect("the permit is given back");
}

async fn read_until_event(socket: &mut TcpStream) -> String {
    let mut text = vec![0; 1024];
    let read = time::timeout(Duration::from_millis(50), socket.read(&mut text)).await;
    String::from_utf8_lossy(&text[..read.map_or(0, Result::unwrap)]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_and_reset_connections_give_their_permits_back() {
    for path in PATHS {
        let app = node(path, &["--max-streams-per-owner", "1"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "gone").await;
        worker.status(json!({"version": 2})).await;
        // Half-closed by the client.
        let mut half = open(&app, &me, &worker.stream_path()).await;
        half.shutdown().await.unwrap();
        admitted(&app, &me, &worker.stream_path()).await;
        // Closed by a reset.
        let lost = open_when_free(&app, &me, &worker).await;
        lost.set_zero_linger().unwrap();
        drop(lost);
        admitted(&app, &me, &worker.stream_path()).await;
    }
}

async fn open_when_free(app: &TestApp, me: &Visitor, worker: &Worker<'_>) -> TcpStream {
    admitted(app, me, &worker.stream_path()).await;
    let trying = async {
        loop {
            let mut socket = raw(app).await;
            let cookie = me.cookie().await;
            let request = format!("GET {} HTTP/1.1\r\nHost: hark\r\nCookie: {cookie}\r\n\r\n", worker.stream_path());
            socket.write_all(request.as_bytes()).await.unwrap();
            if read_until(&mut socket, "data: {\"").await.contains("event: status") {
                return socket;
            }
        }
    };
    time::timeout(TIMEOUT, trying).await.expect("the permit is given back")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_disconnected_and_can_resume() {
    for path in PATHS {
        let app = node(path, &["--max-streams-per-owner", "1"]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "slow").await;
        worker.status(json!({"version": 2})).await;
        let mut slow = open(&app, &me, &worker.stream_path()).await;
        // More than all buffers on the way hold.
        let text = "y".repeat(60_000);
        for index in 0..200 {
            worker.segment(index, &text).await;
        }
        admitted(&app, &me, &worker.stream_path()).await;
        // What it still reads is intact up to the cut; with the last id it gets the rest.
        let mut read = Vec::new();
        let _ = time::timeout(TIMEOUT, slow.read_to_end(&mut read)).await.expect("the connection was closed");
        let read = String::from_utf8_lossy(&read);
        assert!(read.len() < 200 * 60_000, "the whole of it went into buffers");
        let last = read.rsplit("\n\n").find_map(|event| event.lines().find_map(|l| l.strip_prefix("id: "))).unwrap();
        worker.status(json!({"version": 3, "status": "completed"})).await;
        let seen: usize = last.split_once('.').unwrap().1.parse().unwrap();
        let rest = retried(&me, &format!("{}?last_event_id={last}", worker.stream_path())).await;
        let indexes: Vec<u64> = rest
            .iter()
            .filter(|e| e.event == "segment")
            .map(|e| serde_json::from_str::<Value>(&e.data).unwrap()["index"].as_u64().unwrap())
            .collect();
        assert_eq!(indexes, (seen as u64..200).collect::<Vec<_>>(), "{path}");
        assert!(rest.last().unwrap().data.contains("completed"));
    }
}

/// Reads a stream, which may be refused at first.
async fn retried(visitor: &Visitor, path: &str) -> Vec<Seen> {
    loop {
        let events = events(visitor, path).await;
        if events.last().is_none_or(|e| e.data != r#"{"reason":"limit"}"#) {
            return events;
        }
        time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_disturb_no_other_stream() {
    for path in PATHS {
        let app = node(path, &[]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "steady").await;
        worker.status(json!({"version": 2})).await;
        let mut steady = open(&app, &me, &worker.stream_path()).await;
        let cookie = me.cookie().await;
        let line = format!("GET {} HTTP/1.1\r\n", worker.stream_path());
        let long = "a".repeat(100_000);
        for (request, wanted) in [
            ("\0\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
            (format!("{line}\r\n"), "HTTP/1.1 "), // without Host and cookie: another owner
            (format!("{line}Host: a\r\nBad Header: x\r\n\r\n"), "400"),
            (format!("{line}Host: a\r\nCookie: {cookie}\r\nLast-Event-ID: 1;2\r\n\r\n"), "400"),
            (format!("{line}Host: a\r\nX: {long}\r\n\r\n"), "HTTP/1.1 431"),
            (format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", worker.stream_path()), "405"),
            (format!("{line}Host: a\r\nContent-Length: 5\r\nCookie: {cookie}\r\n\r\nhello"), "event: status"),
        ] {
            let mut socket = raw(&app).await;
            let _ = socket.write_all(request.as_bytes()).await;
            let mut text = Vec::new();
            let reading = async {
                while !String::from_utf8_lossy(&text).contains(wanted) {
                    match socket.read_buf(&mut text).await {
                        Ok(1..) => {}
                        _ => break,
                    }
                }
            };
            time::timeout(TIMEOUT, reading).await.expect(&request);
            let text = String::from_utf8_lossy(&text).into_owned();
            // hyper may close the connection before the client has sent all of a head that is too long, which resets
            // the answer.
            let reset = request.len() > 50_000 && text.is_empty();
            assert!(text.contains(wanted) || reset, "{path}: {} gave {text}", &request[..request.len().min(200)]);
        }
        // Bytes after the request aren't treated as a second request.
        steady.write_all(b"garbage\0garbage").await.unwrap();
        worker.status(json!({"version": 3, "message": "still here"})).await;
        if path == "direct" {
            read_until(&mut steady, "still here").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_sent_byte_by_byte_opens_a_stream() {
    for path in PATHS {
        let app = node(path, &[]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "bytes").await;
        worker.status(json!({"version": 2})).await;
        let mut socket = raw(&app).await;
        socket.set_nodelay(true).unwrap();
        let cookie = me.cookie().await;
        for byte in format!("GET {} HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n", worker.stream_path()).bytes() {
            socket.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        read_until(&mut socket, "event: status").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_are_answered_from_memory() {
    let app = node("direct", &[]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "poll").await;
    worker.status(json!({"version": 2, "progress": 10.0})).await;
    let one = format!("/api/v1/sessions/{}/status", worker.id);
    me.json("/api/v1/status").await;
    // Not stored yet, so the poll's answer can only come from the hub.
    worker.status(json!({"version": 3, "progress": 20.0})).await;
    let store = hark::server::store::Store::open(&app.folder.path().join("hark.sqlite")).await.unwrap();
    let (stored, _) = store.find(worker.id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((stored.status.version, stored.status.progress), (2, Some(10.0)));
    let polled = me.json(&one).await;
    assert_eq!((&polled["version"], &polled["progress"]), (&json!(3), &json!(20.0)));
    let list = me.json("/api/v1/status").await;
    assert_eq!(list["statuses"][0], polled);
    for path in [one.as_str(), "/api/v1/status"] {
        let etag = me.get(path).await.headers()["etag"].clone();
        let known = || me.send(me.request("GET", path).header("if-none-match", etag.clone()));
        assert_eq!(known().await.status(), StatusCode::NOT_MODIFIED);
    }
    worker.status(json!({"version": 4, "progress": 30.0})).await;
    let all = me.get("/api/v1/status").await;
    assert_eq!(all.json::<Value>().await.unwrap()["statuses"][0]["version"], 4);
    // A status that was only in memory is stored when the node stops.
    let folder = app.stop().await;
    let store = hark::server::store::Store::open(&folder.path().join("hark.sqlite")).await.unwrap();
    let (stored, _) = store.find(worker.id.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((stored.status.version, stored.status.progress), (4, Some(30.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_no_status_has_counted_are_found_by_who_polls_or_comes_back() {
    for path in PATHS {
        let app = node(path, &[]).await;
        let me = app.visitor();
        let worker = Worker::start(&me, "counted").await;
        worker.status(json!({"version": 2, "progress": 10.0})).await;
        let (one, all) = (format!("/api/v1/sessions/{}/status", worker.id), "/api/v1/status");
        let tag = async |path: &str| me.get(path).await.headers()["etag"].clone();
        let before = [(&*one, tag(&one).await), (all, tag(all).await)];
        for index in 0..3 {
            worker.segment(index, "uncounted").await;
        }
        for (path, tag) in before {
            let polled = me.send(me.request("GET", path).header("if-none-match", &tag)).await;
            assert_eq!(polled.status(), StatusCode::OK, "{path}");
            let now = polled.headers()["etag"].clone();
            let json = polled.json::<Value>().await.unwrap();
            let status = json["statuses"].get(0).unwrap_or(&json);
            assert_eq!((&status["version"], &status["segments"]), (&json!(2), &json!(3)), "{path}");
            let unchanged = me.send(me.request("GET", path).header("if-none-match", now)).await;
            assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
        let mut list = Sse::new(me.get("/api/v1/status/stream").await);
        let first = list.next().await.unwrap();
        assert_eq!((&first.json()["version"], &first.json()["segments"]), (&json!(2), &json!(3)));
        // The stream of the session still says by each id what was sent up to it.
        let mut stream = Sse::new(me.get(&worker.stream_path()).await);
        let mut ids = Vec::new();
        for _ in 0..4 {
            let event = stream.next().await.unwrap();
            ids.push((event.event, event.id));
        }
        let wanted = [("status", "2.0"), ("segment", "2.1"), ("segment", "2.2"), ("segment", "2.3")];
        assert_eq!(ids, wanted.map(|(event, id)| (event.to_owned(), id.to_owned())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_outside_workers_are_checked() {
    let app = node("direct", &[]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "checked").await;
    worker.status(json!({"version": 5, "stage": "transcribing", "progress": 50.0, "unknown": 1})).await;
    for (body, code) in [
        (json!({"version": 5}), "stale_version"),
        (json!({"version": 9_007_199_254_740_992u64}), "invalid_report"),
        (json!({"version": "six"}), "invalid_report"),
        (json!({"version": 6, "progress": "half"}), "invalid_report"),
        (json!({"version": 6, "status": "finished"}), "invalid_report"),
        (json!({"version": 6, "error": 7}), "invalid_report"),
        (json!([1]), "invalid_report"),
        (json!({"version": 6, "message": "m".repeat(300_000)}), "too_large"),
    ] {
        let (_, answer) = worker.try_status(body.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{body}: {answer}");
    }
    let (_, refused) = worker.try_status(json!({"progress": "half"})).await;
    let why = refused["error"]["message"].as_str().unwrap();
    assert!(why.starts_with("The field progress doesn't fit: it must be a number or null, and not a text"), "{why}");
    // What can't be so is left out; the rest of the report counts.
    worker.status(json!({"version": 6, "progress": 49.0, "duration_total": -3.0, "message": "no\u{0}thing"})).await;
    let known = me.json(&format!("/api/v1/sessions/{}/status", worker.id)).await;
    assert_eq!((&known["progress"], &known["duration_total"]), (&json!(50.0), &json!(100.0)));
    assert_eq!(known["message"], "nothing");
    let segment =
        |index: u32, start: f64, text: &str| json!({"index": index, "start": start, "end": 2.0, "text": text});
    for (body, code) in [
        (segment(1, 0.0, "hole"), "segment_hole"),
        (segment(0, 3.0, "backwards"), "invalid_report"),
        (segment(0, 0.0, &"t".repeat(70_000)), "invalid_report"),
        (segment(0, 0.0, "no\u{0}thing"), "invalid_report"),
        (json!({"segments": [segment(0, 0.0, "a"), segment(2, 1.0, "c")]}), "segment_hole"),
        (json!({"text": "nothing else"}), "invalid_report"),
    ] {
        let (_, answer) = worker.try_segments(body.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    let both = json!([segment(0, 0.0, "a"), segment(1, 1.0, "b")]);
    assert_eq!(worker.try_segments(both.clone()).await, (StatusCode::OK, json!({"segments": 2})));
    // Sent again because the answer got lost.
    assert_eq!(worker.try_segments(both).await, (StatusCode::OK, json!({"segments": 2})));
    let (_, reported) = worker.try_status(json!({"progress": 60.0})).await;
    assert_eq!(reported, json!({"version": 7}));
    // After cancelling, the worker's reports are refused.
    let cancelled = me.post(&format!("/api/v1/sessions/{}/cancel", worker.id)).await;
    assert_eq!(cancelled.json::<Value>().await.unwrap()["status"]["status"], "cancelled");
    assert_eq!(worker.try_status(json!({"version": 5_000_000})).await.1["error"]["code"], "ended");
    assert_eq!(worker.try_segments(segment(2, 1.0, "c")).await.1["error"]["code"], "ended");
    let retry = me.post(&format!("/api/v1/sessions/{}/retry", worker.id)).await;
    assert_eq!(retry.status(), StatusCode::CONFLICT);
    // Without the token, or with another.
    let path = format!("/api/v1/sessions/{}/status", worker.id);
    let body = json!({"version": 7});
    let (status, _) = answer(&me, me.request("PUT", &path).json(&body)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = answer(&me, me.request("PUT", &path).bearer_auth("other").json(&body)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, _) = answer(&me, me.request("POST", "/api/v1/sessions").json(&json!({"title": "x"}))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let off = TestApp::start().await;
    let me = off.visitor();
    let (status, answer) = answer(&me, me.request("PUT", &path).bearer_auth(TOKEN).json(&body)).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::FORBIDDEN, &json!("workers_off")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_speaks_an_older_form_is_understood() {
    let app = node("direct", &[]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "older").await;
    let script = format!("{}/tests/clients/older_worker.py", env!("CARGO_MANIFEST_DIR"));
    let mut command = tokio::process::Command::new("python3");
    command.args([&script, &app.url, &worker.id, TOKEN, "0", "1", "2", "3", "4"]);
    let done = command.output().await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let answers = String::from_utf8(done.stdout).unwrap();
    assert_eq!(answers.lines().collect::<Vec<_>>(), ["200"; 5], "every report counts");
    let status = me.json(&format!("/api/v1/sessions/{}/status", worker.id)).await;
    assert_eq!((&status["status"], &status["progress"]), (&json!("failed"), &json!(40.0)), "{status}");
    assert_eq!((&status["version"], &status["stage"]), (&json!(6), &json!("diarizing <speakers>")));
    assert_eq!(status["error"], json!({"code": "worker_failed", "message": "The model ran out of memory"}));
    // Its own stage is shown as it is, as text.
    let page = me.get(&format!("/sessions/{}", worker.id)).await.text().await.unwrap();
    assert!(page.contains("diarizing &lt;speakers") && !page.contains("diarizing <speakers"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_outside_worker_goes_silent_fails() {
    let app = node("direct", &["--worker-silence-secs", "1"]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "silent").await;
    worker.status(json!({"version": 2, "progress": 10.0})).await;
    worker.segment(0, "kept").await;
    let last = events(&me, &worker.stream_path()).await.pop().unwrap();
    let last: Value = serde_json::from_str(&last.data).unwrap();
    assert_eq!((&last["status"], &last["error"]["code"]), (&json!("failed"), &json!("worker_lost")));
    let text = me.get(&format!("/api/v1/sessions/{}/transcript.txt", worker.id)).await.text().await.unwrap();
    assert_eq!(text.trim(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_streams_are_counted() {
    let app = node("direct", &[]).await;
    let me = app.visitor();
    let worker = Worker::start(&me, "counted").await;
    publish_session(&worker).await;
    events(&me, &worker.stream_path()).await;
    me.json("/api/v1/status").await;
    let text = me.get("/metrics").await.text().await.unwrap();
    for name in [
        "hark_streams_open{kind=\"session\"}",
        "hark_streams_opened_total{kind=\"session\"}",
        "hark_streams_closed_total{reason=\"ended\"}",
        "hark_stream_events_total{event=\"status\"}",
        "hark_stream_bytes_total",
        "hark_publish_to_write_seconds_bucket{le=\"0.001\"}",
        "hark_snapshot_reads_total",
        "hark_polls_total{answer=\"200\"}",
        "hark_hub_entries{kind=\"session\"}",
    ] {
        assert!(text.contains(name), "{name} is missing from\n{text}");
    }
    assert!(!text.contains(&worker.id), "a session's id is a label");
}

/// Opens a stream from this address, as a proxy in front would report it. None if it is refused.
async fn stream_from(app: &TestApp, visitor: &Visitor, address: &str) -> Option<Sse> {
    let before = app.hub().open();
    let request = visitor.request("GET", "/api/v1/status/stream").header("x-forwarded-for", address);
    let mut stream = Sse::new(visitor.send(request).await);
    // The permit is taken before the answer.
    if app.hub().open() > before {
        return Some(stream);
    }
    assert_eq!(stream.next().await.unwrap().data, r#"{"reason":"limit"}"#);
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_streams() {
    for path in PATHS {
        let flags = ["--max-streams", "8", "--max-streams-per-address", "2", "--trusted-proxies", "127.0.0.1"];
        let app = node(path, &flags).await;
        let friend = app.visitor();
        let worker = Worker::start(&friend, "friend").await;
        worker.status(json!({"version": 2})).await;
        // Opens one stream after the other, each with a new cookie and a forged address in front.
        let mut held = Vec::new();
        for n in 0..20 {
            held.extend(stream_from(&app, &app.visitor(), &format!("198.51.100.{n}, 2001:db8::{n:x}")).await);
        }
        assert_eq!(held.len(), 2, "{path}: one network counts as one address");
        // Other addresses are admitted, but all newcomers together take only half of the streams.
        for address in ["192.0.2.1", "192.0.2.2"] {
            held.push(stream_from(&app, &app.visitor(), address).await.expect("another gets in"));
        }
        assert!(stream_from(&app, &app.visitor(), "192.0.2.3").await.is_none(), "{path}");
        // The other half is kept for owners with sessions, also at the same address.
        for _ in 0..4 {
            let mut stream = stream_from(&app, &friend, "2001:db8::7").await.expect("its permits are kept");
            assert_eq!(stream.next().await.unwrap().event, "status", "{path}");
            held.push(stream);
        }
        assert_eq!(app.hub().open(), 8);
        // A header that no trusted proxy set changes nothing.
        let plain = node(path, &["--max-streams-per-address", "1"]).await;
        let first = stream_from(&plain, &plain.visitor(), "192.0.2.1").await;
        assert!(first.is_some() && stream_from(&plain, &plain.visitor(), "192.0.2.2").await.is_none(), "{path}");
    }
}
