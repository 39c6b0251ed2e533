//! Limits the connections of the admin port. A new connection is always accepted. If the limit is
//! reached, the address with the most connections loses its oldest connection instead. So a client
//! that holds many connections open cannot make liveness probes fail.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::limiter::{Limits, network_of};

/// The open connections, oldest first, and their limits.
#[derive(Clone)]
pub(in crate::server) struct AdminConnections {
    limits: Limits,
    open: Arc<Mutex<VecDeque<(IpAddr, CancellationToken)>>>,
}

/// A guard for one open connection. Dropping the guard removes the connection from the list.
pub(in crate::server) struct AdminConnection {
    connections: AdminConnections,
    closing: CancellationToken,
}

impl AdminConnections {
    pub fn new(limits: Limits) -> Self {
        let open = Arc::default();
        Self { limits, open }
    }

    /// Accepts a connection from `address`. Returns its guard, and whether another connection was
    /// closed for it.
    pub fn admit(&self, address: IpAddr) -> (AdminConnection, bool) {
        let address = network_of(address);
        let closing = CancellationToken::new();
        let mut open = self.open();
        let gone = Self::to_evict(&open, self.limits, address);
        let gone = gone.and_then(|at| open.remove(at));
        if let Some((_, closing)) = &gone {
            closing.cancel();
        }
        open.push_back((address, closing.clone()));
        drop(open);
        let connections = self.clone();
        (
            AdminConnection {
                connections,
                closing,
            },
            gone.is_some(),
        )
    }

    fn to_evict(
        open: &VecDeque<(IpAddr, CancellationToken)>,
        limits: Limits,
        address: IpAddr,
    ) -> Option<usize> {
        let from = |address| open.iter().filter(|(of, _)| *of == address).count();
        let crowded = if from(address) >= limits.by_address {
            Some(address)
        } else if open.len() >= limits.all {
            // If several addresses tie for the most connections, `max_by_key` returns the last one.
            open.iter().map(|(of, _)| *of).max_by_key(|of| from(*of))
        } else {
            None
        };
        open.iter().position(|(of, _)| Some(*of) == crowded)
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<(IpAddr, CancellationToken)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdminConnection {
    /// Completes when this connection must be closed so that another one can be accepted.
    pub async fn evicted(&self) {
        self.closing.cancelled().await;
    }
}

impl Drop for AdminConnection {
    fn drop(&mut self) {
        // The cancellation marks this connection's entry for the removal below.
        self.closing.cancel();
        self.connections
            .open()
            .retain(|(_, closing)| !closing.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> AdminConnections {
        AdminConnections::new(Limits {
            all: 4,
            by_address: 3,
        })
    }

    fn admit(connections: &AdminConnections, address: &str) -> (AdminConnection, bool) {
        connections.admit(address.parse().expect("an address"))
    }

    #[test]
    fn the_newest_connection_evicts_the_oldest_of_the_largest_address() {
        let connections = connections();
        let (probe, _) = admit(&connections, "192.0.2.9");
        let crowded = ["192.0.2.1"; 3].map(|address| admit(&connections, address));
        assert!(crowded.iter().all(|(_, another_went)| !another_went));
        let (_next, another_went) = admit(&connections, "192.0.2.2");
        assert!(another_went && crowded[0].0.closing.is_cancelled());
        assert!(!probe.closing.is_cancelled() && !crowded[1].0.closing.is_cancelled());
    }

    #[test]
    fn an_address_at_its_limit_evicts_its_own_oldest_connection() {
        let connections = connections();
        let crowded =
            ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|of| admit(&connections, of).0);
        let (_next, another_went) = admit(&connections, "2001:db8::4");
        assert!(another_went && crowded[0].closing.is_cancelled());
        drop(crowded);
        assert_eq!(connections.open().len(), 1);
    }
}
