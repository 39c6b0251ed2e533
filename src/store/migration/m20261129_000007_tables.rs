//! Records which tables hold the change log (PostgreSQL), so that a schema with tables of the same
//! names is not mistaken for this one.

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

/// The ids of all tables, as the session's `search_path` resolves them. A migration that adds a
/// table to the list must define its own list and replace the stored value.
pub const IDS: &str = "hashtextextended(\
    'stacks'::regclass::oid::text || ',' || 'stack_members'::regclass::oid::text || ',' || \
    'tokens'::regclass::oid::text || ',' || 'token_secrets'::regclass::oid::text || ',' || \
    'token_usage'::regclass::oid::text || ',' || 'requests'::regclass::oid::text || ',' || \
    'changes'::regclass::oid::text || ',' || 'audit_events'::regclass::oid::text || ',' || \
    'meta'::regclass::oid::text || ',' || 'incarnation'::regclass::oid::text, 0)";

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        let note = format!("INSERT INTO meta (name, value) SELECT 'tables', {IDS}");
        manager.get_connection().execute_unprepared(&note).await?;
        Ok(())
    }
}
