//! How many connections a node and an address may have open. What comes beyond is heard for a moment on a spare
//! connection, so that an operator's health check is still answered. Called by the accept loop in `accept`.

use super::address::ClientAddress;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often the log says that connections are refused.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub all: u32,
    pub per_address: u32,
    /// Beyond the others.
    pub spare: u32,
}

/// The connections that are open.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    open: Mutex<Open>,
    next_spare: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    all: u32,
    by_address: HashMap<ClientAddress, u32>,
    spare: VecDeque<(u64, CancellationToken)>,
    /// Also those whose tasks haven't heard yet that they must go.
    spare_open: u32,
    warned: Option<Instant>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Node,
    Address,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub enum Admission {
    Served(ConnectionPermit),
    /// Only to tell it so.
    Refused(SpareConnection, Full),
}

/// One of the open connections; counted until dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    /// None if it counts for no address.
    address: Option<ClientAddress>,
}

/// A connection beyond the limits, which gives way to those that come after it.
#[derive(Debug)]
pub struct SpareConnection {
    connections: Arc<Connections>,
    id: u64,
    evicted: CancellationToken,
}

impl Connections {
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self { limits, open: Mutex::default(), next_spare: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a new connection, from an address unless it is a proxy's. Of the spare ones the oldest goes if there are
    /// too many: a health check sends its request at once, and those who say nothing are the older ones.
    #[must_use]
    pub fn admit(connections: &Arc<Self>, address: Option<ClientAddress>) -> Admission {
        let limits = connections.limits;
        let mut open = connections.lock();
        let full = if open.all >= limits.all {
            Full::Node
        } else {
            let count = address.map(|address| open.by_address.entry(address).or_default());
            if count.as_ref().is_none_or(|count| **count < limits.per_address) {
                if let Some(count) = count {
                    *count += 1;
                }
                open.all += 1;
                return Admission::Served(ConnectionPermit { connections: Arc::clone(connections), address });
            }
            Full::Address
        };
        let evicted = CancellationToken::new();
        let id = connections.next_spare.fetch_add(1, Relaxed);
        open.spare.push_back((id, evicted.clone()));
        open.spare_open += 1;
        if open.spare.len() > limits.spare as usize
            && let Some((_, oldest)) = open.spare.pop_front()
        {
            oldest.cancel();
        }
        let warn = open.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        if warn {
            open.warned = Some(Instant::now());
        }
        drop(open);
        if warn {
            tell(full, limits, address);
        }
        let by = match full {
            Full::Node => "node",
            Full::Address => "address",
        };
        metrics::counter!("hark_connections_refused_total", "limit" => by).increment(1);
        Admission::Refused(SpareConnection { connections: Arc::clone(connections), id, evicted }, full)
    }
}

impl Connections {
    /// Waits until spare connections that had to give way are closed: they can come faster than they go, and each holds
    /// a file descriptor.
    pub async fn settle(&self) {
        while self.lock().spare_open > self.limits.spare {
            tokio::task::yield_now().await;
        }
    }
}

fn tell(full: Full, limits: ConnectionLimits, address: Option<ClientAddress>) {
    match full {
        Full::Node => tracing::warn!(
            limit = limits.all,
            "connections are refused: {} are open. More are possible with HARK_MAX_CONNECTIONS and ulimit -n",
            limits.all
        ),
        Full::Address => tracing::warn!(
            limit = limits.per_address,
            address = address.map(tracing::field::display),
            "connections are refused: one address has {} open. If it is your proxy's, name it in HARK_TRUSTED_PROXIES",
            limits.per_address
        ),
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.all -= 1;
        if let Some(address) = self.address
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

impl SpareConnection {
    /// Ready once a newer one needs its place.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for SpareConnection {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.spare.retain(|(id, _)| *id != self.id);
        open.spare_open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<ClientAddress> {
        Some(ClientAddress::of(text.parse().unwrap()))
    }

    fn served(admission: Admission) -> ConnectionPermit {
        match admission {
            Admission::Served(permit) => permit,
            Admission::Refused(_, full) => panic!("refused for {full:?}"),
        }
    }

    fn refused(admission: Admission) -> (SpareConnection, Full) {
        match admission {
            Admission::Served(_) => panic!("served"),
            Admission::Refused(spare, full) => (spare, full),
        }
    }

    #[test]
    fn an_address_has_its_part_and_a_proxy_has_none() {
        let all = Arc::new(Connections::new(ConnectionLimits { all: 5, per_address: 2, spare: 2 }));
        let mut held: Vec<_> = (0..2).map(|_| served(Connections::admit(&all, address("2001:db8::1")))).collect();
        // Another address of the same /64.
        assert_eq!(refused(Connections::admit(&all, address("2001:db8::2"))).1, Full::Address);
        held.push(served(Connections::admit(&all, address("192.0.2.1"))));
        held.extend((0..2).map(|_| served(Connections::admit(&all, None))));
        assert_eq!(refused(Connections::admit(&all, None)).1, Full::Node);
        held.remove(0);
        held.push(served(Connections::admit(&all, address("2001:db8::2"))));
        held.clear();
        let open = all.lock();
        assert_eq!((open.all, open.by_address.len(), open.spare.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_spare_connection_gives_way() {
        let all = Arc::new(Connections::new(ConnectionLimits { all: 1, per_address: 1, spare: 2 }));
        let _held = served(Connections::admit(&all, None));
        let spare: Vec<_> = (0..4).map(|_| refused(Connections::admit(&all, None)).0).collect();
        let evicted: Vec<bool> = spare.iter().map(|spare| spare.evicted.is_cancelled()).collect();
        assert_eq!(evicted, [true, true, false, false]);
        assert_eq!(all.lock().spare_open, 4);
        drop(spare);
        let left = all.lock();
        assert_eq!((left.spare.len(), left.spare_open), (0, 0));
    }
}
