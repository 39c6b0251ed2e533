//! A database that can be reached but is read-only: a standby, or one with
//! `default_transaction_read_only`. A session keeps the setting it started with, so connections
//! must be replaced once the database accepts writes again, and no earlier.

use tokio::sync::Notify;

use crate::store::{Error, Location, Store, Unreachable};

/// Why the store accepts no changes.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// The database, as a fresh connection finds it.
    #[error(transparent)]
    Database(#[from] Unreachable),
    /// The file of an embedded database.
    #[error("the database file takes no changes: {0}")]
    File(Error),
}

impl Unwritable {
    /// Returns whether the store answers but accepts no changes.
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

    /// Returns once a change is refused because the database is read-only.
    pub async fn refused_as_read_only(&self) {
        self.refused.0.notified().await;
    }

    /// Checks whether changes are accepted now: by a fresh connection, or on SQLite by a heartbeat.
    ///
    /// # Errors
    /// [`Unwritable`], which says why not.
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
