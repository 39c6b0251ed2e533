//! Checks that the store can be used: that the file of an embedded store was not deleted or replaced,
//! and that no database was restored from the past.

use std::sync::{Arc, atomic::AtomicBool};

use crate::store::{Error, Store};

impl Store {
    /// Returns a flag that is set if the last check found the database file or its write-ahead log
    /// deleted or replaced. Returns `None` on PostgreSQL.
    #[must_use]
    pub fn file_lost(&self) -> Option<Arc<AtomicBool>> {
        self.embedded.as_ref().map(|embedded| embedded.file.lost())
    }

    /// Returns a flag that is set while the database is behind the mark of its guard. Returns `None`
    /// if the store has no guard.
    #[must_use]
    pub fn restored_from_past(&self) -> Option<Arc<AtomicBool>> {
        self.guard.as_ref().map(|guard| guard.restored())
    }

    /// Checks that this process still writes to the file that it would open after a restart, and
    /// that the database is not behind the mark of its guard.
    pub(in crate::store) fn require_file(&self) -> Result<(), Error> {
        if let Some(guard) = &self.guard {
            guard.require_current()?;
        }
        match &self.embedded {
            Some(embedded) => embedded
                .file
                .check()
                .map_err(|lost| Error::FileLost(lost.name())),
            None => Ok(()),
        }
    }
}
