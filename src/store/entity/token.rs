//! A token. A partial unique index keeps the names of live tokens unique within a stack.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uid: Uuid,
    pub stack_uid: Uuid,
    pub name: String,
    pub description: String,
    pub permissions: String,
    pub generation: i32,
    pub secret_hint: String,
    pub issued_at: i64,
    pub issued_by_kind: String,
    pub issued_by_issuer: String,
    pub issued_by_subject: String,
    pub expires_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub revoked_at: Option<i64>,
    pub revoked_by_kind: Option<String>,
    pub revoked_by_issuer: Option<String>,
    pub revoked_by_subject: Option<String>,
    pub revoke_reason: String,
    /// The smallest number of days for which the upcoming expiry was reported.
    pub expiry_told: Option<i32>,
    /// A JSON object whose values are strings.
    pub labels: String,
    /// The rules for which workloads may obtain secrets, as JSON. `None` if the token has its own
    /// secrets.
    pub federation: Option<String>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
