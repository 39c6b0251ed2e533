//! Adds the last four characters of each secret, so that an owner can distinguish the two secrets
//! of a token during a rotation. Until now only the newest secret's last characters were stored, in
//! the row of the token. It only adds a column, so that the previous version can run next to this
//! one.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbErr},
    sea_query::{ColumnDef, Table},
};

pub struct Hints;

impl MigrationName for Hints {
    fn name(&self) -> &'static str {
        "m20261129_000008_hints"
    }
}

/// Fills the column for the newest secret of each token. Former secrets stay without a hint.
const FILL: &str = "UPDATE token_secrets SET hint = (SELECT tokens.secret_hint FROM tokens \
     WHERE tokens.uid = token_secrets.token_uid AND tokens.generation = token_secrets.generation)";

#[async_trait::async_trait]
impl MigrationTrait for Hints {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let alter = Table::alter()
            .table("token_secrets")
            .add_column(ColumnDef::new("hint").text().take())
            .take();
        manager.alter_table(alter).await?;
        manager.get_connection().execute_unprepared(FILL).await?;
        Ok(())
    }
}
