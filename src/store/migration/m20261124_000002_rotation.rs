//! Adds what rotation and idempotency keys need: when a secret ends and when it was first used, and
//! the results of requests. It only adds tables and columns, so that the previous version can run
//! next to this one.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr},
    sea_query::{ColumnDef, ForeignKey, Index, Table, TableCreateStatement},
};

pub struct Rotation;

impl MigrationName for Rotation {
    fn name(&self) -> &'static str {
        "m20261124_000002_rotation"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Rotation {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The columns are added one by one, because SQLite adds only one column per statement.
        for column in columns() {
            let alter = Table::alter()
                .table("token_secrets")
                .add_column(column)
                .take();
            manager.alter_table(alter).await?;
        }
        manager.create_table(requests()).await?;
        let connection = manager.get_connection();
        connection.execute_unprepared(BY_TOKEN).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            for column in ["caller_issuer", "caller_subject", "rpc", "request_id"] {
                let sql =
                    format!("ALTER TABLE requests ALTER COLUMN {column} TYPE text COLLATE \"C\"");
                connection.execute_unprepared(&sql).await?;
            }
        }
        Ok(())
    }
}

const BY_TOKEN: &str = "CREATE INDEX requests_by_token ON requests (token_uid)";

fn instant(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().take()
}

/// Returns the new columns of `token_secrets`. They record when the overlap of a secret ends at the
/// latest, and whether the first use of the newest secret ends the overlap earlier. They also
/// record when the secret was superseded, when it was first used, and when it was presented after
/// its end.
fn columns() -> [ColumnDef; 5] {
    [
        instant("ends_at"),
        ColumnDef::new("until_first_use")
            .boolean()
            .not_null()
            .default(false)
            .take(),
        instant("superseded_at"),
        instant("first_used_at"),
        instant("presented_at"),
    ]
}

/// Creates the table of idempotency keys. A key is kept as long as the row of its token.
fn requests() -> TableCreateStatement {
    let uuid = |name: &'static str| ColumnDef::new(name).uuid().not_null().take();
    let text = |name: &'static str| ColumnDef::new(name).text().not_null().take();
    let hash = |name: &'static str| ColumnDef::new(name).binary_len(32).not_null().take();
    Table::create()
        .table("requests")
        .col(uuid("stack_uid"))
        .col(text("caller_issuer"))
        .col(text("caller_subject"))
        .col(text("rpc"))
        .col(text("request_id"))
        .col(hash("content"))
        .col(uuid("token_uid"))
        .col(ColumnDef::new("generation").integer().not_null())
        .col(hash("token_state"))
        .col(instant("overlap_ends_at"))
        .col(instant("first_seen_at").not_null())
        .primary_key(
            Index::create()
                .col("stack_uid")
                .col("caller_issuer")
                .col("caller_subject")
                .col("rpc")
                .col("request_id"),
        )
        .foreign_key(
            ForeignKey::create()
                .from("requests", "token_uid")
                .to("tokens", "uid"),
        )
        .take()
}
