//! Checks two preconditions of a change, in addition to locking its stack. The database must be the
//! one that committed this process's last heartbeat, and its clock must agree with this process's
//! clock (R8). Either can become false between two heartbeats. So each change checks both in its
//! transaction, with the statement that reads the clock.

use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use sea_orm::{ConnectionTrait as _, DbErr, QueryResult, Statement};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::domain::{caller::Actor, comparison::Comparison, origin::Origin, timestamp::Timestamp};
use crate::store::{
    Error, Store,
    engine::origin::{CLOCK, Sources, origin_of},
    engine::transaction::Transaction,
};

/// Returns the statement for PostgreSQL. It reads the current time, not the time at which the
/// transaction began.
pub(in crate::store) fn on_postgres(sources: Sources) -> String {
    format!("SELECT {CLOCK} AS now, {}", sources.columns_now())
}

/// Returns the statement for PostgreSQL that also reads the role of a member of a stack.
pub(in crate::store) fn with_role_on_postgres(sources: Sources) -> String {
    format!(
        "{}, (SELECT role FROM stack_members \
         WHERE stack_uid = $1 AND issuer = $2 AND subject = $3) AS role",
        on_postgres(sources)
    )
}

/// Which of the two checks are enabled. Only tests disable one, to show that the check is needed.
#[derive(Clone, Copy, Debug)]
struct Checks {
    origin: bool,
    clock: bool,
}

/// The database that this process trusts.
pub(in crate::store) struct Trust {
    /// The database that committed the last heartbeat of this process.
    origin: ArcSwapOption<Origin>,
    /// Whether changes are refused as long as no database is trusted.
    is_required: AtomicBool,
    mistrusted: Notify,
    checks: Checks,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            origin: ArcSwapOption::empty(),
            is_required: AtomicBool::new(false),
            mistrusted: Notify::new(),
            checks: Checks {
                origin: true,
                clock: true,
            },
        }
    }
}

impl Store {
    /// Disables the check of the database (`origin`) or of its clock (`clock`). Only for tests that
    /// show why the check is needed.
    #[must_use]
    pub const fn changing_without(mut self, origin: bool, clock: bool) -> Self {
        self.trust.checks = Checks {
            origin: !origin,
            clock: !clock,
        };
        self
    }

    /// Refuses changes until a database is trusted. Commands that make a single change and exit do
    /// not call this method, because they commit no heartbeat.
    pub fn require_trust(&self) {
        self.trust.is_required.store(true, Ordering::Release);
    }

    /// Trusts this database from now on. Changes in any other database are refused.
    pub fn trust(&self, origin: &Origin) {
        self.trust.origin.store(Some(origin.clone().into()));
    }

    /// Waits until a change has found a database other than the trusted one. The next heartbeat
    /// then decides which database to trust.
    pub async fn mistrusted(&self) {
        self.trust.mistrusted.notified().await;
    }

    /// Reads the clock that all writers of this store share: the database's clock on PostgreSQL,
    /// and this process's clock on SQLite. On PostgreSQL this takes a separate statement. `now()`
    /// would be the time at which the transaction began, and the locking statement may evaluate
    /// `clock_timestamp()` before it waits for the lock.
    ///
    /// # Errors
    /// Returns [`Error::Untrusted`] if the database is not the trusted one, or
    /// [`Error::ClocksDiffer`] if the clocks differ too much.
    pub(in crate::store) async fn transaction_clock(
        &self,
        tx: &Transaction,
    ) -> Result<Timestamp, Error> {
        if !self.has_other_writers() {
            return Ok(self.clock.now());
        }
        let statement = Statement::from_string(self.backend(), &self.statements.decide);
        Ok(self.read_clock(tx, statement).await?.0)
    }

    /// Reads the clock as [`Self::transaction_clock`] does, together with the role of a person
    /// in a stack. Only for PostgreSQL.
    pub(in crate::store) async fn transaction_clock_and_role(
        &self,
        tx: &Transaction,
        (stack, person): (Uuid, &Actor),
    ) -> Result<(Timestamp, Option<String>), Error> {
        let sql = &self.statements.decide_with_role;
        let (issuer, subject) = (person.issuer.as_str(), person.subject.as_str());
        let values = [stack.into(), issuer.into(), subject.into()];
        let statement = Statement::from_sql_and_values(self.backend(), sql, values);
        let (clock, row) = self.read_clock(tx, statement).await?;
        Ok((clock, row.try_get("", "role")?))
    }

    async fn read_clock(
        &self,
        tx: &Transaction,
        statement: Statement,
    ) -> Result<(Timestamp, QueryResult), Error> {
        let comparison = Comparison::begin(self.clock.as_ref());
        let row = tx.query_one_raw(statement).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("a clock".to_owned()))?;
        self.require_trusted(&row)?;
        if self.own_clock_decides {
            return Ok((self.clock.now(), row));
        }
        let theirs = Timestamp::from_micros(row.try_get("", "now")?);
        let theirs = theirs
            .ok_or_else(|| DbErr::Custom("the database's clock is out of range".to_owned()))?;
        self.require_agreement(&comparison, theirs)?;
        Ok((theirs, row))
    }

    /// Checks that the row comes from the trusted database. A database without an incarnation
    /// number was restarted after a crash or promoted, and counts as another database.
    fn require_trusted(&self, row: &QueryResult) -> Result<(), Error> {
        if !self.trust.checks.origin {
            return Ok(());
        }
        let trusted = self.trust.origin.load();
        let is_trusted = match (trusted.as_ref(), origin_of(row)) {
            (None, _) if self.trust.is_required.load(Ordering::Acquire) => {
                // The first heartbeat is not yet committed.
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
        self.trust.mistrusted.notify_one();
        Err(Error::Untrusted)
    }

    fn require_agreement(&self, comparison: &Comparison, theirs: Timestamp) -> Result<(), Error> {
        let difference = comparison.end(theirs, self.clock.as_ref());
        if self.trust.checks.clock && difference.exceeds(self.max_skew()) {
            return Err(Error::ClocksDiffer {
                by: difference.certain(),
            });
        }
        Ok(())
    }
}
