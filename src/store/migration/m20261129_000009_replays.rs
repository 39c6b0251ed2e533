//! Adds what lists and repeated calls need: an index for the stacks of a person, and a table of the
//! results of calls with an idempotency key. It only adds a table and indexes, so that the previous
//! version can run next to this one.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr},
    sea_query::{ColumnDef, Index, Table, TableCreateStatement},
};

use super::m20261129_000007_tables::ids_of;

pub struct Replays;

impl MigrationName for Replays {
    fn name(&self) -> &'static str {
        "m20261129_000009_replays"
    }
}

/// The tables whose ids are recorded under [`TABLE_IDS`]. Do not change this list, because replicas
/// of this version compare its ids with the recorded value. A migration that adds a table must
/// store the ids of its own list under another name.
const TABLES: [&str; 11] = [
    "stacks",
    "stack_members",
    "tokens",
    "token_secrets",
    "token_usage",
    "requests",
    "changes",
    "audit_events",
    "meta",
    "incarnation",
    "replays",
];

/// The name under which `meta` stores the hash of the table ids.
pub const TABLE_IDS: &str = "tables_9";

/// Returns an SQL expression for a hash of the object ids of the tables that the statement uses.
pub fn ids() -> String {
    ids_of(&TABLES)
}

const INDEXES: [&str; 2] = [
    "CREATE INDEX stack_members_by_person ON stack_members (issuer, subject, stack_uid)",
    "CREATE INDEX replays_by_time ON replays (first_seen_at)",
];

#[async_trait::async_trait]
impl MigrationTrait for Replays {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(replays()).await?;
        let connection = manager.get_connection();
        for index in INDEXES {
            connection.execute_unprepared(index).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            for column in ["stack_key", "caller_issuer", "caller_subject", "request_id"] {
                let sql =
                    format!("ALTER TABLE replays ALTER COLUMN {column} TYPE text COLLATE \"C\"");
                connection.execute_unprepared(&sql).await?;
            }
            let note = format!(
                "INSERT INTO meta (name, value) SELECT '{TABLE_IDS}', {}",
                ids()
            );
            connection.execute_unprepared(&note).await?;
        }
        Ok(())
    }
}

/// Creates the table of the results of calls with an idempotency key that issue no secret.
fn replays() -> TableCreateStatement {
    let text = |name: &'static str| ColumnDef::new(name).text().not_null().take();
    let hash = |name: &'static str| ColumnDef::new(name).binary_len(32).not_null().take();
    Table::create()
        .table("replays")
        .col(text("stack_key"))
        .col(text("caller_issuer"))
        .col(text("caller_subject"))
        .col(text("rpc"))
        .col(text("request_id"))
        .col(hash("content"))
        .col(text("answer"))
        .col(ColumnDef::new("first_seen_at").big_integer().not_null())
        .primary_key(
            Index::create()
                .col("stack_key")
                .col("caller_issuer")
                .col("caller_subject")
                .col("rpc")
                .col("request_id"),
        )
        .take()
}
