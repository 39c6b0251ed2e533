//! Limits the connections of the gRPC port and the HTTP port, in total, per port and per address.
//! If the total limit or the limit of the port is reached, the next connection waits in the
//! kernel's backlog. If the limit of its address is reached, a new connection is closed, so that
//! one client cannot lock out all others.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use prometheus_client::metrics::gauge::Gauge;

use super::backlog::BacklogCounts;
use crate::{config::Tuning, metrics::Metrics};

/// Number of file descriptors reserved for the process itself: for store connections, admin
/// connections, the log and key files.
const OWN_FILES: u64 = 192;
/// Number of file descriptors that the runtime of one thread opens.
const FILES_BY_THREAD: usize = 4;

/// Limits on the open connections of all ports.
pub(in crate::server) struct PortLimits {
    all: Arc<Semaphore>,
    each: Limits,
    metrics: Arc<Metrics>,
}

/// Limits on the open connections of one port.
pub(in crate::server) struct ConnectionLimiter {
    /// Shared by all ports.
    all: Arc<Semaphore>,
    of_port: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, Peers>>>,
    max_by_address: usize,
    metrics: Arc<Metrics>,
    open: Gauge,
    failing: AtomicBool,
}

/// The number of open connections from one address, and the counts of waiting calls that these
/// connections share.
#[derive(Default)]
struct Peers {
    open: usize,
    waiting: Arc<BacklogCounts>,
}

/// Maximum numbers of open connections of one port.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Limits {
    pub all: usize,
    pub by_address: usize,
}

/// Permit for one connection within the total limit, before its address is known.
pub(in crate::server) struct FreePermit {
    _of_port: OwnedSemaphorePermit,
    _permit: OwnedSemaphorePermit,
}

/// Permit for one connection. Dropping the permit releases it.
pub(in crate::server) struct ConnectionPermit {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, Peers>>>,
    waiting: Arc<BacklogCounts>,
    open: Gauge,
    _free: FreePermit,
}

impl PortLimits {
    /// Creates the limits of this number of ports. `threads` is the number of threads of each port.
    pub fn new(tuning: &Tuning, (ports, threads): (usize, usize), metrics: &Arc<Metrics>) -> Self {
        let all = within_open_files(tuning.max_connections, ports * threads);
        // Each port holds a permit for its next connection. Extra permits ensure that an idle port
        // does not take the last one from another port.
        let permits = all + ports - 1;
        Self {
            all: Arc::new(Semaphore::new(permits)),
            each: Limits {
                all: share_of_port(all, ports),
                by_address: tuning.max_connections_per_address,
            },
            metrics: metrics.clone(),
        }
    }

    /// Creates the limiter of one port.
    pub fn of_port(&self) -> ConnectionLimiter {
        let open = self.metrics.connections.clone();
        ConnectionLimiter::new(self.all.clone(), self.each, (self.metrics.clone(), open))
    }
}

/// Returns how many of all connections one port may have. With several ports, each has at most
/// three quarters, so that its clients cannot lock out those of another port.
const fn share_of_port(all: usize, ports: usize) -> usize {
    if ports == 1 { all } else { all - all / 4 }
}

impl ConnectionLimiter {
    /// Creates the limiter of a port. `all` is shared with the other ports, and `limits` applies to
    /// this port only. The gauge `open` reports the number of open connections.
    fn new(all: Arc<Semaphore>, limits: Limits, (metrics, open): (Arc<Metrics>, Gauge)) -> Self {
        Self {
            all,
            of_port: Arc::new(Semaphore::new(limits.all)),
            by_address: Arc::default(),
            max_by_address: limits.by_address,
            metrics,
            open,
            failing: AtomicBool::new(false),
        }
    }

    /// Waits for a free permit. The permit of the port is taken first, so that a port whose share
    /// is used up takes no permit from other ports.
    pub async fn acquire(&self) -> FreePermit {
        FreePermit {
            _of_port: permit_of(&self.of_port).await,
            _permit: permit_of(&self.all).await,
        }
    }

    /// Takes a permit for a connection from `address`. Returns `None` if the address is at its
    /// limit.
    pub fn take(&self, free: FreePermit, address: IpAddr) -> Option<ConnectionPermit> {
        self.failing.store(false, Ordering::Relaxed);
        let address = network_of(address);
        let mut open = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let peers = open.entry(address).or_default();
        if peers.open >= self.max_by_address {
            self.metrics.refuse_connection("address");
            return None;
        }
        peers.open += 1;
        let waiting = peers.waiting.clone();
        drop(open);
        self.open.inc();
        Some(ConnectionPermit {
            address,
            by_address: self.by_address.clone(),
            waiting,
            open: self.open.clone(),
            _free: free,
        })
    }

