//! Records which tables hold the change log, on PostgreSQL only. Tables of the same names in
//! another schema are then not mistaken for these.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr},
};

pub struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &'static str {
        "m20261129_000007_tables"
    }
}

/// The tables whose ids are recorded. Do not change this list, because replicas of the previous
/// version still compare its ids with the recorded value. A migration that adds a table must store
/// the ids of its own list under another name.
pub const TABLES: [&str; 10] = [
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
];

/// Returns an SQL expression for a hash of the object ids of the tables. The ids are resolved with
/// the session's `search_path` when the statement is parsed, so they belong to the tables that the
/// rest of the statement uses.
pub fn ids_of(tables: &[&str]) -> String {
    hashed(tables, |table| format!("'{table}'::regclass"))
}

/// Returns an SQL expression for a hash of the object ids of the tables that the `search_path`
/// finds when the statement is executed.
pub fn ids_now_of(tables: &[&str]) -> String {
    let hash = hashed(tables, |table| format!("to_regclass('{table}')"));
    format!("COALESCE({hash}, 0)")
}

fn hashed(tables: &[&str], id: impl Fn(&str) -> String) -> String {
    let ids: Vec<_> = tables
        .iter()
        .map(|table| format!("{}::oid::text", id(table)))
        .collect();
    format!("hashtextextended({}, 0)", ids.join(" || ',' || "))
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let note = format!(
            "INSERT INTO meta (name, value) SELECT 'tables', {}",
            ids_of(&TABLES)
        );
        manager.get_connection().execute_unprepared(&note).await?;
        Ok(())
    }
}
