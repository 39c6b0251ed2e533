//! Permits for calls in progress. Their number is limited in total, per kind of caller and per
//! caller, so that neither one caller nor many callers of one kind can starve the others.

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
    /// Limits for workloads and strangers, which also count among `others`.
    workloads: Kind,
    counts: KeyedCounts<Actor>,
    closed: bool,
}

/// Limits for one kind of caller: callers with the introspect role, or callers without it.
struct Kind {
    /// The permits for all callers of this kind. They are fewer than the total, so that some are
    /// left to the other kind.
    all: Arc<Semaphore>,
    each: usize,
}

/// A permit for one call. Dropping it releases the permit.
pub(super) struct CallPermit {
    _permits: Vec<OwnedSemaphorePermit>,
    _keyed_permit: KeyedPermit<Actor>,
}

impl CallPermits {
    /// Returns whether the total limit is zero, in which case even cached verdicts are refused.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn new(tuning: &Tuning) -> Self {
        let limits = &tuning.client_limits;
        let each = [
            limits.max_calls_per_caller,
            limits.max_calls_per_introspector,
        ];
        Self::of(tuning.max_calls, each)
    }

    /// Creates the limits for a total of `all` calls. `per_caller` and `per_introspector` replace
    /// the default limits for one caller.
    fn of(all: usize, [per_caller, per_introspector]: [Option<usize>; 2]) -> Self {
        // Each kind may use three quarters of the total, so that a quarter is always left to the
        // other kind.
        let kind = |each| Kind {
            all: Arc::new(Semaphore::new(all - all / 4)),
            each,
        };
        let eighth = per_caller.unwrap_or(all.div_ceil(8));
        let half = per_introspector.unwrap_or(all.div_ceil(2));
        let workloads = all.div_ceil(4);
        Self {
            all: Arc::new(Semaphore::new(all)),
            introspectors: kind(half),
            others: kind(eighth),
            workloads: Kind {
                all: Arc::new(Semaphore::new(workloads)),
                each: workloads.div_ceil(4).min(eighth),
            },
            counts: KeyedCounts::default(),
            closed: all == 0,
        }
    }

    /// Takes a permit for a call by this caller, or fails with [`Failure::Overloaded`].
    pub fn enter(&self, caller: &Caller) -> Result<CallPermit, Failure> {
        let (kind, each) = match (caller.is_public(), caller.introspects) {
            // Anyone can have accounts at public issuers, so all workloads share one part, and
            // strangers share it with them.
            (true, _) => (&self.others, self.workloads.each),
            (false, true) => (&self.introspectors, self.introspectors.each),
            (false, false) => (&self.others, self.others.each),
        };
        let workloads = caller.is_public().then_some(&self.workloads.all);
        let permit = |all: &Arc<Semaphore>| {
            let permit = all.clone().try_acquire_owned();
            permit.map_err(|_| Failure::Overloaded)
        };
        let pools = workloads.into_iter().chain([&kind.all, &self.all]);
        let permits = pools.map(permit).collect::<Result<_, _>>()?;
        let keyed_permit = self.counts.take(&caller.sharer(), each);
        Ok(CallPermit {
            _permits: permits,
            _keyed_permit: keyed_permit.ok_or(Failure::Overloaded)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{caller::CallerKind, federation::Workload, timestamp::Timestamp};

    fn caller(kind: CallerKind, (issuer, account): (&str, &str)) -> Caller {
        let instant = Timestamp::from_micros(0).unwrap();
        let workload = Workload {
            issuer: issuer.to_owned(),
            claims: serde_json::Map::new(),
            jti: None,
            subject: String::new(),
            subject_description: String::new(),
            account_key: account.to_owned(),
            iat: instant,
            exp: instant.plus(Duration::from_mins(1)),
        };
        Caller {
            actor: Actor {
                kind,
                issuer: issuer.to_owned(),
                subject: account.to_owned(),
            },
            introspects: false,
            workload: (kind == CallerKind::Workload).then(|| Arc::new(workload)),
            stranger_in: None,
        }
    }

    #[test]
    fn workloads_of_two_public_issuers_take_a_quarter_of_the_calls() {
        let permits = CallPermits::of(64, [None, None]);
        let mut held = Vec::new();
        let accounts: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        for issuer in ["github", "gitlab"] {
            for account in &accounts {
                let caller = caller(CallerKind::Workload, (issuer, account));
                let calls = std::iter::from_fn(|| permits.enter(&caller).ok());
                let calls: Vec<_> = calls.collect();
                assert!(calls.len() <= 4, "one account has {}", calls.len());
                held.extend(calls);
            }
        }
        assert_eq!(held.len(), 16);
        let stranger = Caller::stranger([192, 0, 2, 1].into());
        assert!(permits.enter(&stranger).is_err(), "a share of his own");
        held.truncate(12);
        let calls: Vec<_> = std::iter::from_fn(|| permits.enter(&stranger).ok()).collect();
        assert_eq!(calls.len(), 4);
        let person = caller(CallerKind::User, ("login", "ann"));
        assert!(permits.enter(&person).is_ok());
    }
}
