//! The load: streams over raw sockets, changes over a few kept-alive connections, and what arrived when.
//! One thread, one small task a stream, so that the generator isn't what is measured.

use crate::{
    Scenario,
    peer::{Kind, Server, TOKEN},
};
use hdrhistogram::Histogram;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinSet, LocalSet},
};

/// Connections that publish.
const PUBLISHERS: usize = 16;
/// How many streams are opened at the same time.
const OPENING: usize = 64;
/// How long stragglers have after the last change.
const SETTLE: Duration = Duration::from_secs(3);
/// Stands before what a change says about itself: its session, its number and when it was sent.
const MARK: &[u8] = b"\"message\":\"~";

/// What came of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    pub delivered: u64,
    /// Changes that a stream skipped because a newer one was there.
    pub skipped: u64,
    /// Streams that never got the last change of their session.
    pub lost: u64,
    pub doubled: u64,
    /// Nanoseconds from before the request was written until the event was read: median, p99, p99.9.
    pub latency: [u64; 3],
    /// Nanoseconds from connect to the first event: median, p99.
    pub connect: [u64; 2],
    /// Streams that ended before the end.
    pub broken: u64,
}

struct Shared {
    epoch: Instant,
    latency: Histogram<u64>,
    connect: Histogram<u64>,
    delivered: u64,
    skipped: u64,
    doubled: u64,
    broken: u64,
    open: usize,
    measuring: bool,
    /// The last number each stream saw, and its session.
    seen: Vec<(usize, i64)>,
}

/// Streams and sessions on a server.
pub struct Load {
    kind: Kind,
    addr: SocketAddr,
    scenario: Scenario,
    cookie: String,
    ids: Vec<String>,
    shared: Rc<RefCell<Shared>>,
    local: LocalSet,
}

