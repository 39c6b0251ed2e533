//! Detects a database that can be reached but is read-only, because it is a standby or
//! `default_transaction_read_only` is on. A session keeps the setting with which it started. So
//! connections must be replaced once the database accepts changes again, but not earlier.

use tokio::sync::Notify;

use crate::store::{Error, Location, Store, Unreachable};

/// Why the store accepts no changes.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// A new connection to the database found this reason.
    #[error(transparent)]
    Database(#[from] Unreachable),
    /// The error of a failed write to the embedded database file.
    #[error("the database file accepts no changes: {0}")]
    File(Error),
}

impl Unwritable {
    /// Returns whether the store answers but is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Database(unreachable) => unreachable.is_read_only(),
            Self::File(error) => error.is_read_only(),
        }
    }
}

/// A signal that a change was refused because the database is read-only.
#[derive(Default)]
pub(in crate::store) struct Refused(Notify);

impl Store {
    /// Signals if a change was refused because the database is read-only.
    pub(in crate::store) fn note<T>(&self, done: &Result<T, Error>) {
        if done.as_ref().is_err_and(Error::is_read_only) {
            self.refused.0.notify_one();
        }
    }

    /// Waits until a change is refused because the database is read-only.
    pub async fn refused_as_read_only(&self) {
        self.refused.0.notified().await;
    }

    /// Checks whether the store accepts changes now. PostgreSQL is checked with a new connection,
    /// and SQLite with a heartbeat.
    ///
    /// # Errors
    /// Returns [`Unwritable`], which says why the store accepts no changes.
    pub async fn require_writable(&self) -> Result<(), Unwritable> {
        match &self.location {
            Location::Postgres(_) => Ok(self.location.reach(self.clock.as_ref()).await?),
            Location::Sqlite(_) => {
                let beat = self.beat(self.clock.now()).await;
                beat.map(drop).map_err(Unwritable::File)
            }
        }
    }
}
