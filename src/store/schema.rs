//! Whether the schema is the one this program was written for.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _,
    sea_query::{Expr, Query},
};
use sea_orm_migration::{MigratorTrait as _, SchemaManager};

use super::{
    Error, Location, Store, connect,
    entity::meta,
    migration::{Migrator, TABLE_IDS},
};

/// Where the migration library keeps what it has applied.
const APPLIED: &str = "seaql_migrations";

/// The advisory lock of migrators: a number of our own, "stacktok" in ASCII.
const MIGRATION_LOCK: i64 = 0x7374_6163_6b74_6f6b;

/// Changes that another database numbered, from which this one was restored.
const FOREIGN: &str = "DELETE FROM changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())";

/// The history is this database's from now on, if it says which it is.
const ADOPT: &str = "DO $$ BEGIN \
    INSERT INTO meta (name, value) SELECT 'system', system_identifier FROM pg_control_system() \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value; \
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN \
    DELETE FROM meta WHERE name = 'system'; END $$";

/// The name may have come with the rows of another database.
const RENAME: &str = "DELETE FROM incarnation";

/// What stands in the store against what this program knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Applied and known.
    pub applied: Vec<String>,
    /// Known, not yet applied.
    pub pending: Vec<String>,
    /// Applied, and unknown to this program: a newer one was here.
    pub unknown: Vec<String>,
}

/// Why a schema cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Older than this program needs.
    #[error("the schema lacks {0}: run `stacktoken migrate up` first")]
    Older(String),
    /// Newer than this program knows.
    #[error("the schema has {0}, which this version does not know: run a newer stacktoken")]
    Newer(String),
    /// It could not be read or changed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Store {
    /// What is applied and what is not; changes nothing.
    ///
    /// # Errors
    /// [`Error`] where the store cannot be read.
    pub async fn schema(&self) -> Result<Schema, Error> {
        let names = |migrations: Vec<Box<dyn sea_orm_migration::MigrationTrait>>| {
            migrations.iter().map(|m| m.name().to_owned()).collect()
        };
        let known: Vec<String> = names(Migrator::migrations());
        let found = self.applied_migrations().await?;
        let (applied, unknown): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|name| known.contains(name));
        let pending = known
            .into_iter()
            .filter(|name| !applied.contains(name))
            .collect();
        Ok(Schema {
            applied,
            pending,
            unknown,
        })
    }

    /// Applies what is pending, each migration in a transaction of its own.
    ///
    /// # Errors
    /// [`SchemaError::Newer`] where a newer program was here; else [`SchemaError::Store`].
    pub async fn migrate(&self) -> Result<Schema, SchemaError> {
        let before = self.schema().await?;
        if !before.unknown.is_empty() {
            return Err(SchemaError::Newer(before.unknown.join(", ")));
        }
        if !before.pending.is_empty() {
            self.apply().await.map_err(Error::from)?;
        }
        Ok(before)
    }

    /// On PostgreSQL one migrator at a time: the others wait, and find nothing left to do.
    async fn apply(&self) -> Result<(), sea_orm::DbErr> {
        match &self.location {
            Location::Sqlite(_) => Migrator::up(&self.pools.load().writer, None).await,
            Location::Postgres(urls) => {
                let alone = connect::migrating(urls).await?;
                let lock = format!("SELECT pg_advisory_lock({MIGRATION_LOCK})");
                alone.execute_unprepared(&lock).await?;
                let done = Migrator::up(&alone, None).await;
                // The lock is the session's and goes with it.
                alone.close().await?;
                done
            }
        }
    }

    /// That this program can serve this schema; learns the store's epoch.
    ///
    /// # Errors
    /// [`SchemaError`], which names the command to run.
    pub async fn require_current_schema(&self) -> Result<(), SchemaError> {
        let schema = self.schema().await?;
        if !schema.unknown.is_empty() {
            return Err(SchemaError::Newer(schema.unknown.join(", ")));
        }
        if !schema.pending.is_empty() {
            return Err(SchemaError::Older(schema.pending.join(", ")));
        }
        let epoch = self.read_epoch().await?;
        self.epoch
            .store(epoch, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Begins another history: after a restore, positions of the former one mean nothing, nor
    /// does up to where it was purged. Rows of transactions that are yet to come were made by
    /// another database.
    ///
    /// # Errors
    /// [`Error`] where the store cannot be written.
    pub async fn renew_epoch(&self) -> Result<(), Error> {
        let mut random = [0; 8];
        self.entropy.fill(&mut random)?;
        writing!(self, "renew_epoch", |tx| {
            for (name, value) in [("epoch", i64::from_be_bytes(random)), ("purged", 0)] {
                meta::Entity::update_many()
                    .col_expr(meta::Column::Value, Expr::val(value))
                    .filter(meta::Column::Name.eq(name))
                    .exec(tx)
                    .await?;
            }
            if self.is_shared() {
                let tables = format!(
                    "INSERT INTO meta (name, value) SELECT 'tables', {TABLE_IDS} \
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value"
                );
                for statement in [FOREIGN, ADOPT, &tables, RENAME] {
                    tx.execute_unprepared(statement).await?;
                }
            }
            Ok(())
        })
    }

    async fn read_epoch(&self) -> Result<i64, Error> {
        let row = meta::Entity::find_by_id("epoch")
            .one(&self.pools.load().writer)
            .await?;
        row.map(|row| row.value).ok_or(Error::Corrupt {
            table: "meta",
            column: "epoch",
            id: "(missing)".to_owned(),
        })
    }

    async fn applied_migrations(&self) -> Result<Vec<String>, Error> {
        let pools = self.pools.load();
        if !SchemaManager::new(&pools.writer).has_table(APPLIED).await? {
            return Ok(Vec::new());
        }
        let query = Query::select()
            .column("version")
            .from(APPLIED)
            .order_by("version", sea_orm::Order::Asc)
            .take();
        let rows = pools.writer.query_all(&query).await?;
        let version = |row: sea_orm::QueryResult| row.try_get("", "version").map_err(Error::from);
        rows.into_iter().map(version).collect()
    }
}
