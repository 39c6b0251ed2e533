//! A secret of a token, and its state. A token is found by the SHA-256 of its secret. Nothing else
//! of the secret is stored (R9). At most two secrets of a token are valid at a time.

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
    /// The last four characters. `None` for a secret that an older version stored.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
