//! Counts the connections of each pool.

use sea_orm::DatabaseConnection;

use crate::{
    metrics::Pool,
    store::{Store, engine::dialect::Dialect},
};

impl Store {
    /// Returns the current connection counts of each pool.
    #[must_use]
    pub fn pool_connections(&self) -> [Pool; 3] {
        let pools = self.pools.load();
        [
            ("writer", &pools.writer),
            ("reader", &pools.reader),
            ("control", &pools.control),
        ]
        .map(|(name, connection)| self.count(name, connection))
    }

    fn count(&self, name: &'static str, connection: &DatabaseConnection) -> Pool {
        let (open, idle, max) = match self.dialect() {
            Dialect::Postgres => {
                let pool = connection.get_postgres_connection_pool();
                let max = pool.options().get_max_connections();
                (pool.size(), pool.num_idle(), max)
            }
            Dialect::Sqlite => {
                let pool = connection.get_sqlite_connection_pool();
                let max = pool.options().get_max_connections();
                (pool.size(), pool.num_idle(), max)
            }
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        Pool {
            name,
            idle,
            used: open.saturating_sub(idle),
            max,
        }
    }
}
