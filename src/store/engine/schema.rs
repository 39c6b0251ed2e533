//! Checks whether the store has the schema that this program needs, and migrates it.

use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _,
    SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
    sea_query::{Expr, Query},
};
use sea_orm_migration::{MigratorTrait as _, SchemaManager};

use crate::store::{
    Error, Location, Store,
    engine::pool,
    engine::transaction::Transaction,
    entity::meta,
    migration::{self, Migrator},
};

/// The table in which the migration library records the migrations that it has applied.
pub(in crate::store) const APPLIED: &str = "seaql_migrations";

/// The key of the advisory lock for migrations, "stacktok" in ASCII.
const MIGRATION_LOCK: i64 = 0x7374_6163_6b74_6f6b;

/// Deletes changes whose transaction ids were assigned by the database from which this one was
/// restored.
const FOREIGN: &str = "DELETE FROM changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())";

/// Records this database as the one that wrote the change log, if the role may read the system
/// identifier.
const ADOPT: &str = "DO $$ BEGIN \
    INSERT INTO meta (name, value) SELECT 'system', system_identifier FROM pg_control_system() \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value; \
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN \
    DELETE FROM meta WHERE name = 'system'; END $$";

/// Deletes the incarnation number, because it may have been copied together with the rows from
/// another database.
const RENAME: &str = "DELETE FROM incarnation";

/// The migrations that are applied to the store, compared with those that this program knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Migrations that are applied and known to this program.
    pub applied: Vec<String>,
    /// Migrations that this program knows but that are not yet applied.
    pub pending: Vec<String>,
    /// Migrations that are applied but unknown to this program, because a newer version applied
    /// them.
    pub unknown: Vec<String>,
    /// Tables and indexes of the applied migrations that do not exist, such as `index
    /// tokens_live_name`. Filled only if no migration is pending or unknown.
    pub missing: Vec<String>,
}

/// Why this program cannot serve with the schema of the store.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The schema is older than this program needs.
    #[error("the schema lacks {0}: run `stacktoken migrate up` first")]
    Older(String),
    /// The schema is newer than this program knows.
    #[error("the schema has {0}, which this version does not know: run a newer stacktoken")]
    Newer(String),
    /// The migrations are applied, but tables or indexes are missing.
    #[error(
        "the schema lacks {0}, although its migrations are applied: create it again as in another \
         database that this version migrated, or restore a backup"
    )]
    Drifted(String),
    /// The schema could not be read or changed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Store {
    /// Returns which migrations are applied, which are pending, and what is missing. Changes
    /// nothing.
    ///
    /// # Errors
    /// Returns [`Error`] if the store cannot be read.
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
            .collect::<Vec<_>>();
        let missing = if pending.is_empty() && unknown.is_empty() {
            self.missing_objects().await?
        } else {
            Vec::new()
        };
        Ok(Schema {
            applied,
            pending,
            unknown,
            missing,
        })
    }

    /// Applies the pending migrations. If the program ends or a statement fails meanwhile, then on
    /// SQLite none of them is applied, and on PostgreSQL each is applied as a whole or not at all.
    /// Returns the schema as it was before the migration.
    ///
    /// # Errors
    /// Returns [`SchemaError::Newer`] if a newer version has migrated the store, otherwise
    /// [`SchemaError::Store`].
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

    /// Applies the pending migrations. On PostgreSQL only one process migrates at a time, and the
    /// others wait.
    async fn apply(&self) -> Result<(), sea_orm::DbErr> {
        match &self.location {
            Location::Sqlite(_) => migrate_at_once(&self.pools.load().writer).await,
            Location::Postgres(urls) => {
                let alone = pool::migrating(urls).await?;
                let lock = format!("SELECT pg_advisory_lock({MIGRATION_LOCK})");
                alone.execute_unprepared(&lock).await?;
                let done = Migrator::up(&alone, None).await;
                // Closing the session releases the lock.
                alone.close().await?;
                done
            }
        }
    }

    /// Checks that this program can serve with this schema, and reads the epoch of the change log.
    ///
    /// # Errors
    /// Returns [`SchemaError`], whose message names the command to run.
    pub async fn require_current_schema(&self) -> Result<(), SchemaError> {
        let schema = self.schema().await?;
        if !schema.unknown.is_empty() {
            return Err(SchemaError::Newer(schema.unknown.join(", ")));
        }
        if !schema.pending.is_empty() {
            return Err(SchemaError::Older(schema.pending.join(", ")));
        }
        if !schema.missing.is_empty() {
            return Err(SchemaError::Drifted(schema.missing.join(", ")));
        }
        let epoch = self.read_epoch().await?;
        self.epoch
            .store(epoch, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Starts a new epoch of the change log, for use after a restore. Positions of the former
    /// epoch, and the position up to which it was purged, then mean nothing. Also deletes rows with
    /// transaction ids that this database has not assigned yet, because another database wrote
    /// them.
    ///
    /// # Errors
    /// Returns [`Error`] if the change is not committed.
    pub async fn renew_epoch(&self) -> Result<(), Error> {
        let epoch = self.new_epoch()?;
        write_tx!(self, "renew_epoch", |tx| {
            self.renew_epoch_in(tx, epoch).await
        })
    }

    /// Returns a random number for a new epoch.
    pub(in crate::store) fn new_epoch(&self) -> Result<i64, Error> {
        let mut random = [0; 8];
        self.entropy.fill(&mut random)?;
        Ok(i64::from_be_bytes(random))
    }

    /// Starts an epoch as [`Self::renew_epoch`] does, in this transaction.
    pub(in crate::store) async fn renew_epoch_in(
        &self,
        tx: &Transaction,
        epoch: i64,
    ) -> Result<(), Error> {
        for (name, value) in [("epoch", epoch), ("purged", 0)] {
            meta::Entity::update_many()
                .col_expr(meta::Column::Value, Expr::val(value))
                .filter(meta::Column::Name.eq(name))
                .exec(tx)
                .await?;
        }
        if self.has_other_writers() {
            let [former, tables] = migration::record_table_ids();
            for statement in [FOREIGN, ADOPT, &former, &tables, RENAME] {
                tx.execute_unprepared(statement).await?;
            }
        }
        Ok(())
    }

    pub(in crate::store) async fn read_epoch(&self) -> Result<i64, Error> {
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

/// Applies the pending migrations in one transaction. On SQLite, the migration library would
/// otherwise commit each statement. An interrupted migration could then not be repeated, and every
/// commit would wait for the disk.
pub(in crate::store) async fn migrate_at_once(
    database: &sea_orm::DatabaseConnection,
) -> Result<(), sea_orm::DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = database.begin_with_options(options).await?;
    Migrator::up(&transaction, None).await?;
    transaction.commit().await
}
