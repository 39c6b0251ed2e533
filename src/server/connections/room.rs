//! How many connections there may be: in all, and from one address. In all, the next one
//! waits in the kernel; from one address, the next one is closed, so that one client cannot
//! keep all others out.

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

use super::share::Waiting;
use crate::metrics::Metrics;

/// Files that the process needs for itself: the store with all its connections, the admin port
/// with all of its own, the log, keys.
const OWN_FILES: u64 = 192;

/// The room for connections.
pub(in crate::server) struct Room {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, Peers>>>,
    max_by_address: usize,
    metrics: Arc<Metrics>,
    open: Gauge,
    failing: AtomicBool,
}

/// The connections from one address, and the calls of all of them that wait for a message.
#[derive(Default)]
struct Peers {
    open: usize,
    waiting: Arc<Waiting>,
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Limits {
    pub all: usize,
    pub by_address: usize,
}

/// Room for one more, for whoever it is.
pub(in crate::server) struct Free {
    _permit: OwnedSemaphorePermit,
}

/// The room that one connection takes until this is dropped.
pub(in crate::server) struct Place {
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, Peers>>>,
    waiting: Arc<Waiting>,
    open: Gauge,
    _free: Free,
}

impl Room {
    /// Room whose taken places are shown by this gauge.
    pub fn new(limits: Limits, metrics: Arc<Metrics>, open: Gauge) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.all)),
            by_address: Arc::default(),
            max_by_address: limits.by_address,
            metrics,
            open,
            failing: AtomicBool::new(false),
        }
    }

    /// Waits until there is room.
    pub async fn free(&self) -> Free {
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = self.all.clone().acquire_owned().await {
                return Free { _permit: permit };
            }
        }
    }

    /// The place of a connection from here; `None` where this address has its share.
    pub fn take(&self, free: Free, address: IpAddr) -> Option<Place> {
        self.failing.store(false, Ordering::Relaxed);
        let address = whose(address);
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
        Some(Place {
            address,
            by_address: self.by_address.clone(),
            waiting,
            open: self.open.clone(),
            _free: free,
        })
    }

    /// An accept that failed: the client's doing, or ours for want of something. Told once, until
    /// one succeeds again.
    pub fn note_failure(&self, error: &io::Error) {
        self.metrics.refuse_connection("accept");
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "a connection could not be accepted");
        }
    }
}

impl Place {
    /// What waits, of all connections from this address.
    pub fn waiting(&self) -> Arc<Waiting> {
        self.waiting.clone()
    }

    /// Where it comes from, as it is counted.
    pub const fn network(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Place {
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

/// Who counts as one: behind a dual-stack listener a client has one address, not two, and of
/// IPv6 whoever has one address has a network of them.
pub(super) fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// No more than there are files for: a process without files can reach no store either.
pub(in crate::server) fn affordable(wanted: usize) -> usize {
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return wanted;
    };
    let left = usize::try_from(files.saturating_sub(OWN_FILES).max(1)).unwrap_or(usize::MAX);
    if left < wanted {
        tracing::warn!(
            files,
            connections = left,
            "--max-connections is more than the limit of open files allows: raise it with `ulimit -n`"
        );
    }
    wanted.min(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(by_address: usize) -> Room {
        let limits = Limits {
            all: 100,
            by_address,
        };
        Room::new(limits, Arc::default(), Gauge::default())
    }

    /// How many of these connections, none of which ends, are kept.
    async fn kept(room: &Room, addresses: &[&str]) -> Vec<Place> {
        let mut places = Vec::new();
        for address in addresses {
            let free = room.free().await;
            places.extend(room.take(free, address.parse().expect("an address")));
        }
        places
    }

    #[tokio::test]
    async fn a_network_of_ipv6_has_one_share_and_its_neighbour_another() {
        let room = room(2);
        let network = ["2001:db8:0:7::1", "2001:db8:0:7:ffff::2", "2001:db8:0:7::3"];
        let places = kept(&room, &network).await;
        assert_eq!(places.len(), 2);
        let neighbours = ["2001:db8:0:8::1", "2001:db8:0:6:ffff:ffff:ffff:ffff"];
        assert_eq!(kept(&room, &neighbours).await.len(), 2);
        drop(places);
        assert_eq!(kept(&room, &network).await.len(), 2);
    }

    #[tokio::test]
    async fn an_ipv4_address_has_one_share_also_where_it_is_written_as_ipv6() {
        let room = room(2);
        let same = ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"];
        let places = kept(&room, &same).await;
        assert_eq!(places.len(), 2);
        // All mapped addresses lie in one network of IPv6, and are not one client.
        let others = ["::ffff:192.0.2.2", "192.0.2.3"];
        assert_eq!(kept(&room, &others).await.len(), 2);
    }
}
