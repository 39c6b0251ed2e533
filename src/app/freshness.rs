//! How fresh what is remembered here is: the lease as it stands, and up to where the history
//! is applied. The argument why this is enough stands in docs/architecture.md.

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
    /// The database that is trusted, what is known of its past, and up to where its history is
    /// applied, all at one instant: a hit takes them with one load and no lock.
    standing: ArcSwap<Standing>,
    /// Taken by whoever changes the standing.
    changing: Mutex<()>,
    /// The tenure of the standing, raised before memory is emptied for another origin.
    tenure: AtomicU64,
    /// Told at each heartbeat, and at the first reading of an origin.
    proven: watch::Sender<()>,
    /// Asks for a heartbeat at once: something was learned from another database.
    pub doubted: Notify,
    /// Off only in a negative control.
    safeguards: Safeguards,
}

#[derive(Clone, Debug)]
struct Standing {
    adopted: Adopted,
    /// The position of a change up to which everything is applied.
    applied: i64,
}

/// What vouches for memory at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub lease: Lease,
    tenure: Tenure,
    /// Off only in a negative control: whether a revision that was asked for is compared.
    checks: bool,
    /// What is remembered reflects at least this.
    pub applied: Revision,
}

/// Before anything was read.
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

    /// Whether the file of a store of our own was deleted or replaced.
    pub fn is_file_lost(&self) -> bool {
        let lost = self.file_lost.as_ref();
        lost.is_some_and(|lost| lost.load(Ordering::Acquire))
    }

    pub const fn bound(&self) -> Duration {
        self.bounds.freshness
    }

    /// What was learned from a database by asking that was started then; `None` where it is not
    /// the one that is trusted.
    pub fn evidence(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        self.standing.load().adopted.evidence(origin, started)
    }

    /// The same of a look-up.
    pub fn evidence_of_look_up(&self, origin: &Origin, started: Duration) -> Option<Evidence> {
        let standing = self.standing.load();
        let is_compared = self.safeguards.look_up_origins;
        let trusted = standing.adopted.origin().filter(|_| !is_compared);
        standing
            .adopted
            .evidence(trusted.unwrap_or(origin), started)
    }

    /// Whether a database is trusted at all.
    pub fn has_origin(&self) -> bool {
        self.standing.load().adopted.origin().is_some()
    }

    /// Trusts the database that committed a heartbeat started at `beat`, and nothing that is
    /// known from before. `forget` empties memory: after the new tenure can be seen, so that
    /// whoever finds something of the new origin in memory knows that a former lease does not
    /// cover it; and before anything is known of the new one.
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

    /// Everything that a reading of the history found is applied.
    pub fn note_read(&self, evidence: Evidence, position: i64) {
        let first = self.change(|standing| {
            let first = standing.applied == NOTHING;
            if evidence.tenure() == standing.adopted.lease().tenure() {
                standing.adopted = standing.adopted.clone().read(evidence);
                // Where nobody else makes changes, they are applied when they are made.
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

    /// The primary committed a heartbeat.
    pub fn note_beat(&self, evidence: Evidence) {
        self.change(|standing| standing.adopted = standing.adopted.clone().beat(evidence));
        self.proven.send_replace(());
    }

    /// A change of our own is applied; where nobody else makes any, that is all of history.
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

    /// Hears of each proof that the database is still the primary.
    pub fn proofs(&self) -> watch::Receiver<()> {
        self.proven.subscribe()
    }

    /// The point before which everything acknowledged is told to whoever watches, or is in what
    /// waits for them.
    pub fn told_since(&self) -> Option<Duration> {
        let lease = self.standing.load().adopted.lease();
        if self.sole {
            lease.read_since()
        } else {
            lease.since()
        }
    }

    /// What vouches for memory now. To be taken before the look into memory: what it holds then
    /// reflects at least this. A lease taken after it could be one that came with an eviction,
    /// and would vouch for what that threw out.
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

    /// Whether no other origin was adopted since this was taken: what is found in memory may
    /// otherwise be of that one.
    pub fn still_holds(&self, view: &View) -> bool {
        self.tenure.load(Ordering::Acquire) == view.tenure.number()
    }

    /// How well what is remembered is covered at `now` by a view that was taken before.
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

    /// What a reading of the store is worth now.
    pub fn judge(&self, reading: Evidence, now: Duration) -> Worth {
        if !self.safeguards.reading_age {
            return Worth::Answer;
        }
        let lease = self.view(now).lease;
        lease.judge(reading, now, self.bounds.freshness)
    }
}

impl View {
    /// Of which database this is.
    pub const fn trusted(&self) -> Tenure {
        self.tenure
    }

    /// What a reading that began after this reflects: the position of a change, so that it still
    /// means the same after a crash; 0 where none is known.
    pub fn claimed(&self) -> Revision {
        Revision {
            position: self.applied.position.max(0),
            ..self.applied
        }
    }

    /// Whether what is remembered reflects a revision.
    pub fn reflects(&self, asked: Option<Revision>) -> bool {
        let Revision { epoch, position } = self.applied;
        asked.is_none_or(|asked| asked.epoch == epoch && asked.position <= position) || !self.checks
    }
}
