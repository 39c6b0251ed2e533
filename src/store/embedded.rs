//! Whether the file of an embedded store is still in its place.

use std::sync::{Arc, atomic::AtomicBool};

use super::{Error, Store};

impl Store {
    /// Whether the database file, or its write-ahead log, was deleted or replaced when that was
    /// last looked at; `None` on PostgreSQL.
    #[must_use]
    pub fn file_lost(&self) -> Option<Arc<AtomicBool>> {
        self.embedded.as_ref().map(|embedded| embedded.file.lost())
    }

    /// That what is committed is in the file that the next start will open.
    pub(super) fn require_file(&self) -> Result<(), Error> {
        match &self.embedded {
            Some(embedded) => embedded
                .file
                .check()
                .map_err(|lost| Error::FileLost(lost.name())),
            None => Ok(()),
        }
    }
}
