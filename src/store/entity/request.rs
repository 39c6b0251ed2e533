//! A request with an idempotency key, and its result. `content` is a fingerprint of the request.
//! `token_state` is a fingerprint of the token at the time of the response. Both are stored only to
//! be compared.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "requests")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub stack_uid: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller_issuer: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller_subject: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub rpc: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub request_id: String,
    pub content: Vec<u8>,
    pub token_uid: Uuid,
    pub generation: i32,
    pub token_state: Vec<u8>,
    pub overlap_ends_at: Option<i64>,
    pub first_seen_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
