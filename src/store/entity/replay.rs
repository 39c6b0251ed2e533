//! The result of a call with an idempotency key. `content` is a fingerprint of the request, and is
//! stored only to be compared. `answer` is the result as JSON. `stack_key` is empty if the call
//! does not concern a single stack.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "replays")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub stack_key: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller_issuer: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller_subject: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub rpc: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: String,
    pub content: Vec<u8>,
    pub answer: String,
    pub first_seen_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
