//! Divides the connections of the read pool. Half of them are reserved for lookups of secrets and
//! for health probes. Of the other half, a single caller may use at most half, and all workloads
//! together at most a quarter. So lists cannot delay verdicts, and the lists of one caller cannot
//! delay those of other callers. Workloads share a limit, because anyone can have any number of
//! accounts at a public issuer.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::domain::caller::{Actor, CallerKind};
use crate::store::{
    Error,
    engine::permit_queues::{PermitQueues, QueuePermit, WAIT_FOR},
};

/// Limits on the number of read connections, for each caller and for all callers together.
pub(in crate::store) struct ReadLimits {
    callers: PermitQueues<Actor>,
    /// The queues of workloads, one for each account.
    accounts: PermitQueues<Actor>,
    /// The permits that all workloads share.
    workloads: Arc<Semaphore>,
    permits: Arc<Semaphore>,
}

/// A permit for one read connection. It is held until the connection is back in the pool, not only
/// until the call ends. Otherwise a caller that cancels its calls could exceed its limit.
pub(in crate::store) struct ReadPermit {
    _connection: OwnedSemaphorePermit,
    _of_workloads: Option<OwnedSemaphorePermit>,
    _queue_permit: QueuePermit<Actor>,
}

impl ReadLimits {
    /// Returns the limits for a pool with this number of connections.
    pub fn of(connections: u32) -> Self {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let permits = (connections / 2).max(1);
        let semaphore = |permits: usize| {
            let permits = permits.clamp(1, Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(permits))
        };
        // `--max-calls` already limits how many calls may wait.
        let queues = |at_once: usize| PermitQueues::new(at_once.max(1), usize::MAX);
        Self {
            callers: queues(permits / 2),
            accounts: queues(permits / 8),
            workloads: semaphore(permits / 4),
            permits: semaphore(permits),
        }
    }

    /// Waits for a permit for this caller.
    ///
    /// # Errors
    /// Returns [`Error::Crowded`] if the wait takes longer than [`WAIT_FOR`].
    pub async fn take(&self, caller: &Actor) -> Result<ReadPermit, Error> {
        let is_workload = caller.kind == CallerKind::Workload;
        let queues = if is_workload {
            &self.accounts
        } else {
            &self.callers
        };
        let queue_permit = queues.take(caller.clone()).await?;
        let of_workloads = if is_workload {
            Some(acquire(&self.workloads).await?)
        } else {
            None
        };
        Ok(ReadPermit {
            _connection: acquire(&self.permits).await?,
            _of_workloads: of_workloads,
            _queue_permit: queue_permit,
        })
    }
}

async fn acquire(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    match timeout(WAIT_FOR, permits.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Error::Crowded),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn caller(subject: &str) -> Actor {
        Actor {
            kind: CallerKind::User,
            issuer: "https://idp.example".to_owned(),
            subject: subject.to_owned(),
        }
    }

    #[tokio::test]
    async fn one_caller_has_a_quarter_of_the_connections_and_all_of_them_a_half() {
        let read_limits = ReadLimits::of(8);
        let mut held = Vec::new();
        for who in ["ann", "ann", "bob", "bob"] {
            held.push(read_limits.take(&caller(who)).await.expect("a share"));
        }
        let next = |who| read_limits.take(&caller(who)).now_or_never();
        assert!(next("cid").is_none(), "a connection of the verdicts");
        held.remove(0);
        // Ann holds one permit and may get another. Waiters are served in order.
        assert!(next("bob").is_none(), "a third of one caller's");
        assert!(next("cid").is_some());
    }

    #[tokio::test]
    async fn workloads_of_two_public_issuers_leave_three_quarters_to_people() {
        let read_limits = ReadLimits::of(16);
        let account = |issuer: &str, subject: &str| Actor {
            kind: CallerKind::Workload,
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
        };
        let next = |who: &Actor| read_limits.take(who).now_or_never();
        let first = next(&account("github", "1"));
        assert!(first.is_some());
        assert!(
            next(&account("github", "1")).is_none(),
            "one account has two"
        );
        let second = next(&account("gitlab", "1"));
        assert!(second.is_some(), "another issuer's account");
        for other in [account("github", "2"), account("gitlab", "2")] {
            assert!(next(&other).is_none(), "the workloads have a third one");
        }
        let people = ["ann", "ann", "ann", "bob", "bob", "bob"];
        let held: Vec<_> = people.iter().map(|who| next(&caller(who))).collect();
        assert!(held.iter().all(Option::is_some));
        drop(first);
        assert!(next(&account("github", "2")).is_some());
    }

    #[tokio::test]
    async fn there_is_a_share_also_of_a_single_connection() {
        let read_limits = ReadLimits::of(1);
        let held = read_limits.take(&caller("ann")).await;
        assert!(held.is_ok());
        drop(held);
        assert!(read_limits.take(&caller("bob")).await.is_ok());
    }
}
