//! Attacks on `hark serve`, which runs as a process of its own so that its memory and open files can be measured:
//! endless bodies, heads and connections, of all sizes and speeds, on every route. Each must end in time, and memory
//! must stay flat.

#[path = "support/process.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared by test binaries")]
mod process;
mod support;

use leptos::server_fn::axum::server_fn_paths;
use process::{Process, Setup};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use support::{TIMEOUT, TestApp, Visitor, wav};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time,
};

const TOKEN: &str = "token-of-the-tests";
const PATHS: [&str; 2] = ["direct", "hyper"];
/// How many bytes an attack may add to a node's memory while it lasts: some megabytes for each of those that attack at a time,
/// whose threads and buffers come and go. What they send is a hundred times more.
const MEANWHILE: u64 = 50_000_000;
/// How many bytes it may add each time that it is repeated.
const EACH_TIME: u64 = 10_000_000;

/// A node with short timeouts.
fn node(folder: &TempDir, flags: &[&str]) -> Setup {
    let own = [
        ["--workers", "0"],
        ["--min-free-bytes", "1"],
        ["--head-secs", "2"],
        ["--body-secs", "3"],
        ["--idle-secs", "3"],
        ["--ping-secs", "1"],
        ["--upload-silence-secs", "3"],
        ["--upload-window-secs", "2"],
        ["--min-upload-rate", "1000"],
        ["--max-upload-bytes", "1000000"],
        ["--stream-lifetime-secs", "2"],
        ["--stalled-secs", "2"],
    ];
    let own: Vec<&str> = own.into_iter().filter(|[name, _]| !flags.contains(name)).flatten().collect();
    Setup::new(folder.path(), &[&own, flags].concat()).env(&[("HARK_WORKER_TOKEN", TOKEN.to_owned())])
}

fn address(url: &str) -> String {
    url.strip_prefix("http://").unwrap().to_owned()
}

/// What was received on a connection until it ended.
struct Ended {
    status: Option<u16>,
    text: String,
}

