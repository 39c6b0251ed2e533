//! What calls whose message has not arrived may take, per connection and per address of the peer.
//! Such a call costs bytes and no place: what limits it is who sent it, not how many calls others
//! have.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What may wait at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct WaitingLimits {
    /// Calls of one connection.
    pub by_connection: usize,
    /// Calls of one address.
    pub by_address: usize,
    /// Bytes of a message, for each of those calls.
    pub message_bytes: usize,
}

/// What waits, of a connection or of an address.
#[derive(Debug, Default)]
pub(in crate::server) struct Waiting {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// The share of one connection, and of the address that it came from.
#[derive(Debug)]
pub(in crate::server) struct Share {
    limits: WaitingLimits,
    connection: Waiting,
    address: Arc<Waiting>,
}

/// A call that waits for its message, until this is dropped.
pub(in crate::server) struct Seat {
    share: Arc<Share>,
}

impl Share {
    pub fn new(limits: WaitingLimits, address: Arc<Waiting>) -> Self {
        Self {
            limits,
            connection: Waiting::default(),
            address,
        }
    }

    /// Counts one more call that waits; `None` where the share is taken.
    pub fn wait(self: &Arc<Self>) -> Option<Seat> {
        let WaitingLimits {
            by_connection,
            by_address,
            ..
        } = self.limits;
        let seat = Seat {
            share: self.clone(),
        };
        let here = add(&self.connection.calls, 1);
        let there = add(&self.address.calls, 1);
        (here <= by_connection && there <= by_address).then_some(seat)
    }

    /// Counts bytes of a message that is not complete; says whether there is room for them.
    pub fn hold(&self, bytes: usize) -> bool {
        let WaitingLimits {
            by_connection,
            by_address,
            message_bytes,
        } = self.limits;
        let here = add(&self.connection.bytes, bytes);
        let there = add(&self.address.bytes, bytes);
        here <= by_connection.saturating_mul(message_bytes)
            && there <= by_address.saturating_mul(message_bytes)
    }

    /// Gives back what [`Self::hold`] counted.
    pub fn release(&self, bytes: usize) {
        self.connection.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.address.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.share.connection.calls.fetch_sub(1, Ordering::Relaxed);
        self.share.address.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(count: &AtomicUsize, more: usize) -> usize {
    count.fetch_add(more, Ordering::Relaxed) + more
}
