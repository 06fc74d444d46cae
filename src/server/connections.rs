//! How many connections a node and an address may have open, and how many requests under way on those that carry several.
//! A connection beyond the limits is served for a moment as a spare connection, so that an operator's health check is still
//! answered. Called by `accept`.

use super::{address::ClientAddress, counts::Counts, telemetry::lines};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often at most the log says that connections are refused.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The limits of connections. Requests of HTTP/2 have the same, so that a connection with many of them holds no more of a
/// node than connections with one each.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub all: u32,
    pub per_address: u32,
    /// Spare connections, beyond the others.
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
    connections: Count,
    requests: Count,
    spare: VecDeque<(u64, CancellationToken)>,
    /// The number of spare connections whose tasks haven't ended, evicted ones included.
    spare_open: u32,
    last_warning: Option<Instant>,
}

/// How many there are of something, in all and by address.
#[derive(Debug, Default)]
struct Count {
    all: u32,
    by_address: Counts<ClientAddress>,
}

impl Count {
    /// Counts one more, unless a limit is reached. One of a trusted proxy counts for no address.
    fn add(&mut self, limits: ConnectionLimits, address: Option<ClientAddress>) -> Result<(), Full> {
        if self.all >= limits.all {
            return Err(Full::Node);
        }
        if let Some(address) = address {
            if self.by_address.get(&address) >= limits.per_address {
                return Err(Full::Address);
            }
            self.by_address.add(address);
        }
        self.all += 1;
        Ok(())
    }

    fn remove(&mut self, address: Option<ClientAddress>) {
        self.all -= 1;
        if let Some(address) = address {
            self.by_address.remove(&address);
        }
    }
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Node,
    Address,
}

/// How a new connection is admitted.
#[derive(Debug)]
pub enum Admission {
    Served(ConnectionPermit),
    /// Served only to answer that the limit is reached.
    Refused(SpareConnection, Full),
}

/// The right to have a connection open; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Arc<Connections>,
    /// None for a trusted proxy, which counts for no address.
    address: Option<ClientAddress>,
}

/// The right to have a request under way on a connection that carries several; given back when dropped.
#[derive(Debug)]
pub struct RequestPermit {
    connections: Arc<Connections>,
    address: Option<ClientAddress>,
}

/// A connection beyond the limits, which is evicted when too many newer ones come.
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

    /// Admits a new connection; `address` is none for a trusted proxy's. If there are too many spare connections, the
    /// oldest is evicted: a health check sends its request at once, so the silent ones are the older ones.
    #[must_use]
    pub fn admit(connections: &Arc<Self>, address: Option<ClientAddress>) -> Admission {
        let limits = connections.limits;
        let mut open = connections.lock();
        let full = match open.connections.add(limits, address) {
            Ok(()) => return Admission::Served(ConnectionPermit { connections: Arc::clone(connections), address }),
            Err(full) => full,
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
        let warn = open.last_warning.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
        if warn {
            open.last_warning = Some(Instant::now());
        }
        drop(open);
        if warn {
            warn_refused(full, limits, address);
        }
        let by = match full {
            Full::Node => "node",
            Full::Address => "address",
        };
        metrics::counter!("hark_connections_refused_total", "limit" => by).increment(1);
        if lines::REFUSED_CONNECTIONS.admit() {
            tracing::info!(limit = by, "a connection was refused: the limit of the {by} is reached");
        }
        Admission::Refused(SpareConnection { connections: Arc::clone(connections), id, evicted }, full)
    }

    /// Admits a request of a connection that carries several; `address` is none for a trusted proxy's.
    ///
    /// # Errors
    /// If as many are under way as there may be connections.
    pub fn admit_request(connections: &Arc<Self>, address: Option<ClientAddress>) -> Result<RequestPermit, Full> {
        connections.lock().requests.add(connections.limits, address)?;
        Ok(RequestPermit { connections: Arc::clone(connections), address })
    }

    /// Waits until evicted spare connections are closed: new ones can come faster than old ones close, and each holds a
    /// file descriptor.
    pub async fn wait_for_evicted(&self) {
        while self.lock().spare_open > self.limits.spare {
            tokio::task::yield_now().await;
        }
    }
}

fn warn_refused(full: Full, limits: ConnectionLimits, address: Option<ClientAddress>) {
    match full {
        Full::Node => tracing::warn!(
            limit = limits.all,
            "connections are refused: {} are open, which is the limit. To allow more, raise HARK_MAX_CONNECTIONS and ulimit -n",
            limits.all
        ),
        Full::Address => tracing::warn!(
            limit = limits.per_address,
            address = address.map(tracing::field::display),
            "connections are refused: one address has {} open, which is the limit. If it is your proxy's, add it to HARK_TRUSTED_PROXIES",
            limits.per_address
        ),
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.lock().connections.remove(self.address);
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.connections.lock().requests.remove(self.address);
    }
}

impl ConnectionPermit {
    /// Whose connection it is; none for a trusted proxy's.
    #[must_use]
    pub fn address(&self) -> Option<ClientAddress> {
        self.address
    }
}

impl SpareConnection {
    /// Completes when a newer spare connection evicts this one.
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
    fn an_address_has_a_limit_and_a_trusted_proxy_has_none() {
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
        assert_eq!((open.connections.all, open.connections.by_address.is_empty(), open.spare.len()), (0, true, 0));
    }

    #[test]
    fn requests_have_the_limits_of_connections_beside_them() {
        let all = Arc::new(Connections::new(ConnectionLimits { all: 4, per_address: 2, spare: 2 }));
        let _connection = served(Connections::admit(&all, address("192.0.2.1")));
        let admit = |text: &str| Connections::admit_request(&all, address(text));
        let mut held = vec![admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap()];
        assert_eq!(admit("192.0.2.1").unwrap_err(), Full::Address);
        held.extend((0..2).map(|_| Connections::admit_request(&all, None).unwrap()));
        assert_eq!(admit("192.0.2.2").unwrap_err(), Full::Node);
        held.remove(0);
        held.push(admit("192.0.2.1").unwrap());
        held.clear();
        let open = all.lock();
        assert_eq!((open.requests.all, open.requests.by_address.is_empty(), open.connections.all), (0, true, 1));
    }

    #[test]
    fn the_oldest_spare_connection_is_evicted() {
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
