//! The load: streams over raw sockets, changes over a few kept-alive connections, and what arrived when.
//! One thread, one small task a stream, so that the generator isn't what is measured.

use crate::servers::{Servers, TOKEN};
use hdrhistogram::Histogram;
use std::{
    cell::{Cell, RefCell},
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::{JoinSet, LocalSet},
};

/// Connections that publish, each with one change under way at a time.
const PUBLISHERS: usize = 16;
/// How many streams are opened at the same time.
const OPENING: usize = 64;
/// How long stragglers have after the last change.
const SETTLE: Duration = Duration::from_secs(3);
/// After so long a change that didn't arrive is given up.
const LOST: Duration = Duration::from_secs(5);
/// Stands before what a change says about itself: its number and when it was sent.
const MARK: &[u8] = b"\"message\":\"~";

/// How a worker tells of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Over HTTP to a node, which stores and publishes them.
    Reports,
    /// Published to Redis by the worker itself.
    Messages,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reports => "reports",
            Self::Messages => "messages",
        })
    }
}

/// How fast changes come.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second, whatever the answers take.
    Fixed(u64),
    /// Each connection's next as soon as the last has been read from a stream.
    FlatOut,
}

/// What came of a measurement.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    /// Less than were published if streams skipped some for newer ones.
    pub delivered: u64,
    /// Streams that broke off or never got the last change of their session.
    pub lost: u64,
    /// Nanoseconds from before the change was written until the event was read: median, p99.
    pub latency: [u64; 2],
    /// How long changes were published.
    pub seconds: f64,
    /// Seconds of processor time of all servers.
    pub cpu: f64,
}

struct Shared {
    epoch: Instant,
    latency: Histogram<u64>,
    delivered: u64,
    broken: u64,
    open: usize,
    /// The last number that the stream of each session saw.
    seen: Vec<i64>,
    /// Told when it sees another.
    news: Vec<Rc<Notify>>,
}

/// Sessions, each with its stream.
pub struct Load {
    source: Source,
    to: SocketAddr,
    cookie: String,
    ids: Rc<[String]>,
    streams: Vec<SocketAddr>,
    /// The number of the last change of each session.
    last: Rc<RefCell<Vec<i64>>>,
    shared: Rc<RefCell<Shared>>,
    local: LocalSet,
}

