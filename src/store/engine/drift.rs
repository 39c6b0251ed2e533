//! Checks that the tables and indexes of the migrations exist. The database records which
//! migrations were applied, but a restore may have left something out, or something may have been
//! dropped since. Without a unique index, a rule such as the uniqueness of names no longer holds.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbErr, Statement};
use sea_orm_migration::MigratorTrait as _;

use crate::store::{Store, engine::dialect::PerEngine, migration::Migrator};

/// The objects that the migrations create only on PostgreSQL.
const POSTGRES_ONLY: [&str; 2] = ["index changes_by_xid", "table incarnation"];

/// Selects the tables and the valid indexes. Leaves out the indexes of constraints, whose names
/// differ between the engines. On PostgreSQL, an index is invalid if building it concurrently
/// failed.
const OBJECTS: PerEngine = PerEngine {
    sqlite: "SELECT type || ' ' || name AS object FROM sqlite_master \
             WHERE type IN ('table', 'index') AND name NOT LIKE 'sqlite_%'",
    postgres: "SELECT CASE WHEN c.relkind IN ('r', 'p') THEN 'table ' ELSE 'index ' END \
               || c.relname AS object FROM pg_class c \
               LEFT JOIN pg_index i ON i.indexrelid = c.oid \
               WHERE c.relkind IN ('r', 'p', 'i', 'I') AND pg_table_is_visible(c.oid) \
               AND coalesce(i.indisvalid, true)",
};

impl Store {
    /// Returns the tables and indexes that the migrations created and that no longer exist, such
    /// as `index tokens_live_name`.
    ///
    /// # Errors
    /// Returns an error if the catalog of the database cannot be read.
    pub(in crate::store) async fn missing_objects(&self) -> Result<Vec<String>, DbErr> {
        let mut expected = expected_objects().await?;
        if self.has_other_writers() {
            expected.extend(POSTGRES_ONLY.map(str::to_owned));
        }
        let found = objects(&self.pools.load().writer, self.dialect().pick(OBJECTS)).await?;
        Ok(expected.difference(&found).cloned().collect())
    }
}

/// Returns the tables and indexes that the migrations create on both engines, by applying the
/// migrations to an empty in-memory database.
pub(in crate::store) async fn expected_objects() -> Result<BTreeSet<String>, DbErr> {
    let empty = Database::connect("sqlite::memory:").await?;
    Migrator::up(&empty, None).await?;
    let expected = objects(&empty, OBJECTS.sqlite).await;
    empty.close().await?;
    expected
}

async fn objects(database: &DatabaseConnection, query: &str) -> Result<BTreeSet<String>, DbErr> {
    let statement = Statement::from_string(database.get_database_backend(), query);
    let rows = database.query_all_raw(statement).await?;
    rows.iter().map(|row| row.try_get("", "object")).collect()
}
