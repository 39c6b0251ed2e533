//! Tracks how fresh the cache is: the current lease, and the position in the change log up to which
//! all changes are applied. `stacktoken_core::lease` has the rule that decides when a lease covers
//! a cached entry. This module holds the state. `change_poller` updates it: each poll and each
//! heartbeat renews the lease. docs/architecture.md explains why a lease is sufficient.

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

/// How old answers may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The freshness bound (R12): how old an answer may be while the store is up.
    pub freshness: Duration,
    /// How much longer than `freshness` cached entries may still be used for answers while the
    /// store is down. The operator sets this.
    pub serve_stale_for: Duration,
}

/// Whether cached entries may be used for answers, and how old they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// The entries are within the freshness bound and may be used.
    Fresh,
    /// The entries are older than the freshness bound but within the operator's `serve_stale_for`,
    /// and may be used.
    Stale,
    /// The entries are too old, or their age is unknown. They must not be used.
    None,
}

pub(super) struct Freshness {
    bounds: Bounds,
    /// Whether this process is the only one that changes the store. If so, it evicts every entry
    /// that becomes outdated itself, and needs no lease.
    sole: bool,
    /// Set once the SQLite file is deleted or replaced. From then on, no cached entry is trusted.
    file_lost: Option<Arc<AtomicBool>>,
    /// Set while the database is behind the mark of its restore guard. Until it is not, no cached
    /// entry is trusted, however long `serve_stale_for` is.
    restored_from_past: Option<Arc<AtomicBool>>,
    /// The trusted database, its lease and the applied position, in one consistent snapshot, which
    /// a cache hit reads with one atomic load instead of a lock.
    standing: ArcSwap<Standing>,
    /// Serializes updates of `standing`.
    changing: Mutex<()>,
    /// Number of the current tenure, which is the period since the trusted database was adopted.
    /// The number is incremented before the cache is cleared, so that a cache hit from the former
    /// tenure is detected.
    tenure: AtomicU64,
    /// Notifies subscribers at each heartbeat, when a database is adopted, and at the first poll
    /// after that.
    proven: watch::Sender<()>,
    /// Requests an immediate heartbeat, after a database other than the trusted one has answered.
    pub doubted: Notify,
    /// The safeguards. Outside tests, all of them are on.
    safeguards: Safeguards,
}

#[derive(Clone, Debug)]
struct Standing {
    adopted: Adopted,
    /// Position up to which all changes are applied.
    applied: i64,
}

/// The lease and the applied revision, both taken at one instant. They decide whether cached
/// entries may be used for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub lease: Lease,
    tenure: Tenure,
    /// Whether `reflects` compares the required revision with `applied`. Only a test sets this to
    /// false.
    checks: bool,
    /// Revision that every cached entry reflects, or a later one.
    pub applied: Revision,
}

/// Value of the applied position before the first poll.
const NOTHING: i64 = i64::MIN;

