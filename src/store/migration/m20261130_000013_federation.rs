//! Adds federated tokens: the rules of a token, its sessions, and the assertions that were
//! exchanged. It only adds tables, a column and indexes, so that the previous version can run next
//! to this one. That version does not recognize the secrets of sessions and cannot give a federated
//! token its own secret, but it can purge a federated token.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr},
    sea_query::{ColumnDef, Expr, ForeignKey, ForeignKeyAction, Table, TableCreateStatement},
};

use super::m20261129_000007_tables::{ids_now_of, ids_of};
use super::m20261129_000009_replays as former;

pub struct Federation;

impl MigrationName for Federation {
    fn name(&self) -> &'static str {
        "m20261130_000013_federation"
    }
}

/// The tables whose ids are recorded under [`TABLE_IDS`]. Do not change this list, because replicas
/// of this version compare its ids with the recorded value. A migration that adds a table must
/// store the ids of its own list under another name.
const TABLES: [&str; 13] = [
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
    "sessions",
    "assertions",
];

/// The name under which `meta` stores the hash of the table ids.
pub const TABLE_IDS: &str = "tables_13";

/// Returns an SQL expression for a hash of the object ids of the tables that the statement uses.
pub fn ids() -> String {
    ids_of(&TABLES)
}

/// Returns an SQL expression for a hash of the object ids of the tables that the `search_path`
/// finds when the statement is executed.
pub fn ids_now() -> String {
    ids_now_of(&TABLES)
}

/// Returns the statements that store a hash of the ids of all tables in `meta`, once for the list of
/// tables of this version and once for that of the previous version.
pub fn record_ids() -> [String; 2] {
    [(former::TABLE_IDS, former::ids()), (TABLE_IDS, ids())].map(|(name, ids)| {
        format!(
            "INSERT INTO meta (name, value) SELECT '{name}', {ids} \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        )
    })
}

/// A federated token never has its own secret. Without this check, Rotate in the previous version,
/// which does not know federated tokens, would give it one.
const SECRETLESS: &str = "federation IS NULL OR generation = 0";

const INDEXES: [&str; 4] = [
    "CREATE INDEX tokens_federated ON tokens (stack_uid) WHERE federation IS NOT NULL",
    "CREATE INDEX sessions_by_token ON sessions (token_uid, expires_at)",
    "CREATE INDEX sessions_by_end ON sessions (expires_at)",
    "CREATE INDEX assertions_by_end ON assertions (expires_at)",
];

#[async_trait::async_trait]
impl MigrationTrait for Federation {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut column = ColumnDef::new("federation").text().take();
        column.check(Expr::cust(SECRETLESS));
        let alter = Table::alter().table("tokens").add_column(column).take();
        manager.alter_table(alter).await?;
        manager.create_table(sessions()).await?;
        manager.create_table(assertions()).await?;
        let connection = manager.get_connection();
        for index in INDEXES {
            connection.execute_unprepared(index).await?;
        }
        if manager.get_database_backend() == DbBackend::Postgres {
            let collate = "ALTER TABLE sessions ALTER COLUMN subject TYPE text COLLATE \"C\"";
            connection.execute_unprepared(collate).await?;
            let note = format!(
                "INSERT INTO meta (name, value) SELECT '{TABLE_IDS}', {}",
                ids()
            );
            connection.execute_unprepared(&note).await?;
        }
        Ok(())
    }
}

fn hash(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).binary_len(32).not_null().take()
}

fn instant(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().take()
}

/// Creates the table of the sessions of federated tokens. The key is the digest of the session's
/// secret.
fn sessions() -> TableCreateStatement {
    Table::create()
        .table("sessions")
        .col(hash("digest").primary_key())
        .col(ColumnDef::new("token_uid").uuid().not_null())
        .col(ColumnDef::new("subject").text().not_null())
        .col(ColumnDef::new("narrow").text())
        .col(instant("issued_at").not_null())
        .col(instant("expires_at").not_null())
        .col(instant("first_used_at"))
        .col(instant("ended_at"))
        .foreign_key(
            ForeignKey::create()
                .from("sessions", "token_uid")
                .to("tokens", "uid")
                // The previous version purges tokens without knowing that they can have sessions.
                .on_delete(ForeignKeyAction::Cascade),
        )
        .take()
}

/// Creates the table of the assertions that were exchanged.
fn assertions() -> TableCreateStatement {
    Table::create()
        .table("assertions")
        .col(hash("key").primary_key())
        .col(hash("content"))
        .col(hash("session_digest"))
        .col(instant("first_seen_at").not_null())
        .col(instant("expires_at").not_null())
        .take()
}
