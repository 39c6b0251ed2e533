//! Writes recorded uses of tokens to the store in batches. There is at most one transaction per
//! second, and each is small enough not to delay a concurrent change noticeably on SQLite, which
//! allows one writer at a time. Uses that cannot be written stay in memory until the next run.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{DueUses, LastUsedTracker};
use crate::{
    domain::clock::Clock,
    metrics::Metrics,
    store::{Error, Store, Use},
};

/// Number of uses per transaction: as many as can arrive in one second. In a measurement, writing
/// this many took 45 ms on SQLite, where other changes wait meanwhile, and 150 ms on PostgreSQL,
/// where they do not.
const PIECE: usize = 10_000;
/// Pause between two transactions.
const PAUSE: Duration = Duration::from_secs(1);
/// Time limit of one transaction, so that a connection that drops packets does not block the
/// writer.
const WRITE_FOR: Duration = Duration::from_secs(10);

/// Writes token usage to the store. Run [`Self::run_writer`] as long as the service runs, and
/// call [`Self::write_all`] after the last call.
pub struct UsageWriter {
    pub(in crate::app) uses: Arc<LastUsedTracker>,
    pub(in crate::app) store: Arc<Store>,
    pub(in crate::app) clock: Arc<dyn Clock>,
    pub(in crate::app) metrics: Arc<Metrics>,
}

impl UsageWriter {
    /// Writes the uses that are due, periodically. Runs for the lifetime of the process.
    pub async fn run_writer(&self, every: Duration) {
        loop {
            sleep(every).await;
            self.write(DueUses::Due(self.clock.monotonic()), PAUSE)
                .await;
            self.uses.drop_stored(self.clock.monotonic());
        }
    }

    /// Writes all uses. Call this when no more uses will be recorded.
    pub async fn write_all(&self) {
        self.write(DueUses::All, Duration::ZERO).await;
    }

    async fn write(&self, which: DueUses, pause: Duration) {
        let mut from = 0;
        loop {
            let uses = self.uses.some(&mut from, which, PIECE);
            if uses.is_empty() {
                return;
            }
            let begun = self.clock.monotonic();
            if let Err(error) = self.write_piece(&uses).await {
                self.metrics.usage_write_failures.inc();
                tracing::warn!(error = %error, uses = uses.len(), "the last uses of tokens could not be written; retrying");
                return;
            }
            self.uses.note_stored(&uses, begun);
            self.metrics.usage_writes.inc();
            self.metrics.usage_rows_written.inc_by(uses.len() as u64);
            sleep(pause).await;
        }
    }

    async fn write_piece(&self, uses: &[Use]) -> Result<(), WriteError> {
        if let Ok(done) = timeout(WRITE_FOR, self.store.record_uses(uses)).await {
            return Ok(done?);
        }
        self.store.renew_silent_connections().await;
        Err(WriteError::TooSlow)
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the store did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Store(#[from] Error),
}
