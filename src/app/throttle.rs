//! Rate limits per caller.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock, QuantaInstant},
};

use crate::domain::{caller::Actor, refusal::Refusal};

/// A rate limit: a sustained rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained rate per second.
    pub per_second: NonZeroU32,
    /// Number of requests that are admitted without delay after an idle period.
    pub burst: NonZeroU32,
}

pub(super) struct Throttle {
    limiter: DefaultKeyedRateLimiter<Actor>,
    clock: DefaultClock,
}

impl Throttle {
    pub fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
        }
    }

    pub fn admit(&self, actor: &Actor) -> Result<(), Refusal> {
        let admitted = self.limiter.check_key(actor);
        admitted.map_err(|until| self.refusal(&until))
    }

    fn refusal(&self, until: &NotUntil<QuantaInstant>) -> Refusal {
        let wait = until.wait_time_from(self.clock.now());
        // Rounded up, because a retry that comes even slightly too early would be refused again.
        let wait = wait + Duration::from_millis(1);
        let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Refusal::RateLimited { retry_after_ms }
    }

    pub fn evict_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}
