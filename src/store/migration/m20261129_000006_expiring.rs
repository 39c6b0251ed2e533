//! Keeps tokens that never expire out of the index `tokens_expiring`. Without statistics, as after
//! a restore, PostgreSQL assumed that the index is tiny, and counted the live tokens of one stack
//! by scanning all of it.

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

/// A comparison with `expires_at` implies the predicate; a query that is also about tokens without
/// an expiry does not.
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
