//! The load generator: opens streams, sends changes over a few connections, and records what arrived when.
//! It uses one thread and one small task for each stream, so that it takes little time itself.

use crate::{
    Scenario,
    peer::{Kind, Server},
};
use hdrhistogram::Histogram;
use load::{CONCURRENT_OPENS, Change, Connection, PUBLISHERS, SETTLE_TIME, Sessions, batch, lines, mark, until};
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
};

/// How many changes are in a batch.
const BATCH: usize = 10;

/// The result of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    pub delivered: u64,
    /// Bytes of events, heartbeats included, for each change that was delivered.
    pub bytes_per_event: f64,
    /// The changes that a stream skipped because a newer one was there.
    pub skipped: u64,
    /// The streams that never got the last change of their session.
    pub lost: u64,
    pub doubled: u64,
    /// Nanoseconds from when the change was due until its event was read: median, p99, p99.9.
    pub latency: [u64; 3],
    /// Nanoseconds from connect to the first event: median, p99.
    pub connect: [u64; 2],
    /// The streams that ended too early.
    pub broken: u64,
}

struct Shared {
    epoch: Instant,
    latency: Histogram<u64>,
    connect: Histogram<u64>,
    delivered: u64,
    /// Of all lines that came while changes were measured, without the framing of HTTP.
    bytes: u64,
    skipped: u64,
    doubled: u64,
    broken: u64,
    open: usize,
    measuring: bool,
    /// The last number that each stream received, and its session.
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
    /// Creates the sessions. The other servers have no status to show before a first change, so they get one; Hark's
    /// sessions are queued until the first change that is measured.
    pub async fn prepare(server: &Server, scenario: Scenario) -> Result<Self, String> {
        let (kind, addr) = (server.kind, server.addr);
        let Sessions { cookie, ids } = match kind {
            Kind::Hark | Kind::HarkBatch => Sessions::create(addr, scenario.sessions).await?,
            Kind::Nchan | Kind::Axum => {
                let ids = (0..scenario.sessions).map(|n| format!("0192f0c1-7c1e-7bb0-8000-{n:012x}")).collect();
                Sessions { cookie: String::new(), ids }
            }
        };
        let epoch = Instant::now();
        let histogram = || Histogram::new_with_bounds(1000, 100_000_000_000, 3).map_err(|e| e.to_string());
        let shared = Shared {
            epoch,
            latency: histogram()?,
            connect: histogram()?,
            delivered: 0,
            bytes: 0,
            skipped: 0,
            doubled: 0,
            broken: 0,
            open: 0,
            measuring: false,
            seen: Vec::new(),
        };
        let shared = Rc::new(RefCell::new(shared));
        let load = Self { kind, addr, scenario, cookie, ids, shared, local: LocalSet::new() };
        if !kind.is_hark() {
            let (mut connection, writer) = (Connection::open(addr).await?, load.writer());
            for session in 0..load.ids.len() {
                let request = writer.changes(&[(0, session, 0)], epoch);
                connection.request(&request).await?;
            }
        }
        Ok(load)
    }

    /// Opens the streams and waits until each has its first event.
    pub async fn connect(&mut self) -> Result<(), String> {
        let gate = Rc::new(Semaphore::new(CONCURRENT_OPENS));
        for n in 0..self.scenario.streams {
            let session = n % self.ids.len();
            // Hark's sessions begin with change 1, the others' with change 0.
            let seen = if self.kind.is_hark() { 0 } else { -1 };
            self.shared.borrow_mut().seen.push((session, seen));
            let id = &self.ids[session];
            let path = match self.kind {
                Kind::Hark | Kind::HarkBatch => format!("/api/v1/sessions/{id}/status/stream"),
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

    /// Publishes at the scenario's rate, waits for late events, and counts.
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
            let together = if self.kind == Kind::HarkBatch { BATCH } else { 1 };
            publishers.spawn_local_on(
                async move {
                    for changes in changes.chunks(together) {
                        // Those of a batch are due together, with its last one.
                        let n = changes.last().map_or(0, |(n, ..)| *n);
                        let due = start + interval.mul_f64(n as f64);
                        until(due).await;
                        connection.request(&writer.changes(changes, due)).await?;
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
            tokio::time::sleep(SETTLE_TIME).await;
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
            bytes_per_event: shared.bytes as f64 / shared.delivered.max(1) as f64,
            skipped: shared.skipped,
            lost,
            doubled: shared.doubled,
            latency: [0.5, 0.99, 0.999].map(|q| shared.latency.value_at_quantile(q)),
            connect: [0.5, 0.99].map(|q| shared.connect.value_at_quantile(q)),
            broken: shared.broken,
        })
    }

    fn writer(&self) -> Writer {
        Writer { kind: self.kind, addr: self.addr, ids: self.ids.clone().into(), epoch: self.shared.borrow().epoch }
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
    /// The request for one change, or for a batch: of each its number among all, its session, and its number there. `due`: when
    /// they were to be sent. If the connection wasn't free then, the wait counts as the server's.
    fn changes(&self, changes: &[(u64, usize, i64)], due: Instant) -> String {
        let sent = due.saturating_duration_since(self.epoch).as_nanos();
        let change =
            |(_, session, number): &(u64, usize, i64)| Change { id: &self.ids[*session], number: *number, sent };
        let [one] = changes else {
            return batch(self.addr, &changes.iter().map(|c| change(c).line()).collect::<String>());
        };
        let change = change(one);
        let (method, path) = match self.kind {
            Kind::Hark | Kind::HarkBatch => return change.request(self.addr),
            Kind::Nchan => ("POST", "pub"),
            Kind::Axum => ("PUT", "sessions"),
        };
        let path = format!("/{path}/{}", change.id);
        // The status that Hark makes of its report, so that all servers send events of the same size.
        load::request(method, self.addr, &path, "Content-Type: text/plain\r\n", &change.status())
    }
}

/// Reads a stream to its end.
async fn stream(
    n: usize,
    addr: SocketAddr,
    request: String,
    gate: Rc<Semaphore>,
    shared: &RefCell<Shared>,
) -> std::io::Result<()> {
    let mut permit = gate.acquire().await.ok();
    let begun = Instant::now();
    let read = |line: &[u8]| {
        let mut shared = shared.borrow_mut();
        if line.starts_with(b"data:") && permit.take().is_some() {
            shared.open += 1;
            shared.connect.saturating_record(begun.elapsed().as_nanos() as u64);
        }
        if shared.measuring {
            shared.bytes += line.len() as u64;
        }
        let Some((number, sent)) = mark(line) else { return };
        let (session, seen) = shared.seen[n];
        if number <= seen {
            shared.doubled += 1;
            return;
        }
        if shared.measuring {
            let now = shared.epoch.elapsed().as_nanos() as u64;
            shared.latency.saturating_record(now.saturating_sub(sent));
            shared.delivered += 1;
            shared.skipped += (number - seen - 1) as u64;
        }
        shared.seen[n] = (session, number);
    };
    lines(addr, request, read).await
}
