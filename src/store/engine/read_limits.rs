//! Divides the connections of the read pool. Half of them are reserved for lookups of secrets and
//! for health probes. A single caller may use at most half of the other half. So lists cannot delay
//! verdicts, and the lists of one caller cannot delay those of other callers.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::domain::caller::Actor;
use crate::store::{
    Error,
    engine::permit_queues::{PermitQueues, QueuePermit, WAIT_FOR},
};

/// Limits on the number of read connections, for each caller and for all callers together.
pub(in crate::store) struct ReadLimits {
    callers: PermitQueues<Actor>,
    permits: Arc<Semaphore>,
}

/// A permit for one read connection. It is held until the connection is back in the pool, and not
/// only until the call ends. Otherwise a caller that cancels its calls could exceed its limit.
pub(in crate::store) struct ReadPermit {
    _permit: OwnedSemaphorePermit,
    _queue_permit: QueuePermit<Actor>,
}

impl ReadLimits {
    /// Returns the limits for a pool with this number of connections.
    pub fn of(connections: u32) -> Self {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let permits = (connections / 2).max(1);
        Self {
            // `--max-calls` already limits how many calls may wait.
            callers: PermitQueues::new((permits / 2).max(1), usize::MAX),
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a permit for this caller.
    ///
    /// # Errors
    /// Returns [`Error::Crowded`] if the wait takes longer than [`WAIT_FOR`].
    pub async fn take(&self, caller: &Actor) -> Result<ReadPermit, Error> {
        let permit = self.callers.take(caller.clone()).await?;
        match timeout(WAIT_FOR, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permits)) => Ok(ReadPermit {
                _permit: permits,
                _queue_permit: permit,
            }),
            _ => Err(Error::Crowded),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::caller::CallerKind;

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
    async fn there_is_a_share_also_of_a_single_connection() {
        let read_limits = ReadLimits::of(1);
        let held = read_limits.take(&caller("ann")).await;
        assert!(held.is_ok());
        drop(held);
        assert!(read_limits.take(&caller("bob")).await.is_ok());
    }
}
