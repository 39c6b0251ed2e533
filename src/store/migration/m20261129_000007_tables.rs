//! Records which tables hold the change log, only on PostgreSQL. A schema with tables of the same
//! names is then not mistaken for this one.

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
/// version still compare the recorded value with it. A migration that adds a table must store the
/// ids of its own list under another name.
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

/// Returns a hash of the object ids of the tables. They are those that the session's `search_path`
/// finds when the statement is parsed, so they are the tables that the rest of the statement uses.
pub fn ids_of(tables: &[&str]) -> String {
    hashed(tables, |table| format!("'{table}'::regclass"))
}

/// Returns a hash of the object ids of the tables that the `search_path` finds when the statement
/// is executed.
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
