//! How often one caller may do a thing.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock, QuantaInstant},
};

use crate::domain::{caller::Actor, refusal::Refusal};

/// So many a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: NonZeroU32,
    /// At once, after a quiet time.
    pub burst: NonZeroU32,
}

pub(super) struct Throttle {
    limiter: DefaultKeyedRateLimiter<Actor>,
    clock: DefaultClock,
    burst: NonZeroU32,
}

impl Throttle {
    pub fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            burst: rate.burst,
        }
    }

    pub fn admit(&self, actor: &Actor) -> Result<(), Refusal> {
        let admitted = self.limiter.check_key(actor);
        admitted.map_err(|until| self.refusal(&until))
    }

    /// So many at once, or none. More than may ever be done at once take all that there is:
    /// otherwise they could never be done.
    pub fn admit_many(&self, actor: &Actor, count: NonZeroU32) -> Result<(), Refusal> {
        match self.limiter.check_key_n(actor, count.min(self.burst)) {
            Ok(admitted) => admitted.map_err(|until| self.refusal(&until)),
            // Does not happen: it is no more than the burst.
            Err(_) => Err(Refusal::RateLimited {
                retry_after_ms: 1000,
            }),
        }
    }

    fn refusal(&self, until: &NotUntil<QuantaInstant>) -> Refusal {
        let wait = until.wait_time_from(self.clock.now());
        // Rounded up: trying again a moment too early would be refused again.
        let wait = wait + Duration::from_millis(1);
        let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Refusal::RateLimited { retry_after_ms }
    }

    pub fn forget_quiet(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}
