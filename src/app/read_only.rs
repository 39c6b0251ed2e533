//! Handles a database that is or becomes read-only while the process runs. Logs the cause once, and
//! shows the state in a metric and in the health service. Probes the database with exponential
//! back-off until it accepts writes, and only then replaces the connections, because until then new
//! connections would be read-only too.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::App;

/// Interval before the second probe of a read-only database. It doubles after each probe.
const FIRST_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval between two probes.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(8);
/// A write that is refused within this time after the last incident belongs to the same incident,
/// so the back-off continues instead of starting over.
const SAME_WITHIN: Duration = Duration::from_mins(1);

/// Whether the database is known to refuse writes.
#[derive(Debug, Default)]
pub(super) struct ReadOnly {
    known: AtomicBool,
    look: Notify,
}

impl ReadOnly {
    /// Probes the database at once if it is known to be read-only. Called when heartbeats succeed
    /// again.
    pub fn look_now(&self) {
        if self.known.load(Ordering::Acquire) {
            self.look.notify_one();
        }
    }
}

impl App {
    /// Returns whether the database is known to refuse writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only.known.load(Ordering::Acquire)
    }

    /// Tracks whether the database accepts writes. Runs for the lifetime of the process.
    pub async fn poll_read_only(&self) {
        let mut rest = FIRST_PROBE_INTERVAL;
        loop {
            // A connection pooler may hold both read-only and writable sessions. Replacing our
            // connections does not help then, so repeated incidents back off too.
            let same = timeout(SAME_WITHIN, self.store.refused_as_read_only()).await;
            if same.is_err() {
                rest = FIRST_PROBE_INTERVAL;
                self.store.refused_as_read_only().await;
            }
            self.wait_until_writable().await;
            self.store.replace_connections().await;
            if self.is_read_only() {
                self.set_read_only(false);
                tracing::info!("the database accepts changes again");
            }
            sleep(rest).await;
            rest = longer(rest);
        }
    }

    async fn wait_until_writable(&self) {
        let mut pause = FIRST_PROBE_INTERVAL;
        let mut logged = None;
        while let Err(unwritable) = self.store.require_writable().await {
            // Logs nothing if the database is unreachable, because the poller and the heartbeat
            // already log that.
            self.set_read_only(unwritable.is_read_only());
            let cause = unwritable.to_string();
            if self.is_read_only() && logged.as_ref() != Some(&cause) {
                tracing::warn!(cause, "changes are refused");
                logged = Some(cause);
            }
            let _ = timeout(pause, self.read_only.look.notified()).await;
            pause = longer(pause);
        }
    }

    fn set_read_only(&self, read_only: bool) {
        self.read_only.known.store(read_only, Ordering::Release);
        self.metrics.database_read_only.set(read_only.into());
    }
}

fn longer(pause: Duration) -> Duration {
    (2 * pause).min(MAX_PROBE_INTERVAL)
}
