//! Runs periodic tasks: deletes old rows, and logs tokens that expire soon. No task runs while this
//! replica drains. A failed task is logged and retried at the next run.

use std::{collections::BTreeMap, future::pending, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    domain::id::TokenUid,
    metrics::{TableLabel, WITHIN, WithinLabel},
    store::{Batch, Error, Next, Retention},
};

/// Upper bound of the random delay before the first run. The delay keeps replicas from starting
/// together.
const BEGIN_WITHIN: Duration = Duration::from_mins(1);
/// Shortest pause after a batch, which lets changes and lookups proceed.
const PAUSE: Duration = Duration::from_millis(50);
/// The pause after a batch lasts this many times as long as the batch, up to `LONGEST_PAUSE`.
const PAUSES_PER_BATCH: u32 = 3;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Time limit of a batch.
const BATCH_FOR: Duration = Duration::from_secs(30);
/// Age at which the record of a token's use by a service is deleted. The record of the service that
/// used the token last is kept.
const USAGE_KEPT_FOR: Duration = Duration::from_hours(90 * 24);
/// Age at which the result of a call with an idempotency key is deleted.
const REPLAYS_KEPT_FOR: Duration = Duration::from_hours(90 * 24);
/// How long a session is kept after its end. During this time, the verdict on its secret says that
/// the session has ended. Later, the secret is not recognized.
const SESSIONS_KEPT_FOR: Duration = Duration::from_hours(24);

/// Longest interval between checks for tokens that expire soon.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_mins(5);
/// Maximum number of tokens logged per check. The remaining tokens follow at the next check.
const MAX_REPORTED_PER_CHECK: usize = 1000;

/// The tasks that delete rows, each named after what it deletes.
#[derive(Clone, Copy, Debug)]
enum HousekeepingTask {
    Tokens,
    Usage,
    Audit,
    Changes,
    Replays,
    Sessions,
    Assertions,
}

impl HousekeepingTask {
    const ALL: [Self; 7] = [
        Self::Tokens,
        Self::Usage,
        Self::Audit,
        Self::Changes,
        Self::Replays,
        Self::Sessions,
        Self::Assertions,
    ];
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskOutcome {
    Done,
    /// The task was not finished, because another replica runs it or this replica is stopping.
    GivenUp,
}

type Counts = BTreeMap<&'static str, u64>;

impl App {
    /// Deletes old rows periodically, the first time after a random delay. Once `stop` is
    /// cancelled, deletes nothing more, but never returns.
    pub async fn run_housekeeping(&self, stop: &CancellationToken) {
        let every = self.keeping.housekeeping_every;
        let mut wait = self.some_part_of(every.min(BEGIN_WITHIN));
        while wait_unless_stopped(stop, wait).await {
            self.clean(stop).await;
            wait = every;
        }
        pending::<()>().await;
    }

    /// Counts the tokens that expire soon, and logs each of them once per period, until `stop` is
    /// cancelled. Never returns.
    pub async fn report_expiring_periodically(&self, stop: &CancellationToken) {
        let every = self.keeping.housekeeping_every.min(EXPIRY_CHECK_INTERVAL);
        let mut wait = Duration::ZERO;
        while wait_unless_stopped(stop, wait).await {
            let looked = timeout(BATCH_FOR, self.look_ahead()).await;
            if let Err(error) = looked.map_err(TaskError::from).flatten() {
                self.metrics.housekeeping_failures.inc();
                tracing::warn!(%error, "the search for tokens that expire soon failed");
            }
            wait = every;
        }
        pending::<()>().await;
    }

