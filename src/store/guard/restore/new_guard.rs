//! Begins a new guard, because the former one is lost, damaged, or sealed with a key that is lost.

use std::io;

use sea_orm::ConnectionTrait as _;

use crate::{
    domain::caller::{Call, Mode},
    store::{
        Error, Store,
        guard::{Guard, GuardError, journal::JOURNAL, mark, place::Place},
    },
};

impl Store {
    /// Begins a new guard for the database as it is. What the former guard knew is not used any
    /// more.
    ///
    /// # Errors
    /// Returns [`GuardError`] if the place has the guard of another database, or if the guard or the
    /// audit row could not be written.
    pub async fn begin_new_guard(&self) -> Result<(), GuardError> {
        let guard = self.require_guard()?.clone();
        let known = self.guard_of_database().await?;
        // A file that is damaged or has another key says nothing.
        let there = guard
            .blocking(|guard| Ok(guard.file().ok().flatten()))
            .await?;
        if there.is_some_and(|file| known.is_some_and(|known| known != file.guard)) {
            return Err(Error::OtherGuard.into());
        }
        let epoch = self.read_epoch().await?;
        let file = self.new_guard_file(epoch)?;
        self.replace_guard(&self.restoring(Mode::Apply)?, file.guard)
            .await?;
        let replacing = move |guard: &Guard| {
            set_aside(&*guard.place, file.guard)?;
            Ok::<_, GuardError>(file.replace(&*guard.place, &guard.seal)?)
        };
        guard.blocking(replacing).await
    }

    /// Records in the database that it has another guard, with an audit row.
    async fn replace_guard(&self, call: &Call, number: i64) -> Result<(), Error> {
        change_tx!(self, Mode::Apply, "new_guard", |tx| {
            let proof = self.record_new_guard(tx, call).await?;
            tx.execute_unprepared("DELETE FROM meta WHERE name = 'guard'")
                .await?;
            let insert = format!("INSERT INTO meta (name, value) VALUES ('guard', {number})");
            tx.execute_unprepared(&insert).await?;
            Ok(proof.with(()))
        })
    }
}

/// Moves the files of the former guard out of the way. They may be sealed with another key.
fn set_aside(place: &dyn Place, number: i64) -> io::Result<()> {
    let mut names = place.names()?;
    names.retain(|name| {
        name == mark::GUARD || name.starts_with(mark::MARK) || name.starts_with(JOURNAL)
    });
    if names.is_empty() {
        return Ok(());
    }
    place.set_aside(&format!("before-{number:016x}"), &names)
}
