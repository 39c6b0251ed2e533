//! Deletes sessions that have ended, and assertions that have expired.

use crate::store::{
    Error, Store,
    engine::dialect::PerEngine,
    purge::{BATCH, Batch, Retention},
};

/// Skips rows that another transaction has locked.
const SKIP_LOCKED: PerEngine = PerEngine::on_postgres(" FOR UPDATE SKIP LOCKED");

impl Store {
    /// Deletes sessions whose expiry is longer ago than `keep`. Their secrets are no longer
    /// recognized.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_sessions(&self, keep: Retention) -> Result<Batch, Error> {
        self.purge_by_end("sessions", "digest", keep).await
    }

    /// Deletes assertions whose expiry is longer ago than `keep`. They cannot be exchanged again,
    /// because an expired assertion is refused.
    ///
    /// # Errors
    /// Returns [`Error`] if nothing was deleted.
    pub async fn purge_assertions(&self, keep: Retention) -> Result<Batch, Error> {
        self.purge_by_end("assertions", "key", keep).await
    }

    async fn purge_by_end(
        &self,
        table: &'static str,
        key: &str,
        keep: Retention,
    ) -> Result<Batch, Error> {
        write_tx!(self, "purge_sessions", |tx| {
            let Some(before) = self.acquire_purge_lock(tx, keep).await? else {
                return Ok(Batch::BUSY);
            };
            let sql = format!(
                "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} \
                 WHERE expires_at <= $1 ORDER BY expires_at LIMIT {BATCH}{})",
                self.dialect().pick(SKIP_LOCKED)
            );
            let deleted = self.delete(tx, &sql, [before.as_micros().into()]).await?;
            Ok(Batch::of(table, deleted, deleted == BATCH))
        })
    }
}
