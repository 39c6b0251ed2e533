//! When suspect connections are replaced. A session that waits for a lock, as behind `VACUUM FULL`,
//! looks like a dead link, and the server keeps it for as long as the lock is held: renewals
//! without growing pauses would use up all of its sessions. While heartbeats are committed, a lock
//! is the likelier cause.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::store::{Error, Location, Pools, Store, engine::pool};

/// The pause after a renewal. It doubles with each further one while heartbeats are committed but
/// no look-up or change succeeds.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// When connections were renewed, and whether that helped.
#[derive(Debug, Default)]
pub(in crate::store) struct Renewals {
    last: Mutex<Option<Renewal>>,
    /// Whether a look-up or a change was answered since the last renewal.
    answered: AtomicBool,
    /// Whether a heartbeat was committed since the last renewal.
    beaten: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// When it was made, on the monotonic clock.
    at: Duration,
    /// The minimum time until the next renewal.
    pause: Duration,
}

impl Renewals {
    /// Returns whether connections may be renewed now; if so, records a renewal.
    pub fn may_renew(&self, now: Duration) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let in_the_way =
            self.beaten.load(Ordering::Acquire) && !self.answered.load(Ordering::Acquire);
        let pause = match *last {
            Some(renewal) if now.saturating_sub(renewal.at) < renewal.pause => return false,
            Some(renewal) if in_the_way => (renewal.pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        *last = Some(Renewal { at: now, pause });
        self.answered.store(false, Ordering::Release);
        self.beaten.store(false, Ordering::Release);
        true
    }

    /// Records a renewal that was made for another reason.
    pub fn renewed(&self, now: Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = FIRST_PAUSE;
        *last = Some(Renewal { at: now, pause });
        self.answered.store(true, Ordering::Release);
    }

    /// Records that a look-up or a change was answered.
    pub fn answered(&self) {
        // Read first: every cache miss comes here, and cores share an unmodified cache line.
        if !self.answered.load(Ordering::Relaxed) {
            self.answered.store(true, Ordering::Release);
        }
    }

    /// Records that a heartbeat was committed.
    pub fn beaten(&self) {
        self.beaten.store(true, Ordering::Release);
    }
}

impl Store {
    /// Replaces connections that may be dead, unless the last renewal was too recent. A link that
    /// drops packets cannot be told from a slow one, and a pool would hand it out again and again.
    pub async fn renew_connections(&self) {
        if self.renewals.may_renew(self.clock.monotonic()) {
            self.renew().await;
        }
    }

    /// Replaces all connections, even right after a renewal: the current ones are known to be
    /// unusable.
    pub async fn replace_connections(&self) {
        self.renewals.renewed(self.clock.monotonic());
        self.renew().await;
    }

    async fn renew(&self) {
        let Location::Postgres(urls) = &self.location else {
            return;
        };
        match pool::renew(urls, self.size).await {
            Ok((writer, reader, control)) => {
                tracing::warn!("connections to the store are given up for new ones");
                self.pools.store(Arc::new(Pools {
                    writer,
                    reader,
                    control,
                }));
            }
            Err(error) => tracing::warn!(%error, "connections could not be renewed"),
        }
    }

    /// Returns whether a dead connection caused this failure; if so, renews connections if it may.
    pub(in crate::store) async fn renew_after_lost_connection<T>(
        &self,
        done: &Result<T, Error>,
    ) -> bool {
        let lost = self.is_shared() && done.as_ref().is_err_and(Error::is_lost_connection);
        if lost {
            self.renew_connections().await;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the milliseconds in `of` at which a renewal is permitted, if one is attempted in
    /// every millisecond and `meanwhile` runs before each attempt.
    fn renewals(
        of: std::ops::Range<u64>,
        renewals: &Renewals,
        meanwhile: impl Fn(&Renewals),
    ) -> Vec<u64> {
        of.filter(|now| {
            meanwhile(renewals);
            renewals.may_renew(Duration::from_millis(*now))
        })
        .collect()
    }

    #[test]
    fn the_pauses_grow_while_only_heartbeats_are_committed() {
        let asked = Renewals::default();
        let seen = renewals(0..20_000, &asked, Renewals::beaten);
        assert_eq!(seen, [0, 1_000, 3_000, 7_000, 15_000]);
    }

    #[test]
    fn without_a_heartbeat_they_do_not() {
        let asked = Renewals::default();
        assert_eq!(renewals(0..20_000, &asked, |_| {}).len(), 20);
    }

    #[test]
    fn an_answer_ends_the_growth() {
        let asked = Renewals::default();
        renewals(0..4_000, &asked, Renewals::beaten);
        let seen = renewals(4_000..10_000, &asked, |asked| {
            asked.beaten();
            asked.answered();
        });
        assert_eq!(seen, [7_000, 8_000, 9_000]);
    }

    #[test]
    fn a_renewal_for_another_reason_is_followed_by_the_first_pause() {
        let asked = Renewals::default();
        renewals(0..4_000, &asked, Renewals::beaten);
        asked.renewed(Duration::from_secs(4));
        assert_eq!(renewals(4_000..6_000, &asked, Renewals::beaten), [5_000]);
    }
}
