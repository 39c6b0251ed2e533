//! Decides when suspect connections are replaced. A session that waits for a lock, for example
//! during `VACUUM FULL`, looks like a dead connection, and the server keeps the session until the
//! lock is released. So if connections were replaced without growing pauses, they would use up all
//! sessions of the server. As long as heartbeats are committed, a lock is the more likely reason
//! for the silence.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::store::{Error, Location, Pools, Store, engine::pool};

/// The pause after a renewal. While heartbeats are committed but nothing else is answered, the
/// pause doubles with each renewal.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How recent a heartbeat must be to show that the database can be reached.
const RECENT: Duration = Duration::from_secs(2);

/// When connections were last renewed, and whether the database has answered since then.
#[derive(Debug, Default)]
pub(in crate::store) struct Renewals {
    last: Mutex<Option<Renewal>>,
    /// Whether a lookup or a change was answered since the last renewal.
    answered: AtomicBool,
    /// When a heartbeat was last committed, in milliseconds of the monotonic clock.
    beaten_at: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// When the connections were renewed, on the monotonic clock.
    at: Duration,
    /// The minimum time until the next renewal while the database can be reached but answers
    /// neither lookups nor changes.
    pause: Duration,
}

impl Renewals {
    /// Returns whether connections that are dead, or that lead to another database, may be renewed
    /// now. If so, records the renewal.
    pub fn may_renew(&self, now: Duration) -> bool {
        self.may_renew_if(now, false)
    }

    /// Returns whether connections that merely do not answer may be renewed now. If so, records the
    /// renewal.
    pub fn may_renew_silent(&self, now: Duration) -> bool {
        let beaten_at = Duration::from_millis(self.beaten_at.load(Ordering::Acquire));
        let is_reached = !beaten_at.is_zero() && now.saturating_sub(beaten_at) <= RECENT;
        self.may_renew_if(now, is_reached && !self.answered.load(Ordering::Acquire))
    }

    fn may_renew_if(&self, now: Duration, is_locked: bool) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (wait, next) = match *last {
            Some(renewal) if is_locked => {
                // A renewal long after the last one is not part of a series, so its pause does not
                // grow.
                let is_series = now.saturating_sub(renewal.at) <= 2 * LONGEST_PAUSE;
                let next = if is_series {
                    renewal.pause * 2
                } else {
                    FIRST_PAUSE
                };
                (renewal.pause, next.min(LONGEST_PAUSE))
            }
            _ => (FIRST_PAUSE, FIRST_PAUSE),
        };
        if last.is_some_and(|renewal| now.saturating_sub(renewal.at) < wait) {
            return false;
        }
        *last = Some(Renewal {
            at: now,
            pause: next,
        });
        self.answered.store(false, Ordering::Release);
        true
    }

    /// Records a renewal that was made for another reason.
    pub fn renewed(&self, now: Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = FIRST_PAUSE;
        *last = Some(Renewal { at: now, pause });
        self.answered.store(true, Ordering::Release);
    }

    /// Records that a lookup or a change was answered.
    pub fn answered(&self) {
        // Loads first, because every cache miss calls this method, and a load alone does not
        // invalidate the cache line.
        if !self.answered.load(Ordering::Relaxed) {
            self.answered.store(true, Ordering::Release);
        }
    }

    /// Records that a heartbeat was committed at `now`.
    pub fn note_heartbeat(&self, now: Duration) {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.beaten_at.store(millis, Ordering::Release);
    }
}

impl Store {
    /// Replaces connections that are dead or lead to another database, if a renewal is permitted
    /// now.
    pub async fn renew_connections(&self) {
        if self.renewals.may_renew(self.clock.monotonic()) {
            self.renew().await;
        }
    }

    /// Replaces connections that do not answer, if a renewal is permitted now. A connection whose
    /// packets are dropped looks like a slow one, and the pool would hand it out again and again.
    pub async fn renew_silent_connections(&self) {
        if self.renewals.may_renew_silent(self.clock.monotonic()) {
            self.renew().await;
        }
    }

    /// Replaces all connections, even right after another renewal, because the current ones are
    /// known to be unusable.
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
                tracing::warn!("replacing all connections to the store");
                self.pools.store(Arc::new(Pools {
                    writer,
                    reader,
                    control,
                }));
            }
            Err(error) => tracing::warn!(%error, "connections could not be renewed"),
        }
    }

    /// Returns whether a dead connection caused this failure. In that case, also renews the
    /// connections if a renewal is permitted now.
    pub(in crate::store) async fn renew_after_lost_connection<T>(
        &self,
        done: &Result<T, Error>,
    ) -> bool {
        let lost = self.has_other_writers() && done.as_ref().is_err_and(Error::is_lost_connection);
        if lost {
            self.renew_connections().await;
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `may_renew_silent` for each millisecond in `of`, and returns the milliseconds at which
    /// it permitted a renewal. Calls `meanwhile` before each call.
    fn silent(
        of: std::ops::Range<u64>,
        renewals: &Renewals,
        meanwhile: impl Fn(&Renewals, Duration),
    ) -> Vec<u64> {
        of.filter(|now| {
            let now = Duration::from_millis(*now);
            meanwhile(renewals, now);
            renewals.may_renew_silent(now)
        })
        .collect()
    }

    #[test]
    fn the_pauses_grow_while_only_heartbeats_are_committed() {
        let asked = Renewals::default();
        let seen = silent(1..20_000, &asked, Renewals::note_heartbeat);
        assert_eq!(seen, [1, 1_001, 3_001, 7_001, 15_001]);
    }

    #[test]
    fn without_a_heartbeat_they_do_not() {
        let asked = Renewals::default();
        assert_eq!(silent(1..20_000, &asked, |_, _| {}).len(), 20);
    }

    #[test]
    fn when_the_heartbeats_end_too_the_long_pause_does() {
        let asked = Renewals::default();
        silent(1..8_000, &asked, Renewals::note_heartbeat);
        // If the pause had stayed at 8 s, the next renewal would not be due until 15,001 ms.
        assert_eq!(silent(8_000..10_500, &asked, |_, _| {}), [10_000]);
    }

    #[test]
    fn an_answer_ends_the_growth() {
        let asked = Renewals::default();
        silent(1..4_000, &asked, Renewals::note_heartbeat);
        let seen = silent(4_000..7_000, &asked, |asked, now| {
            asked.note_heartbeat(now);
            asked.answered();
        });
        assert_eq!(seen, [4_001, 5_001, 6_001]);
    }

    #[test]
    fn a_connection_to_another_database_is_not_waited_for() {
        let asked = Renewals::default();
        silent(1..8_000, &asked, Renewals::note_heartbeat);
        assert!(asked.may_renew(Duration::from_millis(8_001)));
        assert!(!asked.may_renew(Duration::from_secs(9)));
    }

    #[test]
    fn a_renewal_for_another_reason_is_followed_by_the_first_pause() {
        let asked = Renewals::default();
        silent(1..4_000, &asked, Renewals::note_heartbeat);
        asked.renewed(Duration::from_secs(4));
        assert_eq!(
            silent(4_000..6_000, &asked, Renewals::note_heartbeat),
            [5_000]
        );
    }
}
