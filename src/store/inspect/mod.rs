//! Reads what a database says of itself, for `stacktoken doctor`. Changes nothing: it opens no
//! SQLite file for writing, and only selects from PostgreSQL.

pub(in crate::store) mod pooling;
pub(in crate::store) mod postgres;

use std::sync::Arc;

use sea_orm::{ConnectionTrait as _, EntityTrait as _, Statement};

use crate::domain::{
    clock::Clock,
    comparison::{Comparison, Difference},
    entropy::Entropy,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Location, OpenError, PoolSize, Store, engine::origin::CLOCK, engine::pool, entity::meta,
};

impl Store {
    /// Opens the store only to inspect it. An SQLite file is not locked, so another process may
    /// serve from it meanwhile.
    ///
    /// # Errors
    /// Returns [`OpenError`], for example if the file is not a database.
    pub async fn open_to_inspect(
        location: &Location,
        size: PoolSize,
        ambient: (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<Self, OpenError> {
        let connections = pool::open_to_inspect(location, size).await?;
        Self::of(location, size, connections, ambient).await
    }

    /// Returns the difference between this process's clock and the database's clock. Returns
    /// `None` on SQLite, which has no clock of its own.
    ///
    /// # Errors
    /// Returns [`Error`] if the database does not answer.
    pub async fn clock_difference(&self) -> Result<Option<Difference>, Error> {
        if !self.has_other_writers() {
            return Ok(None);
        }
        let sql = format!("SELECT {CLOCK} AS now");
        let pools = self.pools.load_full();
        // The first statement of a connection takes several round trips, which would count as
        // uncertainty.
        let statement = || Statement::from_string(self.backend(), &sql);
        pools.control.query_one_raw(statement()).await?;
        let comparison = Comparison::begin(self.clock.as_ref());
        let row = pools.control.query_one_raw(statement()).await?;
        let micros = row.map(|row| row.try_get("", "now")).transpose()?;
        let theirs = micros.and_then(Timestamp::from_micros);
        Ok(theirs.map(|theirs| comparison.end(theirs, self.clock.as_ref())))
    }

    /// Returns the time of the last heartbeat, by the clock of the process that wrote it. Returns
    /// `None` if no process has served from this store yet.
    ///
    /// # Errors
    /// Returns [`Error`] if the store cannot be read.
    pub async fn last_heartbeat(&self) -> Result<Option<Timestamp>, Error> {
        let row = meta::Entity::find_by_id("heartbeat")
            .one(&self.pools.load().reader)
            .await?;
        let at = row.and_then(|row| Timestamp::from_micros(row.value));
        Ok(at.filter(|at| *at > Timestamp::EPOCH))
    }
}
