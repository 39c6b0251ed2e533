//! How fresh what is remembered here is: the lease as it stands, and up to where the history
//! is applied. The argument why this is enough stands in docs/architecture.md.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Safeguards;
use crate::{
    domain::{lease::Lease, revision::Revision},
    store::Store,
};

/// How old answers may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The freshness bound (R12).
    pub freshness: Duration,
    /// How much longer an operator lets answers from memory go on while the store is down.
    pub serve_stale_for: Duration,
}

/// Whether what is remembered may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// It is as fresh as it must be.
    Fresh,
    /// It is not, but an operator chose to go on for a while.
    Stale,
    /// It may not.
    None,
}

pub(super) struct Freshness {
    bounds: Bounds,
    /// Whether no other process changes the store, so that nothing can go stale unseen.
    sole: bool,
    /// Whether the file of a store of our own was deleted or replaced: then nothing is known.
    file_lost: Option<Arc<AtomicBool>>,
    /// Instants of the monotonic clock in nanoseconds, plus one; 0 for never.
    read: AtomicU64,
    beat: AtomicU64,
    applied: AtomicI64,
    /// Off only in a negative control.
    safeguards: Safeguards,
}

impl Freshness {
    pub fn new(bounds: Bounds, store: &Store, safeguards: Safeguards) -> Self {
        Self {
            bounds,
            sole: !store.is_shared(),
            file_lost: store.file_lost(),
            read: AtomicU64::new(0),
            beat: AtomicU64::new(0),
            applied: AtomicI64::new(i64::MIN),
            safeguards,
        }
    }

    /// Whether the file of a store of our own was deleted or replaced.
    pub fn is_file_lost(&self) -> bool {
        let lost = self.file_lost.as_ref();
        lost.is_some_and(|lost| lost.load(Ordering::Acquire))
    }

    pub const fn bound(&self) -> Duration {
        self.bounds.freshness
    }

    /// Everything that a reading of the history started at `started` found is applied.
    pub fn note_read(&self, started: Duration, position: i64) {
        self.applied.store(position, Ordering::Release);
        self.read.fetch_max(stamp(started), Ordering::AcqRel);
    }

    /// The same where nobody else makes changes: they were applied when they were made, and all
    /// that this reading found is told to whoever watches.
    pub fn note_told(&self, started: Duration) {
        self.read.fetch_max(stamp(started), Ordering::AcqRel);
    }

    /// The point before which everything acknowledged is told to whoever watches, or is in what
    /// waits for them.
    pub fn told_since(&self) -> Option<Duration> {
        if self.sole {
            return instant(&self.read);
        }
        let (read, beat) = (instant(&self.read), instant(&self.beat));
        Lease { read, beat }.since()
    }

    /// The primary committed something that was started at `started`.
    pub fn note_beat(&self, started: Duration) {
        self.beat.fetch_max(stamp(started), Ordering::AcqRel);
    }

    /// A change of our own is applied; where nobody else makes any, that is all of history.
    pub fn note_own(&self, position: i64) {
        if self.sole {
            self.applied.fetch_max(position, Ordering::AcqRel);
        }
    }

    /// The last position up to which everything is applied.
    pub fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Whether what is remembered reflects a revision.
    pub fn reflects(&self, revision: Option<Revision>, epoch: i64) -> bool {
        revision.is_none_or(|asked| asked.epoch == epoch && asked.position <= self.applied())
            || !self.safeguards.reflection
    }

    pub fn cover(&self, now: Duration) -> Cover {
        self.cover_by(self.lease(now), now)
    }

    /// The same by a lease as it was at some earlier instant.
    pub fn cover_by(&self, lease: Lease, now: Duration) -> Cover {
        let Bounds {
            freshness,
            serve_stale_for,
        } = self.bounds;
        if lease.covers(now, freshness) || !self.safeguards.lease {
            Cover::Fresh
        } else if lease.covers(now, freshness.saturating_add(serve_stale_for)) {
            Cover::Stale
        } else {
            Cover::None
        }
    }

    pub fn covers_read(&self, started: Duration, now: Duration) -> bool {
        self.lease(now)
            .covers_read(started, now, self.bounds.freshness)
            || !self.safeguards.reading_age
    }

    pub fn lease(&self, now: Duration) -> Lease {
        if self.is_file_lost() {
            return Lease::default();
        }
        if self.sole {
            return Lease {
                read: Some(now),
                beat: Some(now),
            };
        }
        let beat = if self.safeguards.heartbeat {
            instant(&self.beat)
        } else {
            Some(now)
        };
        Lease {
            read: instant(&self.read),
            beat,
        }
    }
}

fn stamp(at: Duration) -> u64 {
    u64::try_from(at.as_nanos())
        .unwrap_or(u64::MAX - 1)
        .saturating_add(1)
}

fn instant(stamp: &AtomicU64) -> Option<Duration> {
    stamp
        .load(Ordering::Acquire)
        .checked_sub(1)
        .map(Duration::from_nanos)
}
