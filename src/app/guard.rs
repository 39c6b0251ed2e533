//! Tends the restore guard: compares the database with it every second, renews its mark, and shows
//! its state in the metrics.

use std::{future::pending, pin::pin, time::Duration};

use tokio::time::{sleep, timeout};

use super::App;
use crate::store::GuardHealth;

/// How often the database is compared with the mark.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long one comparison may take before it counts as failing.
const TEND_FOR: Duration = Duration::from_secs(5);

impl App {
    /// Tends the guard for the lifetime of the process.
    pub async fn tend_guard(&self) {
        if self.store.guard_health().is_none() {
            return pending().await;
        }
        let mut is_failing = false;
        loop {
            let mut tending = pin!(self.store.tend_guard());
            let failure = loop {
                match timeout(TEND_FOR, &mut tending).await {
                    Ok(Ok(_)) => break None,
                    Ok(Err(error)) => break Some(error.to_string()),
                    // It is not given up, because what hangs is probably the place of the guard.
                    Err(_) => self.note_guard(Some("it takes too long"), &mut is_failing),
                }
            };
            self.note_guard(failure.as_deref(), &mut is_failing);
            sleep(TEND_EVERY).await;
        }
    }

    fn note_guard(&self, failure: Option<&str>, was_failing: &mut bool) {
        if let (Some(error), false) = (failure, *was_failing) {
            tracing::warn!(error, "the database is not compared with the restore guard");
        }
        *was_failing = failure.is_some();
        self.metrics.guard.failing.set((*was_failing).into());
        if let Some(health) = self.store.guard_health() {
            if health.restored {
                self.cache.clear();
            }
            self.show(health);
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
