//! The audit log (R14). Refusals with the same `refusal_key`, which contains the minute, share a
//! row.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub occurred_at: i64,
    pub actor_kind: String,
    pub actor_issuer: String,
    pub actor_subject: String,
    pub action: String,
    pub stack_key: Option<String>,
    pub token_uid: Option<String>,
    pub refusal_reason: Option<String>,
    pub refusal_key: Option<String>,
    pub count: i32,
    pub request_id: String,
    pub details: String,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
