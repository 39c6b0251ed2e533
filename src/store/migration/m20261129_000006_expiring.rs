//! Removes tokens that never expire from the index `tokens_expiring`. Without statistics, for
//! example after a restore, PostgreSQL assumed that this index is tiny. It then counted the live
//! tokens of one stack by scanning the whole index.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbErr},
};

pub struct Expiring;

impl MigrationName for Expiring {
    fn name(&self) -> &'static str {
        "m20261129_000006_expiring"
    }
}

/// The new predicate follows from every comparison with `expires_at`, so queries with such a
/// comparison can use the index. A query that also selects tokens without an expiry cannot use it.
const STATEMENTS: [&str; 2] = [
    "DROP INDEX tokens_expiring",
    "CREATE INDEX tokens_expiring ON tokens (expires_at) \
     WHERE revoked_at IS NULL AND ended_at IS NULL AND expires_at IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Expiring {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in STATEMENTS {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}
