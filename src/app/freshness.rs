//! Freshness of the cache: the current lease, and the change-log position up to which changes are
//! applied. docs/architecture.md explains why this is sufficient.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::Safeguards;
use crate::{
    domain::{
        lease::{Adopted, Evidence, Lease, Tenure, Worth},
        origin::Origin,
        revision::Revision,
    },
    store::Store,
};

/// Maximum age of answers.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Freshness bound (R12).
    pub freshness: Duration,
    /// How much longer cached answers may be served while the store is down; an operator setting.
    pub serve_stale_for: Duration,
}

/// Whether cached entries may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// Yes: they are within the freshness bound.
    Fresh,
    /// Yes: they are older, but within the operator's `serve_stale_for`.
    Stale,
    /// No.
    None,
}

pub(super) struct Freshness {
    bounds: Bounds,
    /// Whether no other process changes the store, so that nothing goes stale unnoticed.
    sole: bool,
    /// Set when the SQLite file was deleted or replaced; nothing is trusted then.
    file_lost: Option<Arc<AtomicBool>>,
    /// The trusted database, its lease and the applied position, as one consistent snapshot: a
    /// cache hit reads them with one load and without a lock.
    standing: ArcSwap<Standing>,
    /// Serialises updates of `standing`.
    changing: Mutex<()>,
    /// Number of the current adoption of a database. Incremented before the cache is cleared, so
    /// that a hit taken under the former database is detected.
    tenure: AtomicU64,
    /// Notifies at each heartbeat, and at the first poll after an origin is adopted.
    proven: watch::Sender<()>,
    /// Requests a heartbeat at once, after an answer from another database.
    pub doubted: Notify,
    /// All enabled outside tests.
    safeguards: Safeguards,
}

#[derive(Clone, Debug)]
struct Standing {
    adopted: Adopted,
    /// Position up to which all changes are applied.
    applied: i64,
}

/// Lease and applied revision at one instant, under which cached entries may be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub lease: Lease,
    tenure: Tenure,
    /// Whether a requested revision is compared; false only in tests.
    checks: bool,
    /// Lower bound of what cached entries reflect.
    pub applied: Revision,
}

/// Position before the first poll.
const NOTHING: i64 = i64::MIN;

impl Freshness {
    pub fn new(bounds: Bounds, store: &Store, safeguards: Safeguards) -> Self {
        let sole = !store.is_shared();
        let mut adopted = Adopted::default();
        if sole {
            adopted = adopted.adopt(Origin::sole(store.epoch()), Duration::ZERO);
        }
        Self {
            bounds,
            sole,
            file_lost: store.file_lost(),
            tenure: AtomicU64::new(adopted.lease().tenure().number()),
            standing: ArcSwap::from_pointee(Standing {
                adopted,
                applied: NOTHING,
            }),
            changing: Mutex::default(),
            proven: watch::Sender::new(()),
            doubted: Notify::new(),
            safeguards,
        }
    }

    /// Returns whether the SQLite file was deleted or replaced.
    pub fn is_file_lost(&self) -> bool {
        let lost = self.file_lost.as_ref();
        lost.is_some_and(|lost| lost.load(Ordering::Acquire))
    }

    pub const fn bound(&self) -> Duration {
        self.bounds.freshness
    }

    /// Returns evidence from a database that was queried at `started`; `None` if it is not the
    /// trusted one.
    pub fn evidence(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        self.standing.load().adopted.evidence(origin, started)
    }

    /// Returns the same for a lookup.
    pub fn evidence_of_look_up(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        let standing = self.standing.load();
        let is_compared = self.safeguards.look_up_origins;
        let trusted = standing.adopted.origin().filter(|_| !is_compared);
        standing
            .adopted
            .evidence(trusted.unwrap_or(origin), started)
    }

    /// Returns whether any database is trusted yet.
    pub fn has_origin(&self) -> bool {
        self.standing.load().adopted.origin().is_some()
    }

    /// Trusts the database that committed the heartbeat started at `beat`, and discards the
    /// previous lease and position. `forget` clears the cache. It runs after the new tenure is
    /// visible, so that a hit on a new entry sees that an older lease does not cover it, and before
    /// the new position is known.
    pub fn adopt(&self, origin: Origin, beat: Duration, forget: impl FnOnce()) {
        self.change(|standing| {
            let adopted = standing.adopted.adopt(origin, beat);
            let number = adopted.lease().tenure().number();
            self.tenure.store(number, Ordering::Release);
            forget();
            *standing = Standing {
                adopted,
                applied: NOTHING,
            };
        });
        self.proven.send_replace(());
    }