impl Load {
    /// Makes the sessions, each with a first status.
    pub async fn prepare(server: &Server, scenario: Scenario) -> Result<Self, String> {
        let (kind, addr) = (server.kind, server.addr);
        let mut connection = Connection::open(addr).await?;
        let mut cookie = String::new();
        let mut ids = Vec::with_capacity(scenario.sessions);
        if kind == Kind::Hark {
            let (head, _) = connection.request(&format!("GET /api/v1/sessions HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await?;
            let set = head.lines().find_map(|l| l.strip_prefix("set-cookie: hark_owner="));
            let value = set.and_then(|v| v.split(';').next()).ok_or("no cookie")?;
            cookie = format!("Cookie: hark_owner={value}\r\n");
        }
        for n in 0..scenario.sessions {
            if kind != Kind::Hark {
                ids.push(format!("0192f0c1-7c1e-7bb0-8000-{n:012x}"));
                continue;
            }
            let body = format!("{{\"title\":\"Session {n}\",\"duration_total\":600}}");
            let (_, answer) = connection
                .request(&format!(
                    "POST /api/v1/sessions HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {TOKEN}\r\n{cookie}\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ))
                .await?;
            let session: serde_json::Value = serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}"))?;
            ids.push(session["id"].as_str().ok_or("no id")?.to_owned());
        }
        let epoch = Instant::now();
        let histogram = || Histogram::new_with_bounds(1000, 100_000_000_000, 3).map_err(|e| e.to_string());
        let shared = Shared {
            epoch,
            latency: histogram()?,
            connect: histogram()?,
            delivered: 0,
            skipped: 0,
            doubled: 0,
            broken: 0,
            open: 0,
            measuring: false,
            seen: Vec::new(),
        };
        let shared = Rc::new(RefCell::new(shared));
        let load = Self { kind, addr, scenario, cookie, ids, shared, local: LocalSet::new() };
        for session in 0..load.ids.len() {
            let request = load.change(session, 0);
            connection.request(&request).await?;
        }
        Ok(load)
    }

    /// Opens the streams and waits until each has its first event.
    pub async fn connect(&mut self) -> Result<(), String> {
        let gate = Rc::new(tokio::sync::Semaphore::new(OPENING));
        for n in 0..self.scenario.streams {
            let session = n % self.ids.len();
            self.shared.borrow_mut().seen.push((session, -1));
            let id = &self.ids[session];
            let path = match self.kind {
                Kind::Hark => format!("/api/v1/sessions/{id}/status/stream"),
                Kind::Nchan => format!("/sub/{id}"),
                Kind::Axum => format!("/sessions/{id}/stream"),
            };
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\n{}Accept: text/event-stream\r\n\r\n",
                self.addr, self.cookie
            );
            let (shared, gate, addr) = (Rc::clone(&self.shared), Rc::clone(&gate), self.addr);
            self.local.spawn_local(async move {
                let _ = stream(n, addr, request, gate, &shared).await;
                shared.borrow_mut().broken += 1;
            });
        }
        let (shared, wanted) = (Rc::clone(&self.shared), self.scenario.streams);
        let all = async move {
            while shared.borrow().open < wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waiting = tokio::time::timeout(Duration::from_secs(120), self.local.run_until(all));
        waiting.await.map_err(|_| format!("only {} streams opened", self.shared.borrow().open))
    }

    /// Publishes at the scenario's rate, waits for stragglers, and counts.
    pub async fn run(&mut self) -> Result<Outcome, String> {
        let total = self.scenario.rate * self.scenario.duration.as_secs();
        self.shared.borrow_mut().measuring = true;
        let mut publishers = JoinSet::new();
        let start = Instant::now() + Duration::from_millis(50);
        for publisher in 0..PUBLISHERS {
            let mut connection = Connection::open(self.addr).await?;
            let changes: Vec<(u64, usize, i64)> = (publisher as u64..total)
                .step_by(PUBLISHERS)
                .map(|n| (n, n as usize % self.ids.len(), (n as usize / self.ids.len()) as i64 + 1))
                .collect();
            let writer = self.writer();
            let interval = Duration::from_secs(1).div_f64(self.scenario.rate as f64);
            publishers.spawn_local_on(
                async move {
                    for (n, session, number) in changes {
                        let due = start + interval.mul_f64(n as f64);
                        // The timer knows milliseconds only; the rest is waited out while others go on.
                        if let Some(wait) = due.checked_duration_since(Instant::now() + Duration::from_millis(2)) {
                            tokio::time::sleep(wait).await;
                        }
                        while Instant::now() < due {
                            tokio::task::yield_now().await;
                        }
                        connection.request(&writer.change(session, number)).await?;
                    }
                    Ok::<(), String>(())
                },
                &self.local,
            );
        }
        let done = async move {
            while let Some(publisher) = publishers.join_next().await {
                publisher.map_err(|e| e.to_string())??;
            }
            tokio::time::sleep(SETTLE).await;
            Ok::<(), String>(())
        };
        self.local.run_until(done).await?;
        let shared = self.shared.borrow();
        let last = |session: usize| {
            let sessions = self.ids.len() as u64;
            (total + sessions - 1 - session as u64) / sessions
        };
        let lost = shared.seen.iter().filter(|(session, seen)| *seen < last(*session) as i64).count() as u64;
        Ok(Outcome {
            published: total,
            delivered: shared.delivered,
            skipped: shared.skipped,
            lost,
            doubled: shared.doubled,
            latency: [0.5, 0.99, 0.999].map(|q| shared.latency.value_at_quantile(q)),
            connect: [0.5, 0.99].map(|q| shared.connect.value_at_quantile(q)),
            broken: shared.broken,
        })
    }

    fn writer(&self) -> Writer {
        Writer {
            kind: self.kind,
            addr: self.addr,
            ids: self.ids.clone().into(),
            epoch: self.shared.borrow().epoch,
        }
    }

    fn change(&self, session: usize, number: i64) -> String {
        self.writer().change(session, number)
    }
}

/// Writes requests that publish.
struct Writer {
    kind: Kind,
    addr: SocketAddr,
    ids: Rc<[String]>,
    epoch: Instant,
}

impl Writer {
    fn change(&self, session: usize, number: i64) -> String {
        let (id, addr) = (&self.ids[session], self.addr);
        let progress = (number as f64 / 100.0).min(99.0);
        let now = self.epoch.elapsed().as_nanos();
        if self.kind == Kind::Hark {
            let body = format!(
                "{{\"version\":{},\"status\":\"processing\",\"stage\":\"transcribing\",\"progress\":{progress},\
                 \"message\":\"~{number} {now}\",\"duration_processed\":130.4,\"duration_total\":302.1,\
                 \"processing_speed\":2.3}}",
                number + 10
            );
            return format!(
                "PUT /api/v1/sessions/{id}/status HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {TOKEN}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
        // What Hark makes of the same report, so that all send events of one size.
        let body = format!(
            "{{\"session_id\":\"{id}\",\"version\":{},\"status\":\"processing\",\"stage\":\"transcribing\",\
             \"progress\":{progress},\"message\":\"~{number} {now}\",\"timestamp\":\"2026-01-01T00:00:00.000Z\",\
             \"duration_processed\":130.4,\"duration_total\":302.1,\"estimated_completion\":null,\
             \"processing_speed\":2.3,\"segments\":0,\"queue_position\":null,\"attempt\":1,\"error\":null}}",
            number + 10
        );
        let (method, path) = match self.kind {
            Kind::Nchan => ("POST", "pub"),
            _ => ("PUT", "sessions"),
        };
        format!(
            "{method} /{path}/{id} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Reads one stream to its end.
async fn stream(
    n: usize,
    addr: SocketAddr,
    request: String,
    gate: Rc<tokio::sync::Semaphore>,
    shared: &RefCell<Shared>,
) -> std::io::Result<()> {
    let mut permit = gate.acquire().await.ok();
    let begun = Instant::now();
    let mut socket = TcpStream::connect(addr).await?;
    socket.set_nodelay(true)?;
    socket.write_all(request.as_bytes()).await?;
    drop(request);
    // What of a line has come so far; nearly always nothing.
    let mut rest: Vec<u8> = Vec::new();
    loop {
        socket.readable().await?;
        let mut chunk = [0; 4096];
        let read = match socket.try_read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut text = &chunk[..read];
        let joined;
        if !rest.is_empty() {
            rest.extend_from_slice(text);
            joined = std::mem::take(&mut rest);
            text = &joined;
        }
        let mut shared = shared.borrow_mut();
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let (line, after) = text.split_at(end + 1);
            text = after;
            let Some((number, sent)) = mark(line) else { continue };
            if permit.take().is_some() {
                shared.open += 1;
                shared.connect.saturating_record(begun.elapsed().as_nanos() as u64);
            }
            let (session, seen) = shared.seen[n];
            if number <= seen {
                shared.doubled += 1;
                continue;
            }
            if shared.measuring {
                let now = shared.epoch.elapsed().as_nanos() as u64;
                shared.latency.saturating_record(now.saturating_sub(sent));
                shared.delivered += 1;
                shared.skipped += (number - seen - 1) as u64;
            }
            shared.seen[n] = (session, number);
        }
        if !text.is_empty() {
            rest = text.to_vec();
        }
    }
}

/// A change's number and the time it was sent at, from a line of data.
fn mark(line: &[u8]) -> Option<(i64, u64)> {
    let start = line.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let end = line[start..].iter().position(|b| *b == b'"')?;
    let (number, sent) = std::str::from_utf8(&line[start..start + end]).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, sent.parse().ok()?))
}

/// A kept-alive connection with one request under way at a time.
struct Connection {
    socket: TcpStream,
}

impl Connection {
    async fn open(addr: SocketAddr) -> Result<Self, String> {
        let socket = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self { socket })
    }

    /// Sends a request and reads its answer: head and body. Fails unless the server agreed.
    async fn request(&mut self, request: &str) -> Result<(String, String), String> {
        self.socket.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut answer = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let read = self.socket.read(&mut chunk).await.map_err(|e| e.to_string())?;
            if read == 0 {
                return Err("the server closed the connection".to_owned());
            }
            answer.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() < length.unwrap_or(0) {
                continue;
            }
            if !head.starts_with("HTTP/1.1 2") {
                return Err(format!("{head}\n{body}"));
            }
            return Ok((head.to_owned(), body.to_owned()));
        }
    }
}
