//! Tends the restore guard: compares the database with it every second, renews its mark, and shows
//! its state in the metrics.

use std::{future::pending, time::Duration};

use tokio::time::{sleep, timeout};

use super::App;
use crate::store::GuardHealth;

/// How often the database is compared with the mark.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long one comparison may take.
const TEND_FOR: Duration = Duration::from_secs(5);

impl App {
    /// Tends the guard for the lifetime of the process.
    pub async fn tend_guard(&self) {
        if self.store.guard_health().is_none() {
            return pending().await;
        }
        let mut is_failing = false;
        loop {
            let failure = match timeout(TEND_FOR, self.store.tend_guard()).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("it takes too long".to_owned()),
            };
            if let (Some(error), false) = (&failure, is_failing) {
                tracing::warn!(error, "the database is not compared with the restore guard");
            }
            is_failing = failure.is_some();
            self.metrics.guard.failing.set(is_failing.into());
            if let Some(health) = self.store.guard_health() {
                self.show(health);
            }
            sleep(TEND_EVERY).await;
        }
    }

    fn show(&self, health: GuardHealth) {
        let (metrics, journal) = (&self.metrics.guard, health.journal);
        metrics.restored_from_past.set(health.restored.into());
        metrics.lag.set(journal.lag.as_secs_f64());
        let lines = journal.written.saturating_sub(metrics.lines.get());
        metrics.lines.inc_by(lines);
        let lost = journal.lost.saturating_sub(metrics.lines_lost.get());
        metrics.lines_lost.inc_by(lost);
    }
}
