//! Adds what usage, purging and expiry reports need: when each service last used a token, which
//! upcoming expiry was reported, and indexes for tokens that died long ago or expire soon. It only
//! adds tables, columns and indexes, so that the previous version can run next to this one.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr, EntityTrait, Set},
    sea_query::{ColumnDef, ForeignKey, Index, Table, TableAlterStatement, TableCreateStatement},
};

use crate::store::entity::meta;

pub struct Usage;

impl MigrationName for Usage {
    fn name(&self) -> &'static str {
        "m20261124_000003_usage"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Usage {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(usage()).await?;
        manager.alter_table(expiry_told()).await?;
        let connection = manager.get_connection();
        for index in INDEXES {
            connection.execute_unprepared(index).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            for column in ["service_issuer", "service_subject"] {
                let sql = format!(
                    "ALTER TABLE token_usage ALTER COLUMN {column} TYPE text COLLATE \"C\""
                );
                connection.execute_unprepared(&sql).await?;
            }
        }
        // The position up to which the change log was purged. It starts at 0, because nothing was
        // purged yet.
        let row = meta::ActiveModel {
            name: Set("purged".to_owned()),
            value: Set(0),
        };
        meta::Entity::insert(row)
            .exec_without_returning(connection)
            .await?;
        Ok(())
    }
}

/// Indexes for purging and for expiry reports. `changes` needs no new index, because it is purged
/// in the order in which it is read.
const INDEXES: [&str; 2] = [
    "CREATE INDEX tokens_dead ON tokens ((COALESCE(revoked_at, ended_at, expires_at)))",
    "CREATE INDEX tokens_expiring ON tokens (expires_at) \
     WHERE revoked_at IS NULL AND ended_at IS NULL",
];

/// Returns the new column for the smallest number of days for which an upcoming expiry was
/// reported.
fn expiry_told() -> TableAlterStatement {
    Table::alter()
        .table("tokens")
        .add_column(ColumnDef::new("expiry_told").integer())
        .take()
}

/// Creates the usage table. It has one row for each token and each service that uses the token.
fn usage() -> TableCreateStatement {
    let uuid = |name: &'static str| ColumnDef::new(name).uuid().not_null().take();
    let text = |name: &'static str| ColumnDef::new(name).text().not_null().take();
    Table::create()
        .table("token_usage")
        .col(uuid("token_uid"))
        .col(text("service_issuer"))
        .col(text("service_subject"))
        .col(ColumnDef::new("last_used_at").big_integer().not_null())
        .primary_key(
            Index::create()
                .col("token_uid")
                .col("service_issuer")
                .col("service_subject"),
        )
        .foreign_key(
            ForeignKey::create()
                .from("token_usage", "token_uid")
                .to("tokens", "uid"),
        )
        .take()
}
