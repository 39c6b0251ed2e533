//! Limits, per connection and per peer address, on calls whose request message has not arrived and
//! on responses that the client has not read. Such calls and responses take memory but no call
//! permit. So they are limited per sender, and cannot displace the calls of others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Maximum number of unread responses per address.
const UNREAD_ANSWERS: usize = 2 * 1024;
/// Maximum number of unread bytes per connection, in multiples of `--max-response-bytes`.
const LARGEST_BY_CONNECTION: usize = 4;
/// Maximum number of unread bytes per address, in multiples of `--max-response-bytes`.
const LARGEST_BY_ADDRESS: usize = 16;

/// Limits on calls that wait for their message, and on unread responses.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct BacklogLimits {
    /// Maximum number of waiting calls per connection.
    pub by_connection: usize,
    /// Maximum number of waiting calls per address.
    pub by_address: usize,
    /// Number of message bytes that each waiting call may hold on average.
    pub message_bytes: usize,
    /// Size of the largest response, in bytes.
    pub answer_bytes: usize,
}

/// Numbers of waiting calls, bytes of their messages, and unread responses, for a connection or an
/// address.
#[derive(Debug, Default)]
pub(in crate::server) struct BacklogCounts {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    unread: AtomicUsize,
    unread_bytes: AtomicUsize,
}

/// The limits that apply to one connection, and the counts of the connection and of its peer
/// address.
#[derive(Debug)]
pub(in crate::server) struct Backlog {
    limits: BacklogLimits,
    connection: BacklogCounts,
    address: Arc<BacklogCounts>,
}

/// Guard that counts one unread response until it is dropped.
pub(in crate::server) struct UnreadResponse(Arc<Backlog>);

/// Guard that counts unread bytes of a response until it is dropped.
pub(in crate::server) struct UnreadBytes {
    backlog: Arc<Backlog>,
    bytes: usize,
}

/// Guard that counts a call as waiting for its message until it is dropped.
pub(in crate::server) struct WaitingPermit {
    backlog: Arc<Backlog>,
}

impl Backlog {
    pub fn new(limits: BacklogLimits, address: Arc<BacklogCounts>) -> Self {
        Self {
            limits,
            connection: BacklogCounts::default(),
            address,
        }
    }

    /// Counts one more waiting call until the guard is dropped. Returns `None` if a limit is
    /// exceeded.
    pub fn wait(self: &Arc<Self>) -> Option<WaitingPermit> {
        let BacklogLimits {
            by_connection,
            by_address,
            ..
        } = self.limits;
        let seat = WaitingPermit {
            backlog: self.clone(),
        };
        let here = add(&self.connection.calls, 1);
        let there = add(&self.address.calls, 1);
        (here <= by_connection && there <= by_address).then_some(seat)
    }

    /// Counts a response as unread until the guard is dropped.
    pub(super) fn count_unread(self: &Arc<Self>) -> UnreadResponse {
        add(&self.address.unread, 1);
        UnreadResponse(self.clone())
    }

    /// Counts the response of a new call as unread. Returns `None` if a limit is then exceeded. The
    /// response is counted before the limits are checked, so concurrent calls cannot all pass the
    /// check before any of them is counted.
    pub(in crate::server) fn begin_response(self: &Arc<Self>) -> Option<UnreadResponse> {
        let unread = self.count_unread();
        (!self.is_behind()).then_some(unread)
    }

    /// Counts bytes of a response as unread until the guard is dropped.
    pub(super) fn count_unread_bytes(self: &Arc<Self>, bytes: usize) -> UnreadBytes {
        add(&self.connection.unread_bytes, bytes);
        add(&self.address.unread_bytes, bytes);
        let backlog = self.clone();
        UnreadBytes { backlog, bytes }
    }

    /// Returns whether unread responses exceed a limit. If so, new calls are refused as OVERLOADED.
    pub fn is_behind(&self) -> bool {
        let largest = self.limits.answer_bytes;
        let exceeds = |bytes: &AtomicUsize, times: usize| {
            bytes.load(Ordering::Relaxed) > largest.saturating_mul(times)
        };
        exceeds(&self.connection.unread_bytes, LARGEST_BY_CONNECTION)
            || exceeds(&self.address.unread_bytes, LARGEST_BY_ADDRESS)
            || self.address.unread.load(Ordering::Relaxed) > UNREAD_ANSWERS
    }

    /// Counts bytes of an incomplete message. Returns whether they are within the limits.
    pub fn hold(&self, bytes: usize) -> bool {
        let BacklogLimits {
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

    /// Subtracts bytes that [`Self::hold`] counted.
    pub fn release(&self, bytes: usize) {
        self.connection.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.address.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        self.0.address.unread.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for UnreadBytes {
    fn drop(&mut self) {
        for of in [&self.backlog.connection, &self.backlog.address] {
            of.unread_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for WaitingPermit {
    fn drop(&mut self) {
        self.backlog
            .connection
            .calls
            .fetch_sub(1, Ordering::Relaxed);
        self.backlog.address.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(count: &AtomicUsize, more: usize) -> usize {
    count.fetch_add(more, Ordering::Relaxed) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_responses_begin_than_may_be_unread() {
        let limits = BacklogLimits {
            by_connection: 1,
            by_address: 1,
            message_bytes: 1,
            answer_bytes: 1,
        };
        let backlog = Arc::new(Backlog::new(limits, Arc::default()));
        let mut begun: Vec<_> = (0..UNREAD_ANSWERS + 10)
            .map(|_| backlog.begin_response())
            .collect();
        let granted = begun.iter().filter(|begun| begun.is_some()).count();
        assert_eq!(granted, UNREAD_ANSWERS);
        begun.retain(Option::is_some);
        begun.pop();
        assert!(backlog.begin_response().is_some());
    }
}
