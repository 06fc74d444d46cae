//! The load generator: opens streams, sends changes over a few connections, and records what arrived when.
//! It uses one thread and one small task for each stream, so that it takes little time itself.

use crate::servers::Servers;
use hdrhistogram::Histogram;
use load::{CONCURRENT_OPENS, Change, Connection, PUBLISHERS, SETTLE_TIME, Sessions, lines, mark, until};
use std::{
    cell::{Cell, RefCell},
    fmt,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinSet, LocalSet},
};

/// The time after which a change that didn't arrive counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How a worker publishes changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// As reports over HTTP to a node, which stores and publishes them.
    Reports,
    /// As messages that the worker itself publishes to Redis.
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

/// The rate of changes.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// This many a second, however long the answers take.
    Fixed(u64),
    /// As many as possible: each connection sends its next change when its last has been read from a stream.
    Maximum,
}

/// The result of a measurement.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    /// Fewer than were published if streams skipped some for newer ones.
    pub delivered: u64,
    /// The streams that broke off or never got the last change of their session.
    pub lost: u64,
    /// Nanoseconds from just before the change was written until its event was read: median, p99.
    pub latency: [u64; 2],
    /// How long changes were published.
    pub seconds: f64,
    /// The processor time of all servers, in seconds.
    pub cpu: f64,
}

struct Shared {
    epoch: Instant,
    latency: Histogram<u64>,
    delivered: u64,
    broken: u64,
    open: usize,
    /// The last number that each session's stream received.
    seen: Vec<i64>,
    /// Notified when a stream receives another number.
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
    /// Creates the sessions.
    pub async fn prepare(servers: &Servers, source: Source, sessions: usize) -> Result<Self, String> {
        let addr = servers.reports;
        let Sessions { cookie, ids } = Sessions::create(addr, sessions).await?;
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
        let gate = Rc::new(Semaphore::new(CONCURRENT_OPENS));
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
            // Time for the nodes to subscribe.
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let waiting = tokio::time::timeout(Duration::from_secs(120), self.local.run_until(all));
        waiting.await.map_err(|_| format!("only {} streams opened", self.shared.borrow().open))
    }

    /// Publishes for this long, waits for late events, and counts.
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
                        until(due).await;
                    }
                    if start.elapsed() >= duration {
                        return Ok(());
                    }
                    let session = mine[n % mine.len()];
                    let number = last.borrow()[session] + 1;
                    let change = Change { id: &ids[session], number, sent: epoch.elapsed().as_nanos() };
                    match source {
                        Source::Reports => drop(connection.request(&change.request(to)).await?),
                        Source::Messages => {
                            let channel = format!("transcription:status:{}", change.id);
                            connection.publish(&channel, &change.status()).await?;
                        }
                    }
                    last.borrow_mut()[session] = number;
                    published.set(published.get() + 1);
                    if let Pace::Maximum = pace {
                        let news = Rc::clone(&shared.borrow().news[session]);
                        let read = async {
                            while shared.borrow().seen[session] < number {
                                news.notified().await;
                            }
                        };
                        // Lost changes are counted at the end.
                        let _ = tokio::time::timeout(LOST_AFTER, read).await;
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
            tokio::time::sleep(SETTLE_TIME).await;
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

/// Reads a stream to its end.
async fn stream(
    n: usize,
    addr: SocketAddr,
    request: String,
    gate: Rc<Semaphore>,
    shared: &RefCell<Shared>,
) -> std::io::Result<()> {
    let mut permit = gate.acquire().await.ok();
    let read = |line: &[u8]| {
        let mut shared = shared.borrow_mut();
        if line == b"event: status\n" && permit.take().is_some() {
            shared.open += 1;
        }
        let Some((number, sent)) = mark(line) else { return };
        if number > shared.seen[n] {
            let now = shared.epoch.elapsed().as_nanos() as u64;
            shared.latency.saturating_record(now.saturating_sub(sent));
            shared.delivered += 1;
            shared.seen[n] = number;
            shared.news[n].notify_one();
        }
    };
    lines(addr, request, read).await
}