impl Freshness {
    pub fn new(bounds: Bounds, store: &Store, safeguards: Safeguards) -> Self {
        let sole = !store.has_other_writers();
        let mut adopted = Adopted::default();
        if sole {
            adopted = adopted.adopt(Origin::sole(store.epoch()), Duration::ZERO);
        }
        Self {
            bounds,
            sole,
            file_lost: store.file_lost(),
            restored_from_past: store.restored_from_past(),
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
        is_set(self.file_lost.as_ref())
    }

    fn is_distrusted(&self) -> bool {
        self.is_file_lost() || is_set(self.restored_from_past.as_ref())
    }

    pub const fn bound(&self) -> Duration {
        self.bounds.freshness
    }

    /// Returns evidence that the trusted database was queried at `started`; `None` if `origin` is
    /// not the origin of the trusted database.
    pub fn evidence(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        self.standing.load().adopted.evidence(origin, started)
    }

    /// Returns evidence that a lookup started at `started`, as [`Self::evidence`] does. If a test
    /// has disabled the `look_up_origins` safeguard, any origin is accepted as the trusted one.
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

    /// Trusts the database whose heartbeat started at `beat`, and discards the lease and the
    /// position of the former database. `forget` clears the cache. It runs after the new tenure
    /// number is visible and before the new lease is, so that the former lease covers no entry that
    /// is cached from now on.
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

    /// Notes that a poll found all changes up to `position`, and that they are applied.
    pub fn note_read(&self, evidence: Evidence, position: i64) {
        let first = self.change(|standing| {
            let first = standing.applied == NOTHING;
            if evidence.tenure() == standing.adopted.lease().tenure() {
                standing.adopted = standing.adopted.clone().read(evidence);
                // If no other process writes, each change is applied when it is made, and
                // `note_own` advances the position.
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

    /// Notes that a change by this replica is applied. If no other process writes, this advances
    /// the applied position.
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

    /// Subscribes to heartbeats, each of which proves that the database is still the primary.
    pub fn proofs(&self) -> watch::Receiver<()> {
        self.proven.subscribe()
    }

    /// Returns the instant up to which the watchers are up to date: every change acknowledged
    /// before it has been put into their queues.
    pub fn published_since(&self) -> Option<Duration> {
        let lease = self.standing.load().adopted.lease();
        if self.sole {
            lease.read_since()
        } else {
            lease.since()
        }
    }

    /// Returns the current lease and the applied revision. Must be called before the cache is read.
    /// An entry that is read afterwards reflects at least the applied revision. If the entry were
    /// read first, a poll could evict it and renew the lease before the view is taken, and the
    /// renewed lease would wrongly cover the evicted entry.
    pub fn view(&self, now: Duration) -> View {
        let standing = self.standing.load();
        let epoch = standing.adopted.origin().map_or(0, |origin| origin.epoch);
        let lease = standing.adopted.lease();
        View {
            lease: self.effective_lease(lease, now),
            tenure: lease.tenure(),
            checks: self.safeguards.reflection,
            applied: Revision {
                epoch,
                position: standing.applied,
            },
        }
    }

    /// Returns the lease that applies: an empty one if the SQLite file is lost or the database
    /// was restored from the past, and one that is valid at `now` if no other process writes to the store.
    fn effective_lease(&self, lease: Lease, now: Duration) -> Lease {
        if self.is_distrusted() {
            Lease::default()
        } else if self.sole {
            lease.held(now)
        } else if self.safeguards.heartbeat {
            lease
        } else {
            lease.without_beat(now)
        }
    }

    /// Returns whether the database that was trusted when the view was taken is still trusted. If
    /// not, a cached entry may come from the new database, which the lease in the view does not
    /// cover.
    pub fn still_holds(&self, view: &View) -> bool {
        self.tenure.load(Ordering::Acquire) == view.tenure.number()
    }

    /// Returns whether cached entries are fresh, stale but usable, or unusable at `now` under the
    /// lease in `view`, which was taken before the cache was read.
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

    /// Decides whether the result of a lookup may be used for an answer at `now`.
    pub fn judge(&self, reading: Evidence, now: Duration) -> Worth {
        if !self.safeguards.reading_age {
            return Worth::Answer;
        }
        let lease = self.view(now).lease;
        lease.judge(reading, now, self.bounds.freshness)
    }
}

fn is_set(flag: Option<&Arc<AtomicBool>>) -> bool {
    flag.is_some_and(|flag| flag.load(Ordering::Acquire))
}

impl View {
    /// Returns the tenure in which this view was taken.
    pub const fn trusted(&self) -> Tenure {
        self.tenure
    }

    /// Returns the revision that a lookup reflects if it starts after this view was taken. Its
    /// position is 0 before the first poll. Otherwise it is the position of a change, which no
    /// other transaction gets after a crash.
    pub fn claimed(&self) -> Revision {
        Revision {
            position: self.applied.position.max(0),
            ..self.applied
        }
    }

    /// Returns whether cached entries reflect the revision that the caller requires, if any.
    pub fn reflects(&self, asked: Option<Revision>) -> bool {
        let Revision { epoch, position } = self.applied;
        asked.is_none_or(|asked| asked.epoch == epoch && asked.position <= position) || !self.checks
    }
}
