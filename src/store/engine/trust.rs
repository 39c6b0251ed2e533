//! The preconditions of a change besides the lock of its stack: the database is the one that
//! committed this process's last heartbeat, and its clock agrees with this process's (R8). Either
//! can become false between two heartbeats, so each change checks both again in its transaction, in
//! the one statement that reads the clock.

use std::sync::atomic::Ordering;

use sea_orm::{ConnectionTrait as _, DbErr, QueryResult, Statement};

use crate::domain::{comparison::Comparison, origin::Origin, timestamp::Timestamp};
use crate::store::{
    Error, Store,
    engine::origin::{CLOCK, Sources, origin_of},
    engine::transaction::Transaction,
};

/// Returns the statement on PostgreSQL. It reads the current time, not when the transaction began.
pub(in crate::store) fn on_postgres(sources: Sources) -> String {
    format!("SELECT {CLOCK} AS now, {}", sources.columns_now())
}

/// Which of the two checks are made. Only a negative control leaves one out; no setting does.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Checks {
    pub origin: bool,
    pub clock: bool,
}

impl Checks {
    pub const ALL: Self = Self {
        origin: true,
        clock: true,
    };
}

impl Store {
    /// Leaves out the check of the database (`origin`) or of its clock (`clock`). For negative
    /// controls; no setting does this.
    #[must_use]
    pub const fn changing_without(mut self, origin: bool, clock: bool) -> Self {
        self.checks = Checks {
            origin: !origin,
            clock: !clock,
        };
        self
    }

    /// Refuses changes until a database is trusted. Commands that make a change and exit commit no
    /// heartbeat, and do not call this.
    pub fn require_trust(&self) {
        self.requires_trust.store(true, Ordering::Release);
    }

    /// Trusts this database from now on: changes are made in no other.
    pub fn trust(&self, origin: &Origin) {
        self.trusted.store(Some(origin.clone().into()));
    }

    /// Returns once a change has found a database other than the trusted one. The next heartbeat
    /// then decides which one to trust.
    pub async fn mistrusted(&self) {
        self.mistrusted.notified().await;
    }

    /// Reads the clock that all writers of this store share: the database's, or on SQLite this
    /// process's. A separate statement: `now()` is when the transaction began, and the locking
    /// statement may read `clock_timestamp()` before it waits.
    ///
    /// # Errors
    /// [`Error::Untrusted`], [`Error::ClocksDiffer`].
    pub(in crate::store) async fn transaction_clock(
        &self,
        tx: &Transaction,
    ) -> Result<Timestamp, Error> {
        if !self.is_shared() {
            return Ok(self.clock.now());
        }
        let comparison = Comparison::begin(self.clock.as_ref());
        let statement = Statement::from_string(self.backend(), &self.statements.decide);
        let row = tx.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a clock".to_owned()))?;
        self.require_trusted(&row)?;
        if self.own_clock_decides {
            return Ok(self.clock.now());
        }
        let theirs = Timestamp::from_micros(row.try_get("", "now")?);
        let theirs = theirs
            .ok_or_else(|| DbErr::Custom("the database's clock is out of range".to_owned()))?;
        self.require_agreement(&comparison, theirs)?;
        Ok(theirs)
    }

    /// Checks that the row comes from the trusted database. A database that has no incarnation yet
    /// was restarted, and counts as another one.
    fn require_trusted(&self, row: &QueryResult) -> Result<(), Error> {
        if !self.checks.origin {
            return Ok(());
        }
        let trusted = self.trusted.load();
        let is_trusted = match (trusted.as_ref(), origin_of(row)) {
            (None, _) if self.requires_trust.load(Ordering::Acquire) => {
                // The first heartbeat is under way.
                return Err(Error::Untrusted);
            }
            (None, _) => true,
            (Some(trusted), Ok(origin)) => origin.is(trusted),
            (Some(_), Err(Error::Nameless)) => false,
            (Some(_), Err(error)) => return Err(error),
        };
        if is_trusted {
            return Ok(());
        }
        self.mistrusted.notify_one();
        Err(Error::Untrusted)
    }

    fn require_agreement(&self, comparison: &Comparison, theirs: Timestamp) -> Result<(), Error> {
        let difference = comparison.end(theirs, self.clock.as_ref());
        if self.checks.clock && difference.exceeds(self.max_skew()) {
            return Err(Error::ClocksDiffer {
                by: difference.certain(),
            });
        }
        Ok(())
    }
}
