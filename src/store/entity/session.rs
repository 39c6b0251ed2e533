//! A session of a federated token. It is found by the SHA-256 of its secret. Nothing else of the
//! secret is stored (R9).

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: Vec<u8>,
    pub token_uid: Uuid,
    /// The workload, identified by ids that its issuer assigned.
    pub subject: String,
    /// The permissions to which the session is limited, as JSON. `None` if it has all permissions
    /// of its token.
    pub narrow: Option<String>,
    pub issued_at: i64,
    pub expires_at: i64,
    pub first_used_at: Option<i64>,
    /// When the session was ended before `expires_at`.
    pub ended_at: Option<i64>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