impl Ended {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        Self { status, text }
    }

    fn json(&self) -> Value {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// What is sent after the first bytes of a request.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Nothing,
    /// The same bytes again and again.
    Endless(&'static [u8]),
    /// The same bytes again and again, with so many milliseconds between.
    Slowly(&'static [u8], u64),
}

/// Sends `first` and the rest, and reads until the connection ends.
async fn send(address: &str, first: &[u8], rest: Rest) -> Ended {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    write.write_all(first).await.unwrap();
    let sending = tokio::spawn(async move {
        match rest {
            Rest::Nothing => std::future::pending().await,
            // Until the node closes the connection.
            Rest::Endless(bytes) => while write.write_all(bytes).await.is_ok() {},
            Rest::Slowly(bytes, millis) => {
                while write.write_all(bytes).await.is_ok() {
                    time::sleep(Duration::from_millis(millis)).await;
                }
            }
        }
        write
    });
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        // A connection that is reset has ended too.
        while let Ok(n @ 1..) = read.read(&mut piece).await {
            answer.extend_from_slice(&piece[..n]);
        }
    };
    let ended = time::timeout(TIMEOUT, reading).await;
    sending.abort();
    let first = String::from_utf8_lossy(&first[..first.len().min(300)]).into_owned();
    assert!(
        ended.is_ok(),
        "the connection never ends: {rest:?} after\n{first}\nanswered so far\n{}",
        String::from_utf8_lossy(&answer)
    );
    Ended::of(&answer)
}

/// A whole request that asks for the connection to be closed.
async fn ask(address: &str, head: &str) -> Ended {
    send(address, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes(), Rest::Nothing).await
}

/// A value of the node's memory, in bytes: now, or the peak since [`forget_peak`].
fn memory(node: &Process, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() * 1024
}

fn forget_peak(node: &Process) {
    std::fs::write(format!("/proc/{}/clear_refs", node.id()), "5").unwrap();
}

/// Repeats an attack, and fails if memory rises by [`MEANWHILE`] in each round, or by [`EACH_TIME`] from round to round. The
/// first round isn't counted, because threads and the allocator keep what they take at their first peak; there are at least two
/// more, and at the most four, because what is left of a single one may be chance. Pages of the program's own file aren't
/// counted, because a development build has 100 MB of them.
async fn with_flat_memory<T>(node: &Process, attack: impl AsyncFn() -> T) -> T {
    attack().await;
    let (mut peaks, mut rises) = (Vec::new(), Vec::new());
    loop {
        forget_peak(node);
        let before = memory(node, "VmRSS:") - memory(node, "RssFile:");
        let result = attack().await;
        let peak = memory(node, "VmHWM:") - memory(node, "RssFile:");
        peaks.push(peak);
        rises.push(peak.saturating_sub(before));
        println!("the most memory in each round: {peaks:?} bytes; more than before it: {rises:?}");
        let rounds = peaks.len() as u64 - 1;
        let flat = peak.saturating_sub(peaks[0]) < EACH_TIME * rounds && rises.iter().any(|rise| *rise < MEANWHILE);
        if flat {
            return result;
        }
        assert!(rounds < 3, "memory rises: at the most {peaks:?} bytes, by {rises:?} in each round");
    }
}

/// A target of attacks: a method, a path, and the type of its body.
#[derive(Clone, Debug)]
struct Target {
    method: Method,
    path: String,
    kind: &'static str,
    /// The beginning of a well-formed body.
    begins: &'static str,
}

impl Target {
    fn head(&self, cookie: &str, more: &str) -> String {
        let Self { method, path, kind, .. } = self;
        format!(
            "{method} {path} HTTP/1.1\r\nHost: hark\r\nAccept: application/json\r\nCookie: {cookie}\r\n\
             Authorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n{more}"
        )
    }

    /// Whether its route reads the body.
    fn reads(&self) -> bool {
        let path = &self.path;
        let server_function = path.starts_with("/api/") && !path.starts_with("/api/v1/") && !path.ends_with(".json");
        let v1 = ["/reports", "/segments", "/status"].iter().any(|end| path.ends_with(end));
        match self.method {
            Method::POST => server_function || path == "/api/v1/sessions" || v1,
            Method::PUT => v1,
            // Parts of an upload are read only if they say that they are some.
            Method::PATCH => path.contains("/sessions/") || self.kind.contains("offset"),
            _ => false,
        }
    }
}

/// The type of a part of an upload, with the headers that it needs, and the checksum of another one, so that none is ever taken.
const PART: &str = "application/offset+octet-stream\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\
    Upload-Checksum: sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=";

const FILE: &str = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";

/// Creates a session of this visitor that no engine works on.
async fn session(me: &Visitor) -> String {
    let request = me.request("POST", "/api/v1/sessions").bearer_auth(TOKEN).json(&json!({"title": "x"}));
    let response = me.send(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    response.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// Begins an upload in parts, as large as this node accepts.
async fn upload(me: &Visitor) -> String {
    let request =
        me.request("POST", "/api/v1/uploads").header("Tus-Resumable", "1.0.0").header("Upload-Length", 1_000_000);
    let response = me.send(request).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    response.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// Every route of the OpenAPI document, every server function, and the routes that are in neither.
async fn targets(me: &Visitor) -> Vec<Target> {
    let document = me.json("/api/openapi.json").await;
    let mut targets = Vec::new();
    let target = |method: Method, path: &str, kind, begins| Target { method, path: path.to_owned(), kind, begins };
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let id = match () {
                () if path.starts_with("/api/v1/uploads/") => upload(me).await,
                () if path.contains("{id}") => session(me).await,
                () => String::new(),
            };
            let path = path.replace("{id}", &id).replace("{format}", "txt");
            assert!(!path.contains('{'), "{path}");
            if method == Method::PATCH && path.starts_with("/api/v1/uploads/") {
                targets.push(target(method.clone(), &path, PART, "x"));
            }
            if method == Method::POST && path == "/api/v1/sessions" {
                targets.push(target(method.clone(), &path, "multipart/form-data; boundary=x", FILE));
            }
            targets.push(target(method, &path, "application/json", "{\"title\": \"x"));
        }
    }
    assert!(targets.len() > 20, "{targets:?}");
    let functions: Vec<_> = server_fn_paths().collect();
    assert!(functions.len() > 8, "{functions:?}");
    for (path, method) in functions {
        targets.push(target(method, path, "application/x-www-form-urlencoded", "id="));
    }
    for path in ["/", "/upload", "/sessions/x", "/healthz", "/readyz", "/metrics", "/pkg/none.js", "/api/openapi.json"]
    {
        targets.push(target(Method::GET, path, "text/plain", "x"));
        targets.push(target(Method::POST, path, "text/plain", "x"));
    }
    targets
}

/// Attacks all targets, several at a time, and returns the results.
async fn attack_all(
    address: &str,
    targets: &[Target],
    attack: impl Fn(&Target) -> (String, Rest),
) -> Vec<(Target, Ended)> {
    // Fewer at a time if they send as fast as they can, which keeps the machine busy.
    let endless = targets.first().is_some_and(|target| matches!(attack(target).1, Rest::Endless(_)));
    let some = Arc::new(Semaphore::new(if endless { 6 } else { 12 }));
    let mut attacks = JoinSet::new();
    for target in targets {
        let (first, rest) = attack(target);
        let (address, some, target) = (address.to_owned(), Arc::clone(&some), target.clone());
        attacks.spawn(async move {
            let _one = some.acquire().await.unwrap();
            (target, send(&address, first.as_bytes(), rest).await)
        });
    }
    attacks.join_all().await
}

async fn every_route_limits_endless_requests(path: &str) {
    let folder = TempDir::new().unwrap();
    let node = node(&folder, &["--stream-path", path]).start();
    let (me, address) = (node.visitor(), address(&node.url));
    let cookie = &me.cookie().await;
    let targets = targets(&me).await;
    // Uses each route once normally, so that what it allocates at its first use exists.
    attack_all(&address, &targets, |t| {
        (t.head(cookie, "Connection: close\r\nContent-Length: 1\r\n\r\nx"), Rest::Nothing)
    })
    .await;
    const PIECE: &[u8] = &[b'y'; 16 * 1024];
    let chunk: &[u8] = format!("1000\r\n{}\r\n", "y".repeat(0x1000)).leak().as_bytes();
    attack_all(&address, &targets, |t| (t.head(cookie, "Content-Length: 1000000000000\r\n\r\n"), Rest::Endless(PIECE)))
        .await;
    // And attacked once in each way, so that the allocator has had its first peak.
    attack_all(&address, &targets, |t| (t.head(cookie, "Transfer-Encoding: chunked\r\n\r\n"), Rest::Endless(chunk)))
        .await;
    attack_all(&address, &targets[..4], |t| (t.head(cookie, "Content-Length: 5000\r\n\r\n"), Rest::Nothing)).await;
    with_flat_memory(&node, async || {
        // A body whose declared size is larger than any route allows.
        let sized = attack_all(&address, &targets, |t| {
            (t.head(cookie, &format!("Content-Length: 1000000000000\r\n\r\n{}", t.begins)), Rest::Endless(PIECE))
        });
        for (target, ended) in sized.await {
            assert_eq!(ended.status, Some(413), "{target:?}: {}", ended.text);
            if target.method == Method::HEAD {
                continue;
            }
            let error = &ended.json();
            let code = if error["error"].is_object() { &error["error"]["code"] } else { &error["code"] };
            assert_eq!(code, "too_large", "{target:?}: {error}");
        }
        // The same without a declared size.
        let chunked = attack_all(&address, &targets, |t| {
            let begins = format!("{:x}\r\n{}\r\n", t.begins.len(), t.begins);
            (t.head(cookie, &format!("Transfer-Encoding: chunked\r\n\r\n{begins}")), Rest::Endless(chunk))
        });
        for (target, ended) in chunked.await {
            assert!(ended.status.is_some(), "{target:?} wasn't answered");
            if target.reads() {
                assert_eq!(ended.status, Some(413), "{target:?}: {}", ended.text);
            }
        }
        // A body that never comes, and one that comes byte by byte.
        for rest in [Rest::Nothing, Rest::Slowly(b"y", 300)] {
            let never = attack_all(&address, &targets, |t| {
                (t.head(cookie, &format!("Content-Length: 5000\r\n\r\n{}", t.begins)), rest)
            });
            for (target, ended) in never.await {
                assert!(ended.status.is_some(), "{target:?} wasn't answered");
                if target.reads() {
                    assert_eq!(ended.status, Some(408), "{target:?}: {}", ended.text);
                }
            }
        }
        // A head that comes line by line or byte by byte, and one that is too large.
        for rest in [Rest::Slowly(b"X: y\r\n", 300), Rest::Slowly(b"y", 300)] {
            for (target, ended) in attack_all(&address, &targets, |t| (t.head(cookie, "X: y"), rest)).await {
                assert_eq!(ended.status, Some(408), "{target:?}: {}", ended.text);
            }
        }
        for (target, ended) in attack_all(&address, &targets, |t| (t.head(cookie, "X: y"), Rest::Endless(PIECE))).await
        {
            assert_eq!(ended.status, Some(431), "{target:?}: {}", ended.text);
        }
    })
    .await;
    assert_eq!(me.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_limits_endless_requests_direct() {
    every_route_limits_endless_requests("direct").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_limits_endless_requests_hyper() {
    every_route_limits_endless_requests("hyper").await;
}

/// The head of an upload of `length` bytes, or in chunks.
fn upload_head(cookie: &str, length: Option<u64>) -> String {
    let length = length.map_or("Transfer-Encoding: chunked".to_owned(), |length| format!("Content-Length: {length}"));
    format!(
        "POST /api/v1/sessions HTTP/1.1\r\nHost: hark\r\nCookie: {cookie}\r\n\
         Content-Type: multipart/form-data; boundary=x\r\n{length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_with_endless_parts_are_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder, &["--max-upload-bytes", "1000000000"]).start();
    let (me, address) = (node.visitor(), &address(&node.url));
    let cookie = &me.cookie().await;
    me.upload("a.wav", wav(1.0, 1.0), &[]).await;
    let head = upload_head(cookie, Some(900_000_000));
    const LINES: &[u8] = &[b'\n'; 16 * 1024];
    let part = "--x\r\nContent-Disposition: form-data; name=\"later\"\r\n\r\ny\r\n";
    with_flat_memory(&node, async || {
        for (begins, rest) in [
            ("", Rest::Endless(LINES)),
            ("--", Rest::Endless(b"x--x---x\r\n--")),
            ("--x\r\nContent-Disposition: form-data; name=\"", Rest::Endless(&[b'y'; 16 * 1024])),
            ("--x\r\n", Rest::Endless(b"X-Y: z\r\n")),
            ("--x", Rest::Endless(&[b' '; 4096])),
            ("", Rest::Endless(part.as_bytes())),
        ] {
            let ended = send(address, format!("{head}{begins}").as_bytes(), rest).await;
            assert_eq!((ended.status, ended.code().as_str()), (Some(400), "bad_request"), "{begins}: {}", ended.text);
        }
        // A boundary that is too long.
        let long = head.replace("boundary=x", &format!("boundary={}", "x".repeat(71)));
        let ended = send(address, long.as_bytes(), Rest::Nothing).await;
        assert_eq!((ended.status, ended.code().as_str()), (Some(400), "bad_request"), "{}", ended.text);
    })
    .await;
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    // Unknown fields are skipped, even large ones; the whole request has a limit.
    let form = reqwest::multipart::Form::new()
        .text("later", "y".repeat(500_000))
        .part("file", reqwest::multipart::Part::bytes(wav(1.0, 1.0)).file_name("a.wav"));
    let taken = me.send(me.request("POST", "/api/v1/sessions").multipart(form)).await;
    assert_eq!(taken.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_are_limited_and_given_up() {
    let folder = TempDir::new().unwrap();
    let flags = ["--max-uploads", "6", "--max-uploads-per-address", "5", "--max-uploads-per-owner", "2"];
    let node = node(&folder, &[&flags[..], &["--trusted-proxies", "127.0.0.1"]].concat()).start();
    let (me, address) = (node.visitor(), &address(&node.url));
    let cookie = &me.cookie().await;
    me.upload("a.wav", wav(1.0, 1.0), &[]).await;
    // Tests the limits of an owner with a cookie, of an address without one, and of the node.
    let slow = |from: u8, cookie: &str| {
        let head = upload_head(cookie, Some(900_000));
        let head = head.replace("Host: hark", &format!("Host: hark\r\nX-Forwarded-For: 192.0.2.{from}"));
        let (first, address) = (format!("{head}{FILE}{}", "y".repeat(100)), address.clone());
        tokio::spawn(async move { send(&address, first.as_bytes(), Rest::Slowly(b"y", 500)).await })
    };
    let uploads = with_flat_memory(&node, async || {
        let mut uploads = Vec::new();
        for n in 0..60 {
            uploads.push(match n {
                0..20 => slow(1, cookie),
                20..40 => slow(1, ""),
                _ => slow(u8::try_from(n).unwrap(), ""),
            });
        }
        let mut ended = Vec::new();
        for upload in uploads {
            ended.push(upload.await.unwrap());
        }
        ended
    })
    .await;
    let mut counts = std::collections::BTreeMap::<(u16, String), usize>::new();
    for ended in &uploads {
        *counts.entry((ended.status.unwrap(), ended.code())).or_default() += 1;
        if ended.status != Some(408) {
            assert!(ended.text.contains("retry-after: 60"), "{}", ended.text);
        }
    }
    let slow = counts[&(408, "upload_too_slow".to_owned())];
    // At least as many as there are permits; more if some came after others had ended.
    assert!((6..=30).contains(&slow), "{counts:?}");
    let full = counts.get(&(429, "too_many_uploads".to_owned())).copied().unwrap_or_default();
    let all = counts.get(&(503, "too_many_uploads".to_owned())).copied().unwrap_or_default();
    assert_eq!(slow + full + all, 60, "{counts:?}");
    // All permits were given back.
    assert_eq!(me.upload("a.wav", wav(1.0, 1.0), &[]).await.status(), StatusCode::CREATED);
    assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
}

/// Opens connections that send nothing.
async fn silent(address: &str, n: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..n {
        sockets.push(time::timeout(TIMEOUT, TcpStream::connect(address)).await.expect("room in the queue").unwrap());
    }
    sockets
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_end_and_leave_room_for_health_checks() {
    let folder = TempDir::new().unwrap();
    let node = node(&folder, &["--head-secs", "8"]).by(&["prlimit", "--nofile=256:256"]).start();
    let address = &address(&node.url);
    let silent = silent(address, 400).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let ended = ask(address, &format!("GET {path} HTTP/1.1\r\nHost: hark")).await;
        assert_eq!(ended.status, Some(200), "{path}: {}", ended.text);
    }
    for head in ["GET / HTTP/1.1\r\nHost: hark", "GET /api/v1/status/stream HTTP/1.1\r\nHost: hark"] {
        let ended = ask(address, head).await;
        assert_eq!((ended.status, ended.code().as_str()), (Some(503), "too_many_connections"), "{}", ended.text);
        assert!(ended.text.contains("retry-after: 10"), "{}", ended.text);
    }
    // The client keeps them open, so the node must close them.
    let ended = async {
        for mut socket in silent {
            let mut byte = [0];
            assert!(matches!(socket.read(&mut byte).await, Ok(0) | Err(_)), "a silent socket was answered");
        }
    };
    time::timeout(TIMEOUT, ended).await.expect("silent sockets end");
    let ended = ask(address, "GET / HTTP/1.1\r\nHost: hark").await;
    assert_eq!(ended.status, Some(200), "{}", ended.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_by_address() {
    let flags = ["--max-connections-per-address", "20", "--head-secs", "60"];
    for (proxies, status) in [(None, 429), (Some("127.0.0.0/8"), 200)] {
        let proxies: Vec<&str> = proxies.into_iter().flat_map(|network| ["--trusted-proxies", network]).collect();
        let app = TestApp::with(&[&flags[..], &proxies].concat()).await;
        let address = &address(&app.url);
        let silent = silent(address, 20).await;
        let ended = ask(address, "GET / HTTP/1.1\r\nHost: hark").await;
        assert_eq!(ended.status, Some(status), "{}", ended.text);
        if status == 429 {
            assert_eq!(ended.code(), "too_many_connections");
            assert!(ended.text.contains("20") && ended.text.contains("retry-after: 10"), "{}", ended.text);
        }
        assert_eq!(ask(address, "GET /healthz HTTP/1.1\r\nHost: hark").await.status, Some(200));
        drop(silent);
        let again = async {
            while ask(address, "GET / HTTP/1.1\r\nHost: hark").await.status != Some(200) {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(TIMEOUT, again).await.expect("permits are given back");
    }
}

/// A minimal HTTP/2 client: RFC 9113.
struct Http2 {
    socket: TcpStream,
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

impl Http2 {
    async fn connect(address: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut client = Self { socket };
        client.write(SETTINGS, 0, 0, &[]).await;
        client
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).await.is_ok()
    }

    async fn read(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.socket.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], payload))
    }

    /// Acknowledges settings and pings until the connection ends; returns the types of the frames received.
    async fn until_the_end(&mut self) -> Vec<u8> {
        let mut kinds = Vec::new();
        let all = async {
            while let Some((kind, flags, payload)) = self.read().await {
                kinds.push(kind);
                if [SETTINGS, PING].contains(&kind) && flags & 1 == 0 {
                    let payload = if kind == PING { payload } else { Vec::new() };
                    self.write(kind, 1, 0, &payload).await;
                }
            }
        };
        time::timeout(TIMEOUT, all).await.expect("the connection ends");
        kinds
    }

    /// Starts a request with a body.
    async fn post(&mut self, path: &str, length: Option<&str>) {
        // HPACK, RFC 7541: POST, http, and literals without indexing.
        let mut block = vec![0x83, 0x86];
        let mut literal = |name: u8, value: &str| {
            if name > 14 {
                block.extend([0x0f, name - 15]);
            } else {
                block.push(name);
            }
            block.push(u8::try_from(value.len()).unwrap());
            block.extend(value.as_bytes());
        };
        literal(4, path);
        literal(1, "hark");
        if let Some(length) = length {
            literal(28, length);
        }
        self.write(HEADERS, 4, 1, &block).await;
    }

    async fn get(&mut self, path: &str) {
        self.get_on(1, path).await;
    }

    /// The same on a stream of another number, which is odd.
    async fn get_on(&mut self, stream: u32, path: &str) {
        let mut block = vec![0x82, 0x86, 4, u8::try_from(path.len()).unwrap()];
        block.extend(path.as_bytes());
        block.extend([1, 4]);
        block.extend(b"hark");
        self.write(HEADERS, 5, stream, &block).await;
    }

    /// The first frame of an answer.
    async fn answer(&mut self) -> Vec<u8> {
        let answer = async {
            loop {
                match self.read().await.expect("an answer") {
                    (HEADERS, _, block) => return block,
                    (PING, 0, payload) => drop(self.write(PING, 1, 0, &payload).await),
                    _ => {}
                }
            }
        };
        time::timeout(TIMEOUT, answer).await.expect("an answer in time")
    }
}

/// Asserts that a frame begins with this status. One that isn't in HPACK's static table is a literal of three digits, with
/// the name of index 8.
fn literal(status: &str, block: &[u8]) {
    let huffman: &[u8] = match status {
        "408" => &[0x83, 0x68, 0x0f, 0x7f],
        "413" => &[0x83, 0x68, 0x2c, 0xff],
        "429" => &[0x83, 0x68, 0x4f, 0xff],
        other => panic!("the code of {other} isn't here"),
    };
    assert!(block.starts_with(&[0x48]), "{block:?}");
    let plain = [&[3], status.as_bytes()].concat();
    assert!(block[1..].starts_with(&plain) || block[1..].starts_with(huffman), "{status}: {block:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_http2_are_limited_as_connections_are() {
    let folder = TempDir::new().unwrap();
    for path in PATHS {
        let node = node(&folder, &["--stream-path", path, "--max-connections-per-address", "3"]).start();
        let address = &address(&node.url);
        // Two connections that take nothing of their answers.
        let mut open = [Http2::connect(address).await, Http2::connect(address).await];
        for connection in &mut open {
            connection.write(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
        }
        let [first, second] = &mut open;
        for stream in [1, 3] {
            first.get_on(stream, "/api/v1/engines").await;
            assert_eq!(first.answer().await[0], 0x88, "200");
        }
        second.get_on(1, "/api/openapi.json").await;
        assert_eq!(second.answer().await[0], 0x88, "200");
        second.get_on(3, "/api/v1/engines").await;
        literal("429", &second.answer().await);
        first.get_on(5, "/api/v1/engines").await;
        literal("429", &first.answer().await);
        // What a client cancels makes room (RST_STREAM, CANCEL).
        const RST_STREAM: u8 = 3;
        first.write(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await;
        let again = async {
            for stream in (7..).step_by(2) {
                first.get_on(stream, "/api/v1/engines").await;
                if first.answer().await[0] == 0x88 {
                    break;
                }
            }
        };
        time::timeout(TIMEOUT, again).await.expect("room after a request was cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_http2_connections_end() {
    let folder = TempDir::new().unwrap();
    for path in PATHS {
        let node = node(&folder, &["--stream-path", path, "--max-body-bytes", "20000"]).start();
        let address = &address(&node.url);
        // The preface never comes, or only half of it.
        for first in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM"] {
            let ended = send(address, first, Rest::Nothing).await;
            assert!(ended.status.is_none_or(|status| status == 408), "{}", ended.text);
        }
        // Nothing after the preface, so no ping is answered.
        let mut silent = Http2::connect(address).await;
        let gone = async { while silent.read().await.is_some() {} };
        time::timeout(TIMEOUT, gone).await.expect("a client that answers no ping is gone");
        // All pings are answered, and nothing is requested.
        let mut idle = Http2::connect(address).await;
        let kinds = idle.until_the_end().await;
        assert!(kinds.contains(&PING) && kinds.contains(&GOAWAY), "{kinds:?}");
        // An answer for which the client opens no window.
        let mut full = Http2::connect(address).await;
        full.write(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
        full.get("/api/openapi.json").await;
        let kinds = full.until_the_end().await;
        assert!(kinds.contains(&HEADERS) && !kinds.contains(&DATA), "{kinds:?}");
        // A body that never comes, an endless one, and one whose declared size is too large.
        let mut never = Http2::connect(address).await;
        never.post("/api/v1/reports", None).await;
        literal("408", &never.answer().await);
        let mut large = Http2::connect(address).await;
        large.post("/api/v1/reports", Some("1000000000000")).await;
        literal("413", &large.answer().await);
        let mut endless = Http2::connect(address).await;
        endless.post("/api/v1/reports", None).await;
        for _ in 0..2 {
            endless.write(DATA, 0, 1, &[0; 16_000]).await;
        }
        literal("413", &endless.answer().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_slow_second_heads_time_out() {
    let folder = TempDir::new().unwrap();
    for path in PATHS {
        let node = node(&folder, &["--stream-path", path]).start();
        let address = &address(&node.url);
        let first = b"GET /healthz HTTP/1.1\r\nHost: hark\r\n\r\n";
        // Nothing after the first answer; and a second head that never ends.
        for rest in [Rest::Nothing, Rest::Slowly(b"y", 300)] {
            let ended = send(address, first, rest).await;
            assert_eq!(ended.status, Some(200), "{}", ended.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_exactly_one_allowed_host() {
    for path in PATHS {
        let app = TestApp::with(&["--stream-path", path, "--hosts", "hark.example.org,127.0.0.1"]).await;
        let address = &address(&app.url);
        for target in ["/", "/api/v1/sessions", "/api/v1/status/stream", "/api/v1/nothing", "/healthz"] {
            for hosts in ["", "\r\nHost: 127.0.0.1\r\nHost: evil.example", "\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1"] {
                let ended = ask(address, &format!("GET {target} HTTP/1.1{hosts}")).await;
                assert_eq!(
                    (ended.status, ended.code().as_str()),
                    (Some(400), "bad_request"),
                    "{target}: {}",
                    ended.text
                );
            }
        }
        // As from a page of evil.example after DNS rebinding to this machine.
        for target in ["/", "/api/v1/sessions", "/api/v1/status/stream", "/pkg/hark.js", "http://evil.example/"] {
            let ended = ask(address, &format!("GET {target} HTTP/1.1\r\nHost: evil.example")).await;
            assert_eq!((ended.status, ended.code().as_str()), (Some(421), "unknown_host"), "{target}: {}", ended.text);
            assert!(ended.text.contains("HARK_HOSTS"), "{}", ended.text);
        }
        for target in ["/healthz", "/readyz", "/metrics", "/api/v1/health/sessions"] {
            let ended = ask(address, &format!("GET {target} HTTP/1.1\r\nHost: 10.0.0.7:9100")).await;
            assert_eq!(ended.status, Some(200), "{target}: {}", ended.text);
        }
        for host in ["hark.example.org", "HARK.example.org:8443", &address.clone()] {
            let ended = ask(address, &format!("GET /api/v1/sessions HTTP/1.1\r\nHost: {host}")).await;
            assert_eq!(ended.status, Some(200), "{host}: {}", ended.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_are_refused_with_a_message() {
    let app = TestApp::start().await;
    let address = &address(&app.url);
    for head in [
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443",
        "CONNECT / HTTP/1.1\r\nHost: hark",
        "TRACE / HTTP/1.1\r\nHost: hark",
        "BREW /api/v1/sessions HTTP/1.1\r\nHost: hark",
        "PUT /api/v1/sessions HTTP/1.1\r\nHost: hark",
        "DELETE /healthz HTTP/1.1\r\nHost: hark",
    ] {
        let ended = ask(address, head).await;
        assert_eq!((ended.status, ended.code().as_str()), (Some(405), "method_not_allowed"), "{head}: {}", ended.text);
        assert!(ended.text.contains("\r\nallow: "), "{head}: {}", ended.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_security_headers() {
    for path in PATHS {
        let app = TestApp::with(&["--stream-path", path, "--worker-token", TOKEN]).await;
        let address = &address(&app.url);
        for line in [
            "GET /",
            "GET /upload",
            "GET /healthz",
            "GET /readyz",
            "GET /metrics",
            "GET /api/openapi.json",
            "GET /api/v1/sessions",
            "GET /api/v1/sessions/x/status/stream",
            "PUT /api/v1/sessions/x/status",
            "POST /api/v1/sessions/x/segments",
            "GET /pkg/none.js",
            "TRACE /",
        ] {
            let ended = ask(address, &format!("{line} HTTP/1.1\r\nHost: hark\r\nX-Forwarded-Proto: https")).await;
            for header in [
                "x-content-type-options: nosniff",
                "referrer-policy: same-origin",
                "cross-origin-opener-policy: same-origin",
                "cross-origin-resource-policy: same-origin",
                "permissions-policy: camera=()",
                "strict-transport-security: max-age=15552000",
            ] {
                assert!(ended.text.contains(&format!("\r\n{header}")), "{line} lacks {header}: {}", ended.text);
            }
            let plain = ask(address, &format!("{line} HTTP/1.1\r\nHost: hark")).await;
            assert!(!plain.text.contains("strict-transport-security"), "{}", plain.text);
        }
        // A stream, of which only the head is read.
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /api/v1/status/stream HTTP/1.1\r\nHost: hark\r\n\r\n").await.unwrap();
        let mut text = String::new();
        while !text.contains("\r\n\r\n") {
            let mut piece = [0; 1024];
            let n = time::timeout(TIMEOUT, socket.read(&mut piece)).await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece[..n]).unwrap());
        }
        for header in ["x-content-type-options: nosniff", "cross-origin-resource-policy: same-origin"] {
            assert!(text.contains(&format!("\r\n{header}")), "{text}");
        }
    }
}

/// Leptos itself answers arguments that it can't read with 500.
#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_cannot_be_read_are_no_fault_of_the_server() {
    let app = TestApp::start().await;
    let me = app.visitor();
    me.cookie().await;
    let mut malformed = 0;
    for (path, method) in server_fn_paths() {
        for body in ["", "id=x", "id[]=1&id[x]=2&nothing=%ff", "{}"] {
            let request = me.request(method.as_str(), path).header("accept", "application/json");
            let answer = me.send(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await;
            let status = answer.status();
            assert!(!status.is_server_error(), "{method} {path} with '{body}': {status}");
            malformed += usize::from(status == StatusCode::BAD_REQUEST);
        }
    }
    assert!(malformed > 20, "{malformed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_not_decompressed() {
    let app = TestApp::start().await;
    let me = app.visitor();
    me.cookie().await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &vec![b' '; 10_000_000]).unwrap();
    let request = me.request("POST", "/api/v1/reports").header("content-encoding", "gzip");
    let answer = me.send(request.body(packed.finish().unwrap())).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
}
