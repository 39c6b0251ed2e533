//! A workload's assertion that was exchanged and is valid for one exchange only. `key` is a hash of
//! its issuer and its id, and `content` a fingerprint of its claims and of the request. Both are
//! stored only to be compared.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "assertions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: Vec<u8>,
    pub content: Vec<u8>,
    /// The session that it was exchanged for, by the digest of its newest secret.
    pub session_digest: Vec<u8>,
    pub first_seen_at: i64,
    /// When it need not be remembered any more.
    pub expires_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
