//! The migrations of the schema, which only go forward. New tables and columns are added first, and
//! old ones are removed one version later, so that two successive versions of the program can run
//! side by side.

mod m20261124_000001_first;
mod m20261124_000002_rotation;
mod m20261124_000003_usage;
mod m20261129_000004_instants;
mod m20261129_000005_origin;
mod m20261129_000006_expiring;
mod m20261129_000007_tables;
mod m20261129_000008_hints;
mod m20261129_000009_replays;
mod m20261129_000010_audit;
mod m20261129_000011_labels;
mod m20261130_000012_everywhere;
mod m20261130_000013_federation;

pub(super) use self::m20261130_000013_federation::{
    TABLE_IDS, ids as table_ids, ids_now as table_ids_now, record_ids as record_table_ids,
};

use sea_orm_migration::{MigrationTrait, MigratorTrait, async_trait};

/// All migrations, in the order in which they are applied.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_first::First),
            Box::new(m20261124_000002_rotation::Rotation),
            Box::new(m20261124_000003_usage::Usage),
            Box::new(m20261129_000004_instants::Instants),
            Box::new(m20261129_000005_origin::Origin),
            Box::new(m20261129_000006_expiring::Expiring),
            Box::new(m20261129_000007_tables::Tables),
            Box::new(m20261129_000008_hints::Hints),
            Box::new(m20261129_000009_replays::Replays),
            Box::new(m20261129_000010_audit::Audit),
            Box::new(m20261129_000011_labels::Labels),
            Box::new(m20261130_000012_everywhere::Everywhere),
            Box::new(m20261130_000013_federation::Federation),
        ]
    }
}

#[cfg(test)]
#[path = "filled_tests.rs"]
mod tests;
