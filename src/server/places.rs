//! The places of calls at work: so many in all, a part of them for each kind of caller, and a
//! share for each caller. No caller can take what others need, and neither can many of one kind.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::{Shares, Taken};
use crate::{
    config::Tuning,
    domain::caller::{Actor, Caller},
    grpc::status::Failure,
};

/// The places.
pub(super) struct Places {
    all: Arc<Semaphore>,
    introspectors: Kind,
    others: Kind,
    shares: Shares<Actor>,
    closed: bool,
}

/// Callers with the introspect role, or without.
struct Kind {
    /// What all of them may have; the rest is for the others.
    all: Arc<Semaphore>,
    each: usize,
}

/// A place, until this is dropped.
pub(super) struct Place {
    _permits: [OwnedSemaphorePermit; 2],
    _share: Taken<Actor>,
}

impl Places {
    /// Whether there are none at all, so that nothing is answered.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn new(tuning: &Tuning) -> Self {
        let all = tuning.max_calls;
        // A quarter is out of reach for either kind.
        let kind = |each| Kind {
            all: Arc::new(Semaphore::new(all - all / 4)),
            each,
        };
        let eighth = tuning
            .shares
            .max_calls_per_caller
            .unwrap_or(all.div_ceil(8));
        let half = tuning
            .shares
            .max_calls_per_introspector
            .unwrap_or(all.div_ceil(2));
        Self {
            all: Arc::new(Semaphore::new(all)),
            introspectors: kind(half),
            others: kind(eighth),
            shares: Shares::default(),
            closed: all == 0,
        }
    }

    /// A place for a call by this caller.
    pub fn enter(&self, caller: &Caller) -> Result<Place, Failure> {
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
        let share = self.shares.take(&caller.actor, kind.each);
        Ok(Place {
            _permits: permits,
            _share: share.ok_or(Failure::Overloaded)?,
        })
    }
}
