//! Adds the identity of the database, on PostgreSQL only. It consists of a row that a crash or a
//! promotion deletes, and the identifier of the database cluster that wrote the change log.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbBackend, DbErr},
};

pub struct Origin;

impl MigrationName for Origin {
    fn name(&self) -> &'static str {
        "m20261129_000005_origin"
    }
}

/// The table is unlogged, because crash recovery and promotion must empty it.
const INCARNATION: &str = "CREATE UNLOGGED TABLE incarnation \
    (one boolean PRIMARY KEY DEFAULT TRUE CHECK (one), nonce bigint NOT NULL)";

/// Stores the system identifier if the role may read it. This runs in a block with an exception
/// handler, because an error would abort the transaction of the migration.
const SYSTEM: &str = "DO $$ BEGIN \
    INSERT INTO meta (name, value) SELECT 'system', system_identifier FROM pg_control_system(); \
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN \
    NULL; END $$";

#[async_trait::async_trait]
impl MigrationTrait for Origin {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() != DbBackend::Postgres {
            return Ok(());
        }
        for statement in [INCARNATION, SYSTEM] {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}