    /// Runs every task once. A failed task does not prevent the others.
    async fn clean(&self, stop: &CancellationToken) {
        if self.clock.fault().is_some() {
            // Without a correct clock, it is unknown which rows are old.
            return;
        }
        let began = self.clock.monotonic();
        let (mut counts, mut done) = (Counts::new(), true);
        for chore in HousekeepingTask::ALL {
            match self.finish(chore, stop, &mut counts).await {
                Ok(TaskOutcome::Done) => {}
                Ok(TaskOutcome::GivenUp) => {
                    done = false;
                    break;
                }
                Err(error) => {
                    done = false;
                    self.metrics.housekeeping_failures.inc();
                    tracing::warn!(%error, ?chore, "housekeeping failed; retrying at the next interval");
                }
            }
        }
        // Other replicas answer that a deleted token is not recognized. As long as this replica has
        // the token in its cache, it would answer that the token is dead.
        self.cache.evict_dead(self.clock.now());
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
            replays = count("replays"),
            sessions = count("sessions"),
            assertions = count("assertions"),
            ?took,
            "housekeeping"
        );
        if done {
            #[expect(clippy::cast_precision_loss, reason = "whole seconds are exact")]
            let now = self.clock.now().seconds() as f64;
            self.metrics.housekeeping_last_run.set(now);
        }
    }

    /// Runs a task batch by batch, with pauses in between.
    async fn finish(
        &self,
        chore: HousekeepingTask,
        stop: &CancellationToken,
        counts: &mut Counts,
    ) -> Result<TaskOutcome, TaskError> {
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
                Next::Done => return Ok(TaskOutcome::Done),
                Next::Busy => return Ok(TaskOutcome::GivenUp),
                Next::Batch(last) => after = last,
            }
            let took = self.clock.monotonic().saturating_sub(began);
            let pause = (took * PAUSES_PER_BATCH).clamp(PAUSE, LONGEST_PAUSE);
            wait_unless_stopped(stop, pause).await;
        }
        Ok(TaskOutcome::GivenUp)
    }

    async fn batch(
        &self,
        chore: HousekeepingTask,
        after: Option<TokenUid>,
    ) -> Result<Batch, Error> {
        let keep = |kept_for| Retention {
            now: self.clock.now(),
            kept_for,
        };
        let (store, keeping) = (&self.store, &self.keeping);
        match chore {
            HousekeepingTask::Tokens => store.purge_tokens(keep(keeping.token_retention)).await,
            HousekeepingTask::Usage => store.purge_usage(keep(USAGE_KEPT_FOR), after).await,
            HousekeepingTask::Audit => store.purge_audit(keep(keeping.audit_retention)).await,
            HousekeepingTask::Changes => store.purge_changes(keep(keeping.change_retention)).await,
            HousekeepingTask::Replays => store.purge_replays(keep(REPLAYS_KEPT_FOR)).await,
            HousekeepingTask::Sessions => store.purge_sessions(keep(SESSIONS_KEPT_FOR)).await,
            HousekeepingTask::Assertions => store.purge_assertions(keep(Duration::ZERO)).await,
        }
    }

    async fn look_ahead(&self) -> Result<(), TaskError> {
        let now = self.clock.now();
        let counts = self.store.count_expiring(now).await?;
        for (within, count) in WITHIN.into_iter().zip(counts) {
            let gauge = self
                .metrics
                .tokens_expiring
                .get_or_create(&WithinLabel { within });
            gauge.set(count);
        }
        for token in self
            .store
            .report_expiring(now, MAX_REPORTED_PER_CHECK)
            .await?
        {
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

    /// Returns a random part of `time`, or all of `time` if the system provides no randomness.
    fn some_part_of(&self, time: Duration) -> Duration {
        let mut byte = [0];
        match self.entropy.fill(&mut byte) {
            Ok(()) => time * u32::from(byte[0]) / 256,
            Err(_) => time,
        }
    }
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("a batch took longer than {BATCH_FOR:?}")]
    TooSlow(#[from] tokio::time::error::Elapsed),
}

/// Waits for `wait` or until `stop` is cancelled. Returns `false` if `stop` is cancelled.
async fn wait_unless_stopped(stop: &CancellationToken, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = sleep(wait) => true,
    }
}
