//! Adds the instant of the last change of a stack, so that instants within one stack never
//! decrease. It only adds a column, so that the previous version can run next to this one.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::DbErr,
    sea_query::{ColumnDef, Table},
};

pub struct Instants;

impl MigrationName for Instants {
    fn name(&self) -> &'static str {
        "m20261129_000004_instants"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Instants {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = ColumnDef::new("last_changed_at")
            .big_integer()
            .not_null()
            .default(0)
            .take();
        let alter = Table::alter().table("stacks").add_column(column).take();
        manager.alter_table(alter).await
    }
}
