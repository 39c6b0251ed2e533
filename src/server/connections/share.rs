//! Limits, per connection and per peer address, on calls whose request message has not arrived and on
//! responses that are not read. Such calls hold memory but no call permit, so they are limited by
//! their sender and do not take from the calls of others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Unread responses that one address may have.
const UNREAD_ANSWERS: usize = 2 * 1024;
/// Unread bytes that one connection may have, in multiples of `--max-response-bytes`.
const LARGEST_BY_CONNECTION: usize = 4;
/// The same for one address.
const LARGEST_BY_ADDRESS: usize = 16;

/// What may wait at once.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct WaitingLimits {
    /// Calls of one connection.
    pub by_connection: usize,
    /// Calls of one address.
    pub by_address: usize,
    /// Bytes of a message, for each of those calls.
    pub message_bytes: usize,
    /// Bytes of the largest answer.
    pub answer_bytes: usize,
}

/// What waits, of a connection or of an address.
#[derive(Debug, Default)]
pub(in crate::server) struct Waiting {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    unread: AtomicUsize,
    unread_bytes: AtomicUsize,
}

/// The share of one connection, and of the address that it came from.
#[derive(Debug)]
pub(in crate::server) struct Share {
    limits: WaitingLimits,
    connection: Waiting,
    address: Arc<Waiting>,
}

/// Guard of one unread response.
pub(super) struct Unread(Arc<Share>);

/// Guard of unread bytes of a response.
pub(super) struct UnreadBytes {
    share: Arc<Share>,
    bytes: usize,
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

    /// Counts a response as unread until the guard is dropped.
    pub(super) fn leave_unread(self: &Arc<Self>) -> Unread {
        add(&self.address.unread, 1);
        Unread(self.clone())
    }

    /// Counts bytes of a response as unread until the guard is dropped.
    pub(super) fn leave_bytes(self: &Arc<Self>, bytes: usize) -> UnreadBytes {
        add(&self.connection.unread_bytes, bytes);
        add(&self.address.unread_bytes, bytes);
        let share = self.clone();
        UnreadBytes { share, bytes }
    }

    /// Whether unread responses exceed a limit; new calls are refused as OVERLOADED then.
    pub fn is_behind(&self) -> bool {
        let largest = self.limits.answer_bytes;
        let exceeds = |bytes: &AtomicUsize, times: usize| {
            bytes.load(Ordering::Relaxed) > largest.saturating_mul(times)
        };
        exceeds(&self.connection.unread_bytes, LARGEST_BY_CONNECTION)
            || exceeds(&self.address.unread_bytes, LARGEST_BY_ADDRESS)
            || self.address.unread.load(Ordering::Relaxed) > UNREAD_ANSWERS
    }

    /// Counts bytes of a message that is not complete; says whether there is room for them.
    pub fn hold(&self, bytes: usize) -> bool {
        let WaitingLimits {
            by_connection,
            by_address,
            message_bytes,
            ..
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

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.address.unread.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for UnreadBytes {
    fn drop(&mut self) {
        for of in [&self.share.connection, &self.share.address] {
            of.unread_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
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
