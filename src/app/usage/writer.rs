//! Writes down what was noted, in pieces: at most one transaction a second, and each so small
//! that a change which meets it on SQLite, where only one can write, hardly waits. What cannot
//! be written stays noted for the next time.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Uses, Which};
use crate::{
    domain::clock::Clock,
    metrics::Metrics,
    store::{Error, Store, Use},
};

/// How many uses one transaction writes: as many as there may be in a second. On SQLite, whose
/// other changes wait meanwhile, that took 45 ms; on PostgreSQL, where none does, 150 ms.
const PIECE: usize = 10_000;
/// The pause between two transactions.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take: a link that swallows packets must not stop this for good.
const WRITE_FOR: Duration = Duration::from_secs(10);

/// Who writes down when tokens were used; to be run beside the service, and once more after
/// its last call.
pub struct UsageWriter {
    pub(in crate::app) uses: Arc<Uses>,
    pub(in crate::app) store: Arc<Store>,
    pub(in crate::app) clock: Arc<dyn Clock>,
    pub(in crate::app) metrics: Arc<Metrics>,
}

impl UsageWriter {
    /// Writes what is due, again and again, for as long as the process lives.
    pub async fn keep_writing(&self, every: Duration) {
        loop {
            sleep(every).await;
            self.write(Which::Due(self.clock.monotonic()), PAUSE).await;
            self.uses.forget_stored(self.clock.monotonic());
        }
    }

    /// Writes all there is, when nothing more will come.
    pub async fn write_all(&self) {
        self.write(Which::All, Duration::ZERO).await;
    }

    async fn write(&self, which: Which, pause: Duration) {
        let mut from = 0;
        loop {
            let uses = self.uses.some(&mut from, which, PIECE);
            if uses.is_empty() {
                return;
            }
            let begun = self.clock.monotonic();
            if let Err(error) = self.write_piece(&uses).await {
                self.metrics.usage_write_failures.inc();
                tracing::warn!(error = %error, uses = uses.len(), "when tokens were used waits to be written");
                return;
            }
            self.uses.note_stored(&uses, begun);
            self.metrics.usage_writes.inc();
            self.metrics.usage_rows_written.inc_by(uses.len() as u64);
            sleep(pause).await;
        }
    }

    async fn write_piece(&self, uses: &[Use]) -> Result<(), Failed> {
        if let Ok(done) = timeout(WRITE_FOR, self.store.record_uses(uses)).await {
            return Ok(done?);
        }
        self.store.renew_connections().await;
        Err(Failed::TooSlow)
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the store did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Store(#[from] Error),
}
