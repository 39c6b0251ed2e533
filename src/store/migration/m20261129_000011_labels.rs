//! Adds the labels of a token, as a JSON object whose values are strings. It only adds a column, so
//! that the previous version can run next to this one. Tokens that the previous version issues have
//! no labels, and its changes keep existing labels.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::DbErr,
    sea_query::{ColumnDef, Table},
};

pub struct Labels;

impl MigrationName for Labels {
    fn name(&self) -> &'static str {
        "m20261129_000011_labels"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Labels {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = ColumnDef::new("labels")
            .text()
            .not_null()
            .default("{}")
            .take();
        let alter = Table::alter().table("tokens").add_column(column).take();
        manager.alter_table(alter).await
    }
}
