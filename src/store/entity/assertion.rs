//! A workload's assertion that was exchanged and is valid for only one exchange. `key` is a hash of
//! the assertion's issuer and id, and `content` is a fingerprint of its claims and of the request.
//! Both are stored only to be compared.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "assertions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: Vec<u8>,
    pub content: Vec<u8>,
    /// The digest of the newest secret of the session that the assertion was exchanged for.
    pub session_digest: Vec<u8>,
    pub first_seen_at: i64,
    /// Until when the assertion must be remembered, so that it cannot be exchanged twice.
    pub expires_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
