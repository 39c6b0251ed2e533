//! A stack. Instants are stored as microseconds since the Unix epoch, in this table and in all
//! others.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "stacks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub key: String,
    pub name: String,
    pub organization_uid: String,
    pub token_limit: i32,
    pub registered_at: i64,
    pub suspended_at: Option<i64>,
    pub removed_at: Option<i64>,
    /// The instant of the last change of the stack or of anything in it. 0 if nothing was changed
    /// since this column was added.
    pub last_changed_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
