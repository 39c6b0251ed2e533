//! When a service last used a token. A token counts as used when a service gets the answer that the
//! token is active.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "token_usage")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub token_uid: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service_issuer: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub service_subject: String,
    pub last_used_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
