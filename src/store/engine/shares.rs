//! How the read pool is divided. Half of its connections are reserved for look-ups of secrets and
//! health probes; one caller may use at most half of the rest. So lists cannot delay verdicts, and
//! one caller's lists cannot delay those of others.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::domain::caller::Actor;
use crate::store::{
    Error,
    engine::turns::{Turn, Turns, WAIT_FOR},
};

/// Limits on read connections, per caller and in all.
pub(in crate::store) struct Shares {
    callers: Turns<Actor>,
    permits: Arc<Semaphore>,
}

/// A permit for one read connection. It is held until the connection is back in the pool, not until
/// the call ends: a caller that cancels its calls would otherwise exceed its limit.
pub(in crate::store) struct Share {
    _room: OwnedSemaphorePermit,
    _turn: Turn<Actor>,
}

impl Shares {
    /// Returns the limits for a pool of this size.
    pub fn of(connections: u32) -> Self {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX);
        let permits = (connections / 2).max(1);
        Self {
            // The number of calls that may wait is already limited by `--max-calls`.
            callers: Turns::new((permits / 2).max(1), usize::MAX),
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Waits for a permit of this caller.
    ///
    /// # Errors
    /// [`Error::Crowded`] if that takes longer than [`WAIT_FOR`].
    pub async fn take(&self, caller: &Actor) -> Result<Share, Error> {
        let turn = self.callers.take(caller.clone()).await?;
        match timeout(WAIT_FOR, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permits)) => Ok(Share {
                _room: permits,
                _turn: turn,
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
        let shares = Shares::of(8);
        let mut held = Vec::new();
        for who in ["ann", "ann", "bob", "bob"] {
            held.push(shares.take(&caller(who)).await.expect("a share"));
        }
        let next = |who| shares.take(&caller(who)).now_or_never();
        assert!(next("cid").is_none(), "a connection of the verdicts");
        held.remove(0);
        // Ann holds one and may take another; waiters are served in order.
        assert!(next("bob").is_none(), "a third of one caller's");
        assert!(next("cid").is_some());
    }

    #[tokio::test]
    async fn there_is_a_share_also_of_a_single_connection() {
        let shares = Shares::of(1);
        let held = shares.take(&caller("ann")).await;
        assert!(held.is_ok());
        drop(held);
        assert!(shares.take(&caller("bob")).await.is_ok());
    }
}
