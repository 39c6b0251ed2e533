//! Deletes rows that serve for a time: results of calls, sessions and assertions.

use crate::{
    domain::timestamp::Timestamp,
    store::{
        Error, Store,
        engine::{dialect::Dialect, transaction::Transaction},
        purge::{BATCH, Batch, Retention},
    },
};

impl Store {
    /// Deletes the results of calls that were first made longer ago than `keep`. If such a call is
    /// repeated, the repetition is no longer recognized.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_replays(&self, keep: Retention) -> Result<Batch, Error> {
        write_tx!(self, "purge_replays", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            self.delete_oldest(tx, ("replays", "first_seen_at"), before)
                .await
        })
    }

    /// Deletes sessions whose expiry is longer ago than `keep`. Their secrets are no longer
    /// recognized.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_sessions(&self, keep: Retention) -> Result<Batch, Error> {
        write_tx!(self, "purge_sessions", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            self.delete_oldest(tx, ("sessions", "expires_at"), before)
                .await
        })
    }

    /// Deletes assertions whose expiry is longer ago than `keep`. They cannot be exchanged again,
    /// because an expired assertion is refused.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_assertions(&self, keep: Retention) -> Result<Batch, Error> {
        write_tx!(self, "purge_assertions", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            self.delete_oldest(tx, ("assertions", "expires_at"), before)
                .await
        })
    }

    /// Deletes the oldest rows of a table by the instant in a column, at most [`BATCH`]. On
    /// PostgreSQL the rows are selected by an array of `ctid`s, for which there is only one plan.
    /// With a join, the statistics could make the planner read the whole table. Locked rows are
    /// skipped there.
    async fn delete_oldest(
        &self,
        tx: &Transaction,
        (table, column): (&'static str, &str),
        before: Timestamp,
    ) -> Result<Batch, Error> {
        let oldest = format!("WHERE {column} <= $1 ORDER BY {column} LIMIT {BATCH}");
        let sql = match self.dialect() {
            Dialect::Sqlite => {
                format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} {oldest})")
            }
            Dialect::Postgres => format!(
                "DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} {oldest} \
                 FOR UPDATE SKIP LOCKED))"
            ),
        };
        let deleted = self.delete(tx, &sql, [before.as_micros().into()]).await?;
        Ok(Batch::of(table, deleted, deleted == BATCH))
    }
}
