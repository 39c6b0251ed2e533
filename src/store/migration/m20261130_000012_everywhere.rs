//! Adds indexes for finding tokens in all stacks: by time of issue, and by the last characters of a
//! secret.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbErr},
};

pub struct Everywhere;

impl MigrationName for Everywhere {
    fn name(&self) -> &'static str {
        "m20261130_000012_everywhere"
    }
}

const STATEMENTS: [&str; 2] = [
    "CREATE INDEX tokens_by_issue ON tokens (issued_at, uid)",
    "CREATE INDEX token_secrets_by_hint ON token_secrets (hint)",
];

#[async_trait::async_trait]
impl MigrationTrait for Everywhere {
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
