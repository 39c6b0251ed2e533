//! Tests that housekeeping deletes old rows and nothing else (R14, R15), and logs each upcoming
//! expiry once.

mod changes;
mod expiry;
mod retention;
mod tokens;

use std::time::Duration;

use crate::support::{TestServer, database::eventually};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// Starts a server that runs housekeeping continually.
pub async fn start_with_housekeeping() -> TestServer {
    TestServer::start_with(|tuning| {
        tuning.keeping.housekeeping_every = Duration::from_millis(10);
    })
    .await
}

impl TestServer {
    /// Waits until a run of housekeeping that started after this call has ended.
    pub async fn cleaned(&self) {
        // The first run that ends may have started before this call, but the second one cannot.
        for _ in 0..2 {
            self.clock.advance(SECOND);
            let now = self.clock.seconds() as f64;
            eventually("a run of housekeeping", async || {
                let name = "stacktoken_housekeeping_last_run_timestamp_seconds";
                (self.metric(name).await >= now).then_some(())
            })
            .await;
        }
    }

    /// Returns the value of a metric, given its name and labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    pub async fn purged(&self, table: &str) -> f64 {
        self.metric(&format!(
            "stacktoken_purged_rows_total{{table=\"{table}\"}}"
        ))
        .await
    }
}
