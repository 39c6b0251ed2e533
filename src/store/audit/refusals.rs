//! Records refused calls in the audit log. Refusals with the same caller, action and reason within
//! one minute share an audit row.

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    EntityTrait as _, Set,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};

use crate::domain::{
    audit::{AuditAction, Details},
    caller::Actor,
    federation::Obstacle,
    id,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    engine::transaction::Transaction,
    entity::audit_event::{ActiveModel, Column, Entity},
};

/// A refusal to record. Refusals with the same caller, action and reason within one minute share an
/// audit row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusalNote {
    /// Who was refused.
    pub actor: Actor,
    /// The name that the operator gave the issuer, if a workload was refused. The `iss` is not
    /// enough, because two entries of the issuers file can have the same one.
    pub issuer: Option<String>,
    /// The action that was refused.
    pub action: AuditAction,
    /// The name of the reason in the API.
    pub reason: &'static str,
    /// The minute in which the call was refused.
    pub minute: Timestamp,
    /// The cause and the stack, if the response does not reveal them. Refusals with different
    /// causes have separate rows.
    pub hidden: Option<Hidden>,
}

/// The cause and the stack of a refusal whose response reveals neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hidden {
    /// The cause.
    pub obstacle: Obstacle,
    /// The stack that the caller named.
    pub stack_key: Option<String>,
}

/// The details of the first call that was refused in a minute.
#[derive(Clone, Debug)]
pub struct RefusedCall {
    /// When the call was refused.
    pub at: Timestamp,
    /// The stack that the caller named in the request.
    pub stack_key: Option<String>,
    /// The token that the caller named in the request.
    pub token_uid: Option<String>,
    /// The idempotency key of the request, if the caller sent one.
    pub request_id: Option<String>,
    /// The id of the refused call.
    pub call_id: String,
}

impl Store {
    /// Records refusals, each with the number of refusals since the last recording. A row keeps the
    /// stack, the token and the ids of the first call that was refused in its minute.
    ///
    /// # Errors
    /// Returns [`Error`] if the rows are not committed. The caller must record all of them again.
    pub async fn record_refusals(
        &self,
        refusals: &[(RefusalNote, RefusedCall, u32)],
    ) -> Result<(), Error> {
        write_tx!(self, "record_refusals", |tx| {
            for (note, first, count) in refusals {
                self.upsert_refusal(tx, note, first, *count).await?;
            }
            Ok(())
        })
    }

    async fn upsert_refusal(
        &self,
        tx: &Transaction,
        note: &RefusalNote,
        first: &RefusedCall,
        count: u32,
    ) -> Result<(), Error> {
        let uid = id::generate::<id::EventKind>(first.at, self.entropy.as_ref())?;
        let row = ActiveModel {
            uid: Set(uid.into_untyped_uuid()),
            occurred_at: Set(first.at.as_micros()),
            actor_kind: Set(note.actor.kind.name().to_owned()),
            actor_issuer: Set(note.actor.issuer.clone()),
            actor_subject: Set(note.actor.subject.clone()),
            action: Set(note.action.name().to_owned()),
            stack_key: Set(first.stack_key.clone()),
            token_uid: Set(first.token_uid.clone()),
            refusal_reason: Set(Some(note.reason.to_owned())),
            refusal_key: Set(Some(refusal_key(note))),
            count: Set(i32::try_from(count).unwrap_or(i32::MAX)),
            call_id: Set(first.call_id.clone()),
            details: Set(details(note)),
            idempotency_key: Set(first.request_id.clone()),
            state_before: Set(None),
            state_after: Set(None),
        };
        let add = Expr::col((Entity, Column::Count)).add(i32::try_from(count).unwrap_or(i32::MAX));
        let fold = OnConflict::column(Column::RefusalKey)
            .value(Column::Count, add)
            .to_owned();
        Entity::insert(row)
            .on_conflict(fold)
            .exec_without_returning(tx)
            .await?;
        Ok(())
    }
}

fn refusal_key(note: &RefusalNote) -> String {
    let parts = (
        note.actor.kind.name(),
        &note.actor.issuer,
        &note.actor.subject,
        note.action.name(),
        note.reason,
        note.minute.as_micros(),
    );
    let mut key = serde_json::to_string(&parts).unwrap_or_default();
    if let Some(issuer) = &note.issuer {
        key = format!("{key} {issuer}");
    }
    match &note.hidden {
        None => key,
        Some(hidden) => {
            let stack_key = hidden.stack_key.as_deref().unwrap_or_default();
            format!("{key} {} {stack_key}", hidden.obstacle.name())
        }
    }
}

fn details(note: &RefusalNote) -> String {
    let obstacle = |hidden: &Hidden| ("obstacle".to_owned(), hidden.obstacle.name().to_owned());
    let issuer = |name: &String| ("issuer".to_owned(), name.clone());
    let hidden = note.hidden.as_ref().map(obstacle);
    let issuer = note.issuer.as_ref().map(issuer);
    let details: Details = hidden.into_iter().chain(issuer).collect();
    serde_json::to_string(&details).unwrap_or_default()
}
