//! What is to be done now and then, apart from all calls: deleting what is old, and telling of
//! tokens that expire soon. Never while draining. What fails is told, and tried the next time.

use std::{collections::BTreeMap, future::pending, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    domain::id::TokenUid,
    metrics::{TableLabel, WITHIN, WithinLabel},
    store::{Batch, Error, Keep, Next},
};

/// At most so long after the start it begins, so that replicas do not all begin at once.
const BEGIN_WITHIN: Duration = Duration::from_mins(1);
/// The pause after a batch, at least: changes and readings of the store come first.
const PAUSE: Duration = Duration::from_millis(50);
/// How much longer the pause is than the batch took, and how long at most.
const PAUSES_PER_BATCH: u32 = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a batch may take before it is given up.
const BATCH_FOR: Duration = Duration::from_secs(30);
/// A service that has not used a token for so long is forgotten, but for the last that did.
const USAGE_KEPT_FOR: Duration = Duration::from_hours(90 * 24);

/// How often one looks for tokens that expire soon, at least.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// How many of them are told of at once; the others are the next time.
const TOLD_AT_ONCE: usize = 1000;

/// What there is to delete.
#[derive(Clone, Copy, Debug)]
enum Chore {
    Tokens,
    Usage,
    Audit,
    Changes,
}

impl Chore {
    const ALL: [Self; 4] = [Self::Tokens, Self::Usage, Self::Audit, Self::Changes];
}

/// How a chore ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Done,
    /// Another replica is at it, or this one is told to stop.
    GivenUp,
}

type Counts = BTreeMap<&'static str, u64>;

impl App {
    /// Deletes what is old, at the start and then again and again, until it is told to stop;
    /// then waits for the end.
    pub async fn keep_house(&self, stop: &CancellationToken) {
        let every = self.keeping.housekeeping_every;
        let mut wait = self.some_part_of(every.min(BEGIN_WITHIN));
        while goes_on(stop, wait).await {
            self.clean(stop).await;
            wait = every;
        }
        pending::<()>().await;
    }

    /// Counts the tokens that expire soon, and tells of those that nobody was told of, until
    /// it is told to stop; then waits for the end.
    pub async fn keep_looking_ahead(&self, stop: &CancellationToken) {
        let every = self.keeping.housekeeping_every.min(LOOK_EVERY);
        let mut wait = Duration::ZERO;
        while goes_on(stop, wait).await {
            let looked = timeout(BATCH_FOR, self.look_ahead()).await;
            if let Err(error) = looked.map_err(Failed::from).flatten() {
                self.metrics.housekeeping_failures.inc();
                tracing::warn!(%error, "tokens that expire soon could not be looked for");
            }
            wait = every;
        }
        pending::<()>().await;
    }

    /// One round: what fails does not keep the rest from being done.
    async fn clean(&self, stop: &CancellationToken) {
        if self.clock.fault().is_some() {
            // Nothing is old by a clock that is wrong.
            return;
        }
        let began = self.clock.monotonic();
        let (mut counts, mut done) = (Counts::new(), true);
        for chore in Chore::ALL {
            match self.finish(chore, stop, &mut counts).await {
                Ok(Ended::Done) => {}
                Ok(Ended::GivenUp) => {
                    done = false;
                    break;
                }
                Err(error) => {
                    done = false;
                    self.metrics.housekeeping_failures.inc();
                    tracing::warn!(%error, ?chore, "housekeeping failed; it is tried again the next time");
                }
            }
        }
        // A token that another replica deleted is then not answered as dead for ever, but as
        // not recognised, here as there.
        self.cache.forget_dead(self.clock.now());
        let took = self.clock.monotonic().saturating_sub(began);
        let count = |table| counts.get(table).copied().unwrap_or_default();
        tracing::info!(
            done,
            tokens = count("tokens"),
            token_secrets = count("token_secrets"),
            token_usage = count("token_usage"),
            requests = count("requests"),
            audit_events = count("audit_events"),
            changes = count("changes"),
            ?took,
            "housekeeping"
        );
        if done {
            #[expect(clippy::cast_precision_loss, reason = "whole seconds are exact")]
            let now = self.clock.now().seconds() as f64;
            self.metrics.housekeeping_last_run.set(now);
        }
    }

    /// One batch after the other, with pauses.
    async fn finish(
        &self,
        chore: Chore,
        stop: &CancellationToken,
        counts: &mut Counts,
    ) -> Result<Ended, Failed> {
        let mut after = None;
        while !stop.is_cancelled() {
            let began = self.clock.monotonic();
            let batch = timeout(BATCH_FOR, self.batch(chore, after)).await??;
            for (table, rows) in batch.rows {
                *counts.entry(table).or_default() += rows;
                let counter = self
                    .metrics
                    .purged_rows
                    .get_or_create(&TableLabel { table });
                counter.inc_by(rows);
            }
            match batch.next {
                Next::Done => return Ok(Ended::Done),
                Next::Busy => return Ok(Ended::GivenUp),
                Next::Batch(last) => after = last,
            }
            let took = self.clock.monotonic().saturating_sub(began);
            let pause = (took * PAUSES_PER_BATCH).clamp(PAUSE, LONGEST_PAUSE);
            goes_on(stop, pause).await;
        }
        Ok(Ended::GivenUp)
    }

    async fn batch(&self, chore: Chore, after: Option<TokenUid>) -> Result<Batch, Error> {
        let keep = |kept_for| Keep {
            now: self.clock.now(),
            kept_for,
        };
        let (store, keeping) = (&self.store, &self.keeping);
        match chore {
            Chore::Tokens => store.purge_tokens(keep(keeping.token_retention)).await,
            Chore::Usage => store.purge_usage(keep(USAGE_KEPT_FOR), after).await,
            Chore::Audit => store.purge_audit(keep(keeping.audit_retention)).await,
            Chore::Changes => store.purge_changes(keep(keeping.change_retention)).await,
        }
    }

    async fn look_ahead(&self) -> Result<(), Failed> {
        let now = self.clock.now();
        let counts = self.store.count_expiring(now).await?;
        for (within, count) in WITHIN.into_iter().zip(counts) {
            let gauge = self
                .metrics
                .tokens_expiring
                .get_or_create(&WithinLabel { within });
            gauge.set(count);
        }
        for token in self.store.tell_expiring(now, TOLD_AT_ONCE).await? {
            let days = token.days;
            tracing::info!(
                token_uid = %token.token_uid,
                stack_api_key = token.stack_api_key,
                expires_at = %token.expires_at,
                days,
                "token expires within {days} days"
            );
        }
        Ok(())
    }

    /// A random part, or all of it where there is no randomness.
    fn some_part_of(&self, time: Duration) -> Duration {
        let mut byte = [0];
        match self.entropy.fill(&mut byte) {
            Ok(()) => time * u32::from(byte[0]) / 256,
            Err(_) => time,
        }
    }
}

/// Why a chore was not done.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("a batch took longer than {BATCH_FOR:?}")]
    TooSlow(#[from] tokio::time::error::Elapsed),
}

/// Waits; answers whether nobody said stop meanwhile.
async fn goes_on(stop: &CancellationToken, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = sleep(wait) => true,
    }
}
