//! Ending a session by its secret. The callers are strangers, so what they cost is limited, and they
//! learn nothing.

use std::num::NonZeroU32;

use tokio::sync::Semaphore;

use super::{About, App, Error, Rate, first_use::presented, log_change, throttle::Throttle};
use crate::domain::{
    audit::AuditAction,
    caller::{Actor, Call},
    refusal::Refusal,
    secret::{self, Digest},
    verdict::Facts,
};

/// How many changes all strangers together may request. Each can cost a look-up in the store.
const BY_ALL: Rate = Rate {
    per_second: NonZeroU32::new(100).unwrap(),
    burst: NonZeroU32::new(500).unwrap(),
};

/// How many changes the strangers of one network may request at most, a tenth of [`BY_ALL`], so that
/// one network cannot use that up.
const BY_NETWORK: Rate = Rate {
    per_second: NonZeroU32::new(10).unwrap(),
    burst: NonZeroU32::new(50).unwrap(),
};

/// The share of the look-ups for verdicts that strangers may take: one of so many.
const SHARE_OF_READINGS: usize = 8;

/// The limits on what strangers request.
pub(super) struct Strangers {
    networks: Throttle,
    all: Throttle,
    look_ups: Semaphore,
}

impl Strangers {
    /// Creates the limits. A network has the rate limit of one caller, but not more than
    /// [`BY_NETWORK`].
    pub fn new(of_caller: Rate, readings: usize) -> Self {
        Self {
            networks: Throttle::new(Rate {
                per_second: of_caller.per_second.min(BY_NETWORK.per_second),
                burst: of_caller.burst.min(BY_NETWORK.burst),
            }),
            all: Throttle::new(BY_ALL),
            look_ups: Semaphore::new((readings / SHARE_OF_READINGS).max(1)),
        }
    }

    /// Checks the rate limit of a network, and then the one that all strangers share. What a network
    /// requests beyond its own limit does not count against the shared one.
    pub fn admit(&self, network: &Actor) -> Result<(), Refusal> {
        self.networks.admit(network)?;
        self.all.admit(&Actor::of_session(""))
    }

    pub fn evict_idle(&self) {
        self.networks.evict_idle();
    }
}

impl App {
    /// Ends the session of a secret. Does nothing if the text is not the secret of a live session;
    /// the result does not reveal whether it was.
    ///
    /// # Errors
    /// [`Error`] if it cannot be determined whether it is one (R13), or if the session cannot be
    /// ended. Never because of the text.
    pub async fn end_session(&self, call: &Call, secret: &str) -> Result<(), Error> {
        let Some(digest) = secret::recognize(secret.trim()) else {
            return Ok(());
        };
        let facts = {
            let permit = self.strangers.look_ups.try_acquire();
            let _permit = permit.map_err(|_| Error::Overloaded)?;
            // As for a verdict: a former primary may not know the session.
            let (facts, _) = self.look_up_facts_unshared(digest, None).await?;
            facts
        };
        match facts {
            Some(facts) if facts.session.is_some() && !self.is_long_expired(&facts) => {
                self.end_session_found(call, (digest, &facts)).await
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the token or its session has expired by any clock that can decide a change.
    /// Such a session needs no transaction. One that was ended before its expiry gets one, because
    /// its end may not be committed yet, or may be lost in a failover.
    fn is_long_expired(&self, facts: &Facts) -> bool {
        let skew = self.store.max_skew();
        let now = self.clock.now();
        facts.expires_at().is_some_and(|at| at.plus(skew) < now)
    }

    async fn end_session_found(
        &self,
        call: &Call,
        (digest, facts): (Digest, &Facts),
    ) -> Result<(), Error> {
        let presented = presented(digest, facts);
        let done = self.store.end_presented_session(call, presented).await;
        if let Some(revision) = done? {
            self.note_own(revision);
            let about = About {
                stack_key: Some(facts.stack.key.clone()),
                token_uid: Some(facts.token.uid.to_string()),
                ..About::default()
            };
            log_change(AuditAction::TokenEndSession, &about, revision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::Caller;

    fn strangers(per_caller: u32) -> Strangers {
        let rate = NonZeroU32::new(per_caller).unwrap();
        let of_caller = Rate {
            per_second: rate,
            burst: rate,
        };
        Strangers::new(of_caller, 4)
    }

    /// Returns how many of 600 calls from a network are admitted.
    fn admitted(strangers: &Strangers, network: u8) -> usize {
        let stranger = Caller::stranger([192, 0, 2, network].into());
        let calls = (0..600).filter(|_| strangers.admit(&stranger.sharer()).is_ok());
        calls.count()
    }

    /// The bounds leave room for what is admitted again while the test runs.
    #[test]
    fn all_strangers_together_have_a_rate_limit_too() {
        let strangers = strangers(1_000_000);
        let first = admitted(&strangers, 0);
        assert!((50..100).contains(&first), "{first}, a tenth of all");
        let all: usize = (1..20).map(|network| admitted(&strangers, network)).sum();
        assert!((450..700).contains(&all), "{all}");
    }

    #[test]
    fn a_network_gets_no_more_than_one_caller() {
        let few = admitted(&strangers(3), 0);
        assert!((3..10).contains(&few), "{few}");
    }

    #[test]
    fn strangers_look_up_at_least_one_secret_at_a_time() {
        assert_eq!(strangers(1).look_ups.available_permits(), 1);
    }
}