    /// Counts a failed accept, caused by the client or by a lack of resources. After a failure is
    /// logged, further ones are not, until an accept succeeds.
    pub fn note_failure(&self, error: &io::Error) {
        self.metrics.refuse_connection("accept");
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "a connection could not be accepted");
        }
    }
}

async fn permit_of(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    loop {
        // This is always `Ok`, because the semaphore is never closed.
        if let Ok(permit) = semaphore.clone().acquire_owned().await {
            return permit;
        }
    }
}

impl ConnectionPermit {
    /// Returns the counts shared by all connections from this address.
    pub fn waiting(&self) -> Arc<BacklogCounts> {
        self.waiting.clone()
    }

    /// Returns the address under which this connection is counted, see [`network_of`].
    pub const fn network(&self) -> IpAddr {
        self.address
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(peers) = open.get_mut(&self.address) {
            peers.open -= 1;
            if peers.open == 0 {
                open.remove(&self.address);
            }
        }
        drop(open);
        self.open.dec();
    }
}

/// Returns the address under which a peer is counted. An IPv4-mapped address counts as the IPv4
/// address. An IPv6 address counts as its /64 network, because a client usually controls a whole
/// /64 network.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Reduces the connection limit to what the open-file limit allows, because a process without free
/// file descriptors cannot reach its store either. `threads` is the number of threads that serve
/// connections.
fn within_open_files(wanted: usize, threads: usize) -> usize {
    let Some((files, left)) = lowered_by_open_files(wanted, threads) else {
        return wanted;
    };
    tracing::warn!(
        files,
        connections = left,
        "--max-connections is more than the limit of open files allows: raise it with `ulimit -n`"
    );
    left
}

/// Returns the limit of open files and the number of connections that it allows. Returns `None` if
/// it allows as many as wanted.
fn lowered_by_open_files(wanted: usize, threads: usize) -> Option<(u64, usize)> {
    let files = getrlimit(Resource::Nofile).current?;
    let left = usize::try_from(files.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX);
    let left = left.saturating_sub(threads * FILES_BY_THREAD).max(1);
    (left < wanted).then_some((files, left))
}

/// Returns the limit of open files, the number of connections that this number of ports can have
/// under it, and the limit that `--max-connections` needs. Returns `None` if the limit is enough.
#[must_use]
pub fn shortage_of_open_files(tuning: &Tuning, ports: usize) -> Option<(u64, usize, usize)> {
    let threads = ports * super::threads(tuning);
    let (files, left) = lowered_by_open_files(tuning.max_connections, threads)?;
    let own = usize::try_from(OWN_FILES).unwrap_or(usize::MAX) + threads * FILES_BY_THREAD;
    Some((files, left, tuning.max_connections.saturating_add(own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter_of(by_address: usize) -> ConnectionLimiter {
        let limits = Limits {
            all: 100,
            by_address,
        };
        let all = Arc::new(Semaphore::new(limits.all));
        ConnectionLimiter::new(all, limits, (Arc::default(), Gauge::default()))
    }

    /// Opens a connection from each of these addresses, and returns the permits of the accepted
    /// connections.
    async fn kept(limiter: &ConnectionLimiter, addresses: &[&str]) -> Vec<ConnectionPermit> {
        let mut permits = Vec::new();
        for address in addresses {
            let free = limiter.acquire().await;
            permits.extend(limiter.take(free, address.parse().expect("an address")));
        }
        permits
    }

    #[tokio::test]
    async fn a_network_of_ipv6_has_one_share_and_its_neighbour_another() {
        let limiter = limiter_of(2);
        let network = ["2001:db8:0:7::1", "2001:db8:0:7:ffff::2", "2001:db8:0:7::3"];
        let permits = kept(&limiter, &network).await;
        assert_eq!(permits.len(), 2);
        let neighbours = ["2001:db8:0:8::1", "2001:db8:0:6:ffff:ffff:ffff:ffff"];
        assert_eq!(kept(&limiter, &neighbours).await.len(), 2);
        drop(permits);
        assert_eq!(kept(&limiter, &network).await.len(), 2);
    }

    #[tokio::test]
    async fn an_ipv4_address_has_one_share_also_where_it_is_written_as_ipv6() {
        let limiter = limiter_of(2);
        let same = ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"];
        let permits = kept(&limiter, &same).await;
        assert_eq!(permits.len(), 2);
        // All IPv4-mapped addresses are in one IPv6 /64 network, but belong to different clients.
        let others = ["::ffff:192.0.2.2", "192.0.2.3"];
        assert_eq!(kept(&limiter, &others).await.len(), 2);
    }
}
