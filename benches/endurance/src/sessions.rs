//! The sessions and their worker: every slot has a session that gets changes and segments until it is completed, and then the
//! next one.

use load::{Change, Connection, Sessions, TOKEN, request};
use rand::RngExt;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Every so many changes of a session a segment comes before the change.
const CHANGES_PER_SEGMENT: i64 = 15;

/// A session of an outside worker.
#[derive(Debug)]
pub struct Session {
    pub id: String,
    pub owner: usize,
    /// The number of the last change, and how many segments there are, as far as the server has confirmed them.
    pub last: Cell<i64>,
    pub segments: Cell<u32>,
    /// When it will be completed.
    ends: Instant,
}

/// A place in which one session follows another.
#[derive(Debug)]
pub struct Slot {
    current: RefCell<Rc<Session>>,
    replaced: Notify,
}

impl Slot {
    pub fn current(&self) -> Rc<Session> {
        Rc::clone(&self.current.borrow())
    }

    /// Waits until the session is another one than `known`.
    pub async fn after(&self, known: &Session) {
        while self.current().id == known.id {
            self.replaced.notified().await;
        }
    }
}

/// An owner with their sessions.
#[derive(Debug)]
pub struct Owner {
    /// The header, with its line break.
    pub cookie: String,
    pub slots: Vec<Rc<Slot>>,
}

/// How sessions change.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two changes of a session.
    pub interval: Duration,
    /// From the first change of a session to its end, plus or minus a fifth.
    pub life: Duration,
}

impl Pace {
    /// When a session ends that begins now. The `first` sessions of the slots are at any point of their lives.
    fn end(&self, first: bool) -> Instant {
        let share = rand::rng().random_range(if first { 0.1..1.0 } else { 0.8..1.2 });
        Instant::now() + self.life.mul_f64(share)
    }
}

/// Creates the sessions of an owner.
pub async fn create(addr: SocketAddr, owner: usize, count: usize, pace: Pace) -> Result<Owner, String> {
    let Sessions { cookie, ids } = Sessions::create(addr, count).await?;
    let slots = ids.into_iter().map(|id| {
        let current = RefCell::new(Rc::new(Session::new(id, owner, pace.end(true))));
        Rc::new(Slot { current, replaced: Notify::new() })
    });
    Ok(Owner { cookie, slots: slots.collect() })
}

impl Session {
    fn new(id: String, owner: usize, ends: Instant) -> Self {
        Self { id, owner, last: Cell::new(0), segments: Cell::new(0), ends }
    }
}

/// Reports for the slots in turn over one connection, until `stopping`. Returns how many changes and segments it reported, and
/// the connection.
pub async fn work(
    addr: SocketAddr,
    slots: Vec<(Rc<Slot>, String)>,
    pace: Pace,
    epoch: Instant,
    stopping: Rc<Cell<bool>>,
) -> Result<(u64, Connection), String> {
    let mut connection = Connection::open(addr).await?;
    let mut reported = 0;
    let mut ticks = tokio::time::interval(pace.interval / u32::try_from(slots.len()).unwrap_or(u32::MAX).max(1));
    for (slot, cookie) in slots.iter().cycle() {
        ticks.tick().await;
        if stopping.get() {
            break;
        }
        let session = slot.current();
        let id = &session.id;
        if Instant::now() >= session.ends {
            connection.request(&report(addr, id, "PUT", "status", "{\"status\":\"completed\"}")).await?;
            let next = load::announce(&mut connection, addr, cookie, "The next session").await?;
            *slot.current.borrow_mut() = Rc::new(Session::new(next, session.owner, pace.end(false)));
            slot.replaced.notify_waiters();
            continue;
        }
        let number = session.last.get() + 1;
        if number % CHANGES_PER_SEGMENT == 0 {
            let index = session.segments.get();
            let segment = format!(
                "{{\"index\":{index},\"start\":{index},\"end\":{},\"text\":\"and a small white gate with roses on it\"}}",
                index + 1
            );
            connection.request(&report(addr, id, "POST", "segments", &segment)).await?;
            session.segments.set(index + 1);
            reported += 1;
        }
        let change = Change { id, number, sent: epoch.elapsed().as_nanos() };
        connection.request(&change.request(addr)).await?;
        session.last.set(number);
        reported += 1;
    }
    Ok((reported, connection))
}

fn report(addr: SocketAddr, id: &str, method: &str, what: &str, body: &str) -> String {
    let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
    request(method, addr, &format!("/api/v1/sessions/{id}/{what}"), &headers, body)
}
