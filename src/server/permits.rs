//! Permits for calls in progress. They are limited in total, per kind of caller and per caller, so
//! that neither one caller nor many callers of one kind can starve the others.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::keyed_counts::{KeyedCounts, KeyedPermit};
use crate::{
    config::Tuning,
    domain::caller::{Actor, Caller},
    grpc::status::Failure,
};

/// Limits on calls in progress.
pub(super) struct CallPermits {
    all: Arc<Semaphore>,
    introspectors: Kind,
    others: Kind,
    counts: KeyedCounts<Actor>,
    closed: bool,
}

/// Limits for one kind of caller: those with the introspect role, or those without it.
struct Kind {
    /// Permits for all callers of this kind. The rest of the total is left to the other kind.
    all: Arc<Semaphore>,
    each: usize,
}

/// Permit for one call. Dropping the permit releases it.
pub(super) struct CallPermit {
    _permits: [OwnedSemaphorePermit; 2],
    _keyed_permit: KeyedPermit<Actor>,
}

impl CallPermits {
    /// Returns whether the total limit is zero, in which case even cached verdicts are refused.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn new(tuning: &Tuning) -> Self {
        let all = tuning.max_calls;
        // Each kind may use three quarters of the total, so that a quarter is always left to the
        // other kind.
        let kind = |each| Kind {
            all: Arc::new(Semaphore::new(all - all / 4)),
            each,
        };
        let eighth = tuning
            .client_limits
            .max_calls_per_caller
            .unwrap_or(all.div_ceil(8));
        let half = tuning
            .client_limits
            .max_calls_per_introspector
            .unwrap_or(all.div_ceil(2));
        Self {
            all: Arc::new(Semaphore::new(all)),
            introspectors: kind(half),
            others: kind(eighth),
            counts: KeyedCounts::default(),
            closed: all == 0,
        }
    }

    /// Takes a permit for a call by this caller, or fails with [`Failure::Overloaded`].
    pub fn enter(&self, caller: &Caller) -> Result<CallPermit, Failure> {
        let kind = if caller.introspects {
            &self.introspectors
        } else {
            &self.others
        };
        let permit = |all: &Arc<Semaphore>| {
            let permit = all.clone().try_acquire_owned();
            permit.map_err(|_| Failure::Overloaded)
        };
        let permits = [permit(&kind.all)?, permit(&self.all)?];
        let keyed_permit = self.counts.take(&caller.sharer(), kind.each);
        Ok(CallPermit {
            _permits: permits,
            _keyed_permit: keyed_permit.ok_or(Failure::Overloaded)?,
        })
    }
}
