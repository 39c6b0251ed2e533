//! What a token is looked up by: the SHA-256 of its secret, and nothing else of it (R9). Also the
//! state of the secret: at most two of a token are live.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "token_secrets")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Vec<u8>,
    pub token_uid: Uuid,
    pub generation: i32,
    pub made_at: i64,
    pub ends_at: Option<i64>,
    pub until_first_use: bool,
    pub superseded_at: Option<i64>,
    pub first_used_at: Option<i64>,
    pub presented_at: Option<i64>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
