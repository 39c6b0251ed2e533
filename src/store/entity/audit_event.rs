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
    /// The id of the call. The column is named as in the first version of the schema.
    #[sea_orm(column_name = "request_id")]
    pub call_id: String,
    /// Details that `state_before` and `state_after` do not show. In rows of earlier versions, all
    /// details.
    pub details: String,
    /// The `request_id` of the request. `None` if the caller sent none, and in rows of earlier
    /// versions.
    pub idempotency_key: Option<String>,
    /// The subject before and after the change, as JSON; see `store/audit/snapshot.rs`.
    pub state_before: Option<String>,
    pub state_after: Option<String>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
