//! Determines which services a change of a token would affect, from the recorded uses of the token.

use std::time::Duration;

use super::{caller::Actor, timestamp::Timestamp};

/// The maximum age of a use that is taken into account.
pub const USAGE_WINDOW: Duration = Duration::from_hours(30 * 24);

/// The maximum number of services that are listed.
pub const SERVICES_NAMED: u64 = 100;

/// A use of a token by a service. A use is an answer to the service that the token is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUse {
    /// The service that used the token.
    pub service: Actor,
    /// When the service last used the token.
    pub last_used_at: Timestamp,
}

/// Which services a change of a token would affect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Impact {
    /// When the token was last used. `None` if it was never used.
    pub last_used_at: Option<Timestamp>,
    /// The services that used the token within [`USAGE_WINDOW`], the latest use first.
    pub services: Vec<ServiceUse>,
}

impl Impact {
    /// Builds the impact from stored uses, which must be ordered by time with the latest first.
    #[must_use]
    pub fn of(mut uses: Vec<ServiceUse>, now: Timestamp) -> Self {
        let last_used_at = uses.first().map(|used| used.last_used_at);
        uses.retain(|used| now.since(used.last_used_at) <= USAGE_WINDOW);
        Self {
            last_used_at,
            services: uses,
        }
    }
}

impl Impact {
    /// Adds uses that are not yet in the store.
    #[must_use]
    pub fn with(mut self, uses: Vec<ServiceUse>, now: Timestamp) -> Self {
        let latest = uses.iter().map(|used| used.last_used_at).max();
        self.last_used_at = self.last_used_at.max(latest);
        let recent = |used: &ServiceUse| now.since(used.last_used_at) <= USAGE_WINDOW;
        for used in uses.into_iter().filter(recent) {
            let same = |known: &&mut ServiceUse| {
                known.service.issuer == used.service.issuer
                    && known.service.subject == used.service.subject
            };
            match self.services.iter_mut().find(same) {
                Some(known) => known.last_used_at = known.last_used_at.max(used.last_used_at),
                None => self.services.push(used),
            }
        }
        self.services
            .sort_by_key(|used| std::cmp::Reverse(used.last_used_at));
        self.services
            .truncate(usize::try_from(SERVICES_NAMED).unwrap_or(usize::MAX));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::CallerKind;

    fn used(service: &str, at: i64) -> ServiceUse {
        ServiceUse {
            service: Actor {
                kind: CallerKind::Service,
                issuer: "https://login.test".to_owned(),
                subject: service.to_owned(),
            },
            last_used_at: Timestamp::from_micros(at).unwrap_or(Timestamp::EPOCH),
        }
    }

    #[test]
    fn a_use_of_thirty_days_ago_counts_and_an_older_one_only_as_the_last() {
        let month = i64::try_from(USAGE_WINDOW.as_micros()).unwrap_or_default();
        let now = Timestamp::from_micros(month + 2).unwrap_or(Timestamp::EPOCH);
        let (inside, outside) = (used("inside", 2), used("outside", 1));
        let both = Impact::of(vec![inside.clone(), outside.clone()], now);
        assert_eq!(both.last_used_at, Some(inside.last_used_at));
        assert_eq!(both.services, [inside]);
        let old = Impact::of(vec![outside.clone()], now);
        assert_eq!(old.last_used_at, Some(outside.last_used_at));
        assert_eq!(old.services, []);
        assert_eq!(Impact::of(Vec::new(), now), Impact::default());
    }

    #[test]
    fn uses_not_yet_on_record_count_too() {
        let now = Timestamp::from_micros(10).unwrap_or(Timestamp::EPOCH);
        let on_record = Impact::of(vec![used("a", 3), used("b", 2)], now);
        let all = on_record.with(vec![used("b", 5), used("a", 1), used("c", 4)], now);
        assert_eq!(all.services, [used("b", 5), used("c", 4), used("a", 3)]);
        assert_eq!(all.last_used_at, Some(used("b", 5).last_used_at));
        let unused = Impact::default().with(Vec::new(), now);
        assert_eq!(unused, Impact::default());
    }
}