impl Load {
    /// Makes the sessions.
    pub async fn prepare(servers: &Servers, source: Source, sessions: usize) -> Result<Self, String> {
        let addr = servers.reports;
        let mut connection = Connection::open(addr).await?;
        let (head, _) = connection.http(&format!("GET /api/v1/sessions HTTP/1.1\r\nHost: {addr}\r\n\r\n")).await?;
        let set = head.lines().find_map(|l| l.strip_prefix("set-cookie: hark_owner="));
        let value = set.and_then(|v| v.split(';').next()).ok_or("no cookie")?;
        let cookie = format!("Cookie: hark_owner={value}\r\n");
        let mut ids = Vec::with_capacity(sessions);
        for n in 0..sessions {
            let body = format!("{{\"title\":\"Session {n}\",\"duration_total\":600}}");
            let request = format!(
                "POST /api/v1/sessions HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {TOKEN}\r\n{cookie}\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let (_, answer) = connection.http(&request).await?;
            let session: serde_json::Value = serde_json::from_str(&answer).map_err(|e| format!("{e}: {answer}"))?;
            ids.push(session["id"].as_str().ok_or("no id")?.to_owned());
        }
        let latency = Histogram::new_with_bounds(1000, 100_000_000_000, 3).map_err(|e| e.to_string())?;
        let shared = Shared {
            epoch: Instant::now(),
            latency,
            delivered: 0,
            broken: 0,
            open: 0,
            seen: vec![-1; sessions],
            news: (0..sessions).map(|_| Rc::default()).collect(),
        };
        let to = match source {
            Source::Reports => addr,
            Source::Messages => servers.redis.ok_or("messages need Redis")?,
        };
        Ok(Self {
            source,
            to,
            cookie,
            ids: ids.into(),
            streams: servers.streams.clone(),
            last: Rc::new(RefCell::new(vec![0; sessions])),
            shared: Rc::new(RefCell::new(shared)),
            local: LocalSet::new(),
        })
    }

    /// Opens a stream for each session, spread over the nodes, and waits until each has its first event.
    pub async fn connect(&mut self) -> Result<(), String> {
        let gate = Rc::new(Semaphore::new(OPENING));
        for (n, id) in self.ids.iter().enumerate() {
            let addr = self.streams[n % self.streams.len()];
            let request = format!(
                "GET /api/v1/sessions/{id}/status/stream HTTP/1.1\r\nHost: {addr}\r\n{}Accept: text/event-stream\r\n\r\n",
                self.cookie
            );
            let (shared, gate) = (Rc::clone(&self.shared), Rc::clone(&gate));
            self.local.spawn_local(async move {
                let _ = stream(n, addr, request, gate, &shared).await;
                shared.borrow_mut().broken += 1;
            });
        }
        let (shared, wanted) = (Rc::clone(&self.shared), self.ids.len());
        let all = async move {
            while shared.borrow().open < wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // A moment for the nodes' subscriptions.
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let waiting = tokio::time::timeout(Duration::from_secs(120), self.local.run_until(all));
        waiting.await.map_err(|_| format!("only {} streams opened", self.shared.borrow().open))
    }

    /// Publishes for so long, waits for stragglers, and counts.
    pub async fn run(&mut self, servers: &Servers, pace: Pace, duration: Duration) -> Result<Outcome, String> {
        {
            let mut shared = self.shared.borrow_mut();
            shared.latency.reset();
            shared.delivered = 0;
        }
        let before = servers.cpu_seconds();
        let published = Rc::new(Cell::new(0));
        let mut publishers = JoinSet::new();
        let start = Instant::now() + Duration::from_millis(50);
        for publisher in 0..PUBLISHERS {
            let mut connection = Connection::open(self.to).await?;
            let (published, last) = (Rc::clone(&published), Rc::clone(&self.last));
            let (ids, source, to) = (Rc::clone(&self.ids), self.source, self.to);
            let shared = Rc::clone(&self.shared);
            let epoch = shared.borrow().epoch;
            let publish = async move {
                // Each connection has sessions of its own, so their changes stay in order.
                let mine: Vec<usize> = (publisher..ids.len()).step_by(PUBLISHERS).collect();
                if mine.is_empty() {
                    return Ok(());
                }
                for n in 0.. {
                    if let Pace::Fixed(rate) = pace {
                        let due =
                            start + Duration::from_secs(1).mul_f64((n * PUBLISHERS + publisher) as f64 / rate as f64);
                        // The timer knows milliseconds only; the rest is waited out while others go on.
                        if let Some(wait) = due.checked_duration_since(Instant::now() + Duration::from_millis(2)) {
                            tokio::time::sleep(wait).await;
                        }
                        while Instant::now() < due {
                            tokio::task::yield_now().await;
                        }
                    }
                    if start.elapsed() >= duration {
                        return Ok(());
                    }
                    let session = mine[n % mine.len()];
                    let number = last.borrow()[session] + 1;
                    let sent = epoch.elapsed().as_nanos();
                    match source {
                        Source::Reports => drop(connection.http(&report(to, &ids[session], number, sent)).await?),
                        Source::Messages => connection.publish(&message(&ids[session], number, sent)).await?,
                    }
                    last.borrow_mut()[session] = number;
                    published.set(published.get() + 1);
                    if let Pace::FlatOut = pace {
                        let news = Rc::clone(&shared.borrow().news[session]);
                        let read = async {
                            while shared.borrow().seen[session] < number {
                                news.notified().await;
                            }
                        };
                        // What is lost is counted in the end.
                        let _ = tokio::time::timeout(LOST, read).await;
                    }
                }
                Ok::<(), String>(())
            };
            publishers.spawn_local_on(publish, &self.local);
        }
        let done = async move {
            while let Some(publisher) = publishers.join_next().await {
                publisher.map_err(|e| e.to_string())??;
            }
            let seconds = start.elapsed().as_secs_f64();
            tokio::time::sleep(SETTLE).await;
            Ok::<f64, String>(seconds)
        };
        let seconds = self.local.run_until(done).await?;
        let cpu = servers.cpu_seconds() - before;
        let shared = self.shared.borrow();
        let behind = shared.seen.iter().zip(self.last.borrow().iter()).filter(|(seen, last)| seen < last).count();
        Ok(Outcome {
            published: published.get(),
            delivered: shared.delivered,
            lost: behind as u64 + shared.broken,
            latency: [0.5, 0.99].map(|q| shared.latency.value_at_quantile(q)),
            seconds,
            cpu,
        })
    }
}

/// A change as a request to a node.
fn report(addr: SocketAddr, id: &str, number: i64, sent: u128) -> String {
    let progress = (number as f64 / 1000.0).min(99.0);
    let body = format!(
        "{{\"version\":{},\"status\":\"processing\",\"stage\":\"transcribing\",\"progress\":{progress},\
         \"message\":\"~{number} {sent}\",\"duration_processed\":130.4,\"duration_total\":302.1,\"processing_speed\":2.3}}",
        number + 10
    );
    format!(
        "PUT /api/v1/sessions/{id}/status HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A change as a command to Redis.
fn message(id: &str, number: i64, sent: u128) -> String {
    let progress = (number as f64 / 1000.0).min(99.0);
    let channel = format!("transcription:status:{id}");
    let body = format!(
        "{{\"session_id\":\"{id}\",\"version\":{},\"status\":\"processing\",\"stage\":\"transcribing\",\
         \"progress\":{progress},\"message\":\"~{number} {sent}\",\"timestamp\":\"2026-01-01T00:00:00.000Z\",\
         \"duration_processed\":130.4,\"duration_total\":302.1,\"estimated_completion\":null,\"processing_speed\":2.3,\
         \"segments\":0,\"queue_position\":null,\"attempt\":1,\"error\":null}}",
        number + 10
    );
    format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{body}\r\n", channel.len(), body.len())
}

/// Reads one stream to its end.
async fn stream(
    n: usize,
    addr: SocketAddr,
    request: String,
    gate: Rc<Semaphore>,
    shared: &RefCell<Shared>,
) -> std::io::Result<()> {
    let mut permit = gate.acquire().await.ok();
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
            if line == b"event: status\n" && permit.take().is_some() {
                shared.open += 1;
            }
            let Some((number, sent)) = mark(line) else { continue };
            if number > shared.seen[n] {
                let now = shared.epoch.elapsed().as_nanos() as u64;
                shared.latency.saturating_record(now.saturating_sub(sent));
                shared.delivered += 1;
                shared.seen[n] = number;
                shared.news[n].notify_one();
            }
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

    async fn read(&mut self, answer: &mut Vec<u8>) -> Result<(), String> {
        match self.socket.read_buf(answer).await.map_err(|e| e.to_string())? {
            0 => Err("the server closed the connection".to_owned()),
            _ => Ok(()),
        }
    }

    /// Sends a request and reads its answer: head and body. Fails unless the server agreed.
    async fn http(&mut self, request: &str) -> Result<(String, String), String> {
        self.socket.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut answer = Vec::with_capacity(2048);
        loop {
            self.read(&mut answer).await?;
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

    /// Sends a command to Redis and reads the number it answers with.
    async fn publish(&mut self, command: &str) -> Result<(), String> {
        self.socket.write_all(command.as_bytes()).await.map_err(|e| e.to_string())?;
        let mut answer = Vec::with_capacity(64);
        while !answer.ends_with(b"\r\n") {
            self.read(&mut answer).await?;
        }
        match answer.first() {
            Some(b':') => Ok(()),
            _ => Err(String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}
