//! Connection limit of the admin port. A new connection is always accepted. If the limit is
//! reached, the address with the most connections loses its oldest connection instead. So a client
//! that holds many connections open cannot make liveness probes fail.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::limiter::{Limits, whose};

/// The open connections and their limits. The oldest connection comes first.
#[derive(Clone)]
pub(in crate::server) struct Guests {
    limits: Limits,
    present: Arc<Mutex<VecDeque<(IpAddr, CancellationToken)>>>,
}

/// Guard of one open connection. Dropping the guard removes the connection from the list.
pub(in crate::server) struct Guest {
    guests: Guests,
    leaves: CancellationToken,
}

impl Guests {
    pub fn new(limits: Limits) -> Self {
        let present = Arc::default();
        Self { limits, present }
    }

    /// Accepts a connection from `address`. Returns its guard, and whether another connection was
    /// closed for it.
    pub fn admit(&self, address: IpAddr) -> (Guest, bool) {
        let address = whose(address);
        let leaves = CancellationToken::new();
        let mut present = self.present();
        let gone = Self::in_the_way(&present, self.limits, address);
        let gone = gone.and_then(|at| present.remove(at));
        if let Some((_, leaves)) = &gone {
            leaves.cancel();
        }
        present.push_back((address, leaves.clone()));
        drop(present);
        let guests = self.clone();
        (Guest { guests, leaves }, gone.is_some())
    }

    fn in_the_way(
        present: &VecDeque<(IpAddr, CancellationToken)>,
        limits: Limits,
        address: IpAddr,
    ) -> Option<usize> {
        let from = |address| present.iter().filter(|(of, _)| *of == address).count();
        let crowd = if from(address) >= limits.by_address {
            Some(address)
        } else if present.len() >= limits.all {
            // If several addresses have equally many connections, `max_by_key` returns the last of
            // them.
            present.iter().map(|(of, _)| *of).max_by_key(|of| from(*of))
        } else {
            None
        };
        present.iter().position(|(of, _)| Some(*of) == crowd)
    }

    fn present(&self) -> MutexGuard<'_, VecDeque<(IpAddr, CancellationToken)>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Completes when this connection must be closed to make room for another.
    pub async fn left(&self) {
        self.leaves.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Marks the entry of this connection for the removal below.
        self.leaves.cancel();
        self.guests
            .present()
            .retain(|(_, leaves)| !leaves.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests() -> Guests {
        Guests::new(Limits {
            all: 4,
            by_address: 3,
        })
    }

    fn admit(guests: &Guests, address: &str) -> (Guest, bool) {
        guests.admit(address.parse().expect("an address"))
    }

    #[test]
    fn the_newest_finds_room_and_an_old_one_of_the_largest_crowd_goes() {
        let guests = guests();
        let (probe, _) = admit(&guests, "192.0.2.9");
        let crowd = ["192.0.2.1"; 3].map(|address| admit(&guests, address));
        assert!(crowd.iter().all(|(_, another_went)| !another_went));
        let (_next, another_went) = admit(&guests, "192.0.2.2");
        assert!(another_went && crowd[0].0.leaves.is_cancelled());
        assert!(!probe.leaves.is_cancelled() && !crowd[1].0.leaves.is_cancelled());
    }

    #[test]
    fn an_address_that_has_its_share_makes_room_for_itself() {
        let guests = guests();
        let crowd = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|of| admit(&guests, of).0);
        let (_next, another_went) = admit(&guests, "2001:db8::4");
        assert!(another_went && crowd[0].leaves.is_cancelled());
        drop(crowd);
        assert_eq!(guests.present().len(), 1);
    }
}
