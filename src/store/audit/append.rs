//! Writes the audit row of a change in the transaction of that change.

use newtype_uuid::GenericUuid as _;
use sea_orm::{EntityTrait as _, QueryTrait as _, Set};

use super::{snapshot, written};
use crate::domain::{
    audit::{AuditAction, Change, Details, Snapshot},
    caller::Call,
    id::{self, TokenUid},
    request::Request,
};
use crate::store::{
    Error, Store,
    change_log::append::AT_ONCE,
    engine::transaction::{Affects, Transaction},
    entity::audit_event::{ActiveModel, Entity},
    stack::access::LockedStack,
};

/// The part of an audit row that describes the change itself, and the idempotency key.
#[derive(Clone, Default)]
pub(in crate::store) struct Record {
    change: Change,
    request_id: Option<String>,
}

impl From<Details> for Record {
    fn from(details: Details) -> Self {
        Self::default().with(details)
    }
}

impl Record {
    /// Returns what the change did.
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// Returns the record of a change that created something.
    pub fn made(after: impl Into<Snapshot>) -> Self {
        Self::of(None, Some(after.into()))
    }

    /// Returns the record of a change to something that existed before.
    pub fn changed(before: impl Into<Snapshot>, after: impl Into<Snapshot>) -> Self {
        Self::of(Some(before.into()), Some(after.into()))
    }

    /// Returns a record with the state before the change, the state after it, or both.
    pub fn of(before: Option<Snapshot>, after: Option<Snapshot>) -> Self {
        let change = Change {
            before,
            after,
            details: Details::new(),
        };
        Self {
            change,
            request_id: None,
        }
    }

    /// Adds the idempotency key of the request.
    pub fn asked_by(mut self, request: Option<&Request>) -> Self {
        self.request_id = request.map(|request| request.id.clone());
        self
    }

    /// Sets the details, which are facts that the snapshots do not contain.
    pub fn with(mut self, details: Details) -> Self {
        self.change.details = details;
        self
    }
}

impl Store {
    /// Writes the audit row of a change, in the transaction of the change.
    pub(in crate::store) async fn append_audit(
        &self,
        tx: &Transaction,
        call: &Call,
        action: AuditAction,
        about: (&LockedStack, Option<TokenUid>),
        record: impl Into<Record>,
    ) -> Result<(), Error> {
        let row = self.audit_row(call, action, about, &record.into())?;
        written(Entity::insert(row).exec_without_returning(tx).await)
    }

    /// Writes the audit row of a change like [`Self::append_audit`], but may delay the row until
    /// the next statement of the transaction, to save a round trip.
    pub(in crate::store) async fn append_audit_later(
        &self,
        tx: &Transaction,
        call: &Call,
        action: AuditAction,
        about: (&LockedStack, Option<TokenUid>),
        record: impl Into<Record>,
    ) -> Result<(), Error> {
        let row = self.audit_row(call, action, about, &record.into())?;
        let row = Entity::insert(row).build(self.backend());
        written(tx.write(row, Affects::Any).await)
    }

    /// Writes an audit row for each of these tokens of a stack. If there are no tokens, writes one
    /// row without a token, `of_none`, because the call itself must be recorded.
    pub(in crate::store) async fn append_audit_of_each(
        &self,
        tx: &Transaction,
        call: &Call,
        action: AuditAction,
        (stack, tokens): (&LockedStack, &[(TokenUid, Record)]),
        of_none: &Record,
    ) -> Result<(), Error> {
        let row = |token, record: &Record| self.audit_row(call, action, (stack, token), record);
        let rows: Result<Vec<_>, _> = match tokens {
            [] => row(None, of_none).map(|row| vec![row]),
            _ => tokens
                .iter()
                .map(|(uid, record)| row(Some(*uid), record))
                .collect(),
        };
        for some in rows?.chunks(AT_ONCE) {
            let some = Entity::insert_many(some.iter().cloned());
            written(some.exec_without_returning(tx).await)?;
        }
        Ok(())
    }

    /// Writes the audit row of a new restore guard, which concerns no stack.
    pub(in crate::store) async fn append_audit_of_guard(
        &self,
        tx: &Transaction,
        call: &Call,
    ) -> Result<(), Error> {
        let at = self.clock.now();
        let actor = call.caller.actor.clone();
        let row = ActiveModel {
            uid: Set(id::generate::<id::EventKind>(at, self.entropy.as_ref())?.into_untyped_uuid()),
            occurred_at: Set(at.as_micros()),
            actor_kind: Set(actor.kind.name().to_owned()),
            actor_issuer: Set(actor.issuer),
            actor_subject: Set(actor.subject),
            action: Set(AuditAction::NewGuard.name().to_owned()),
            count: Set(1),
            call_id: Set(call.request_id.clone()),
            details: Set("{}".to_owned()),
            ..<ActiveModel as Default>::default()
        };
        written(Entity::insert(row).exec_without_returning(tx).await)
    }

    fn audit_row(
        &self,
        call: &Call,
        action: AuditAction,
        (stack, token): (&LockedStack, Option<TokenUid>),
        record: &Record,
    ) -> Result<ActiveModel, Error> {
        let uid = id::generate::<id::EventKind>(stack.at, self.entropy.as_ref())?;
        let Change {
            before,
            after,
            details,
        } = &record.change;
        Ok(ActiveModel {
            uid: Set(uid.into_untyped_uuid()),
            occurred_at: Set(stack.at.as_micros()),
            actor_kind: Set(call.caller.actor.kind.name().to_owned()),
            actor_issuer: Set(call.caller.actor.issuer.clone()),
            actor_subject: Set(call.caller.actor.subject.clone()),
            action: Set(action.name().to_owned()),
            stack_key: Set(Some(stack.row.key.clone())),
            token_uid: Set(token.map(|uid| uid.to_string())),
            refusal_reason: Set(None),
            refusal_key: Set(None),
            count: Set(1),
            call_id: Set(call.request_id.clone()),
            details: Set(serde_json::to_string(details).unwrap_or_default()),
            idempotency_key: Set(record.request_id.clone()),
            state_before: Set(before.as_ref().map(snapshot::write)),
            state_after: Set(after.as_ref().map(snapshot::write)),
        })
    }
}
