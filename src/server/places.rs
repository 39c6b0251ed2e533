//! The places of calls at work: so many in all, a part of them for each kind of caller, and a
//! share for each caller. No caller can take what others need, and neither can many of one kind.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
    taken: Arc<Mutex<HashMap<Actor, usize>>>,
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
    actor: Actor,
    taken: Arc<Mutex<HashMap<Actor, usize>>>,
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
            taken: Arc::default(),
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
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(caller.actor.clone()).or_default();
        if *count >= kind.each {
            return Err(Failure::Overloaded);
        }
        *count += 1;
        Ok(Place {
            _permits: permits,
            actor: caller.actor.clone(),
            taken: self.taken.clone(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.actor) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.actor);
            }
        }
    }
}
