//! Adds to the audit log the state before and after a change, the idempotency key of its request,
//! and indexes for the filters. It only adds nullable columns and indexes, so that the previous
//! version can run next to this one.

use sea_orm_migration::{
    MigrationName, MigrationTrait, SchemaManager, async_trait,
    sea_orm::{ConnectionTrait, DbErr},
};

pub struct Audit;

impl MigrationName for Audit {
    fn name(&self) -> &'static str {
        "m20261129_000010_audit"
    }
}

/// Each index ends with the columns by which a page is sorted, so that the first page of a filter
/// is read without a sort. Indexes on columns that are null in most rows are partial.
const STATEMENTS: [&str; 10] = [
    "ALTER TABLE audit_events ADD COLUMN idempotency_key TEXT",
    "ALTER TABLE audit_events ADD COLUMN state_before TEXT",
    "ALTER TABLE audit_events ADD COLUMN state_after TEXT",
    "CREATE INDEX audit_events_by_token ON audit_events (token_uid, occurred_at, uid) \
     WHERE token_uid IS NOT NULL",
    "CREATE INDEX audit_events_by_actor \
     ON audit_events (actor_issuer, actor_subject, occurred_at, uid)",
    "CREATE INDEX audit_events_by_action ON audit_events (action, occurred_at, uid)",
    "CREATE INDEX audit_events_by_reason ON audit_events (refusal_reason, occurred_at, uid) \
     WHERE refusal_reason IS NOT NULL",
    "CREATE INDEX audit_events_refused ON audit_events (occurred_at, uid) \
     WHERE refusal_reason IS NOT NULL",
    "CREATE INDEX audit_events_by_call ON audit_events (request_id, occurred_at, uid)",
    "CREATE INDEX audit_events_by_key ON audit_events (idempotency_key, occurred_at, uid) \
     WHERE idempotency_key IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Audit {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in STATEMENTS {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}
