//! When suspect connections are given up for new ones. A session that waits for a lock, as behind
//! `VACUUM FULL`, looks like a link that leads nowhere, and the server keeps it for as long as the
//! lock is held: renewals without growing pauses would use up all of its sessions. While heartbeats
//! are committed a lock is the likelier cause.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Error, Location, Pools, Store, connect};

/// The pause after a renewal. It doubles with each further one while heartbeats are committed and
/// nothing else is answered.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// When connections were renewed, and whether that helped.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    last: Mutex<Option<Renewal>>,
    /// Whether a look-up or a change was answered since the last one.
    answered: AtomicBool,
    /// Whether a heartbeat was committed since.
    beaten: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Renewal {
    /// On the monotonic clock.
    at: Duration,
    /// How long no other may follow.
    pause: Duration,
}

impl Renewals {
    /// Whether connections may be renewed now; if so, a renewal is recorded.
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
        // Read first: each miss comes here, and what is only read is shared between cores.
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
    /// Gives up connections that may lead nowhere, for new ones: a link that swallows packets
    /// cannot be told from a slow one, and a pool would hand it out again and again.
    pub async fn renew_connections(&self) {
        if self.renewals.may_renew(self.clock.monotonic()) {
            self.renew().await;
        }
    }

    /// Gives up all connections, whenever that was done last: those at hand are known to be of no
    /// more use.
    pub async fn replace_connections(&self) {
        self.renewals.renewed(self.clock.monotonic());
        self.renew().await;
    }

    async fn renew(&self) {
        let Location::Postgres(urls) = &self.location else {
            return;
        };
        match connect::renew(urls, self.size).await {
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

    /// Whether this failed for want of a connection, and there are new ones now.
    pub(super) async fn is_worth_renewing<T>(&self, done: &Result<T, Error>) -> bool {
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

    /// The milliseconds, of these, at which somebody who asks all the time may renew, while
    /// something else happens all the time.
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
