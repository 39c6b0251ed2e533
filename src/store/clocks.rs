//! Which clock decides, and by how much clocks may differ (R8).

use std::{sync::atomic::Ordering, time::Duration};

use sea_orm::{ConnectionTrait as _, DbErr, QueryResult, Statement};

use super::{Error, Store, transaction::Transaction};
use crate::domain::timestamp::Timestamp;

/// The permitted skew, where nobody says.
pub(super) const DEFAULT_MAX_SKEW_MICROS: u64 = 2_000_000;

/// PostgreSQL's clock in microseconds, read anew within one transaction.
const CLOCK: &str = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS now";

impl Store {
    /// Permits clocks to differ by this much.
    pub fn permit_skew(&self, max: Duration) {
        let micros = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
        self.max_skew_micros.store(micros, Ordering::Relaxed);
    }

    /// By how much clocks may differ.
    #[must_use]
    pub fn max_skew(&self) -> Duration {
        Duration::from_micros(self.max_skew_micros.load(Ordering::Relaxed))
    }

    /// Decides by this process's clock on PostgreSQL too: for tests that have one clock in their
    /// hands for both engines, and as a negative control. No setting does this.
    #[must_use]
    pub const fn deciding_by_own_clock(mut self) -> Self {
        self.own_clock_decides = true;
        self
    }

    /// What time it is by the clock that all who change this store share: the database's, or
    /// on SQLite the process's own. A statement by itself: `now()` is when the transaction
    /// began, and in the locking statement `clock_timestamp()` may be read before the wait.
    pub(super) async fn transaction_clock(&self, tx: &Transaction) -> Result<Timestamp, Error> {
        if self.own_clock_decides {
            return Ok(self.clock.now());
        }
        let statement = Statement::from_string(self.backend(), CLOCK);
        clock_in(tx.query_one_raw(statement).await?)
    }
}

fn clock_in(row: Option<QueryResult>) -> Result<Timestamp, Error> {
    let row = row.ok_or_else(|| DbErr::RecordNotFound("a clock".to_owned()))?;
    let now = Timestamp::from_micros(row.try_get("", "now")?);
    Ok(now.ok_or_else(|| DbErr::Custom("the database's clock is out of range".to_owned()))?)
}