    /// Notes that all changes a poll found are applied.
    pub fn note_read(&self, evidence: Evidence, position: i64) {
        let first = self.change(|standing| {
            let first = standing.applied == NOTHING;
            if evidence.tenure() == standing.adopted.lease().tenure() {
                standing.adopted = standing.adopted.clone().read(evidence);
                // Without other writers, changes are applied when they are made.
                if !self.sole || first {
                    standing.applied = position;
                }
            }
            first
        });
        if first {
            self.proven.send_replace(());
        }
    }

    /// Notes that the primary committed a heartbeat.
    pub fn note_beat(&self, evidence: Evidence) {
        self.change(|standing| standing.adopted = standing.adopted.clone().beat(evidence));
        self.proven.send_replace(());
    }

    /// Notes that a local change is applied. Without other writers, this advances the position.
    pub fn note_own(&self, position: i64) {
        if self.sole {
            self.change(|standing| standing.applied = standing.applied.max(position));
        }
    }

    fn change<T>(&self, by: impl FnOnce(&mut Standing) -> T) -> T {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing = Standing::clone(&self.standing.load());
        let done = by(&mut standing);
        self.standing.store(Arc::new(standing));
        done
    }

    /// Subscribes to proofs that the database is still the primary.
    pub fn proofs(&self) -> watch::Receiver<()> {
        self.proven.subscribe()
    }

    /// Returns the instant before which every acknowledged change has been published to the
    /// watchers' queues.
    pub fn told_since(&self) -> Option<Duration> {
        let lease = self.standing.load().adopted.lease();
        if self.sole {
            lease.read_since()
        } else {
            lease.since()
        }
    }

    /// Returns the current lease and applied revision. Take the view before the cache lookup: an
    /// entry found later reflects at least this revision. A lease read after the lookup could
    /// come from a poll that has evicted this entry, and would wrongly cover it.
    pub fn view(&self, now: Duration) -> View {
        let standing = self.standing.load();
        let epoch = standing.adopted.origin().map_or(0, |origin| origin.epoch);
        let lease = standing.adopted.lease();
        View {
            lease: self.lease_as_is(lease, now),
            tenure: lease.tenure(),
            checks: self.safeguards.reflection,
            applied: Revision {
                epoch,
                position: standing.applied,
            },
        }
    }

    fn lease_as_is(&self, lease: Lease, now: Duration) -> Lease {
        if self.is_file_lost() {
            Lease::default()
        } else if self.sole {
            lease.held(now)
        } else if self.safeguards.heartbeat {
            lease
        } else {
            lease.without_beat(now)
        }
    }

    /// Returns whether no other origin was adopted since the view was taken. Otherwise a cached
    /// entry may be from the new one.
    pub fn still_holds(&self, view: &View) -> bool {
        self.tenure.load(Ordering::Acquire) == view.tenure.number()
    }

    /// Returns how `view`, taken earlier, covers cached entries at `now`.
    pub fn cover(&self, view: &View, now: Duration) -> Cover {
        let Bounds {
            freshness,
            serve_stale_for,
        } = self.bounds;
        if view.lease.covers(now, freshness) || !self.safeguards.lease {
            Cover::Fresh
        } else if view
            .lease
            .covers(now, freshness.saturating_add(serve_stale_for))
        {
            Cover::Stale
        } else {
            Cover::None
        }
    }

    /// Judges whether a lookup may be answered now.
    pub fn judge(&self, reading: Evidence, now: Duration) -> Worth {
        if !self.safeguards.reading_age {
            return Worth::Answer;
        }
        let lease = self.view(now).lease;
        lease.judge(reading, now, self.bounds.freshness)
    }
}

impl View {
    /// Returns the tenure of the database that this view is about.
    pub const fn trusted(&self) -> Tenure {
        self.tenure
    }

    /// Returns the revision that a lookup started after this view reflects; position 0 if none is
    /// known. It is the position of a change, so it keeps its meaning after a crash.
    pub fn claimed(&self) -> Revision {
        Revision {
            position: self.applied.position.max(0),
            ..self.applied
        }
    }

    /// Returns whether cached entries reflect the requested revision.
    pub fn reflects(&self, asked: Option<Revision>) -> bool {
        let Revision { epoch, position } = self.applied;
        asked.is_none_or(|asked| asked.epoch == epoch && asked.position <= position) || !self.checks
    }
}
