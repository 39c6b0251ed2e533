//! The audit log. A change writes its audit row in its own transaction. Refusals are recorded
//! afterwards (R14).

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set,
    sea_query::{Expr, ExprTrait as _, OnConflict},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    audit::{AuditAction, Details, Event, Outcome},
    caller::{Actor, Call, CallerKind},
    id::{self, EventUid, TokenUid},
    stack::StackKey,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    change_log::append::AT_ONCE,
    engine::transaction::Transaction,
    entity::audit_event::{ActiveModel, Column, Entity, Model},
    stack::access::{LockedStack, RemovedStacks},
};

/// A filter for audit events. Each field narrows the result, unless it is `None`.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only events of this stack. `None` selects the events of all stacks, which only operators may
    /// list.
    pub stack_key: Option<StackKey>,
    /// Only events of this token.
    pub token_uid: Option<TokenUid>,
    /// Only events of callers with this `iss`.
    pub actor_issuer: Option<String>,
    /// Only events of callers with this `sub`.
    pub actor_subject: Option<String>,
    /// Only events with this action.
    pub action: Option<AuditAction>,
    /// Only events at or after this instant.
    pub occurred_from: Option<Timestamp>,
    /// Only events before this instant.
    pub occurred_before: Option<Timestamp>,
}

/// The position of the last event on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCursor {
    at: i64,
    uid: Uuid,
}

/// A page of events, newest first.
#[derive(Debug)]
pub struct AuditPage {
    /// The events of the page.
    pub events: Vec<Event>,
    /// Where the next page begins. `None` on the last page.
    pub next: Option<AuditCursor>,
}

/// A refusal to record. Refusals with the same caller, action and reason within one minute share an
/// audit row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusalNote {
    /// Who was refused.
    pub actor: Actor,
    /// The action that was refused.
    pub action: AuditAction,
    /// The name of the reason in the API.
    pub reason: &'static str,
    /// The minute in which the call was refused.
    pub minute: Timestamp,
}

impl Store {
    /// Writes the audit row of a change, in the transaction of the change.
    pub(super) async fn append_audit(
        &self,
        tx: &Transaction,
        call: &Call,
        action: AuditAction,
        about: (&LockedStack, Option<TokenUid>),
        details: Details,
    ) -> Result<(), Error> {
        let row = self.audit_row(call, action, about, &details)?;
        taken(Entity::insert(row).exec_without_returning(tx).await)
    }

    /// Writes an audit row for each of these tokens of a stack. If there are no tokens, writes one
    /// row without a token, because the call itself must be recorded.
    pub(super) async fn append_audit_of_each(
        &self,
        tx: &Transaction,
        call: &Call,
        action: AuditAction,
        (stack, tokens): (&LockedStack, &[TokenUid]),
        details: &Details,
    ) -> Result<(), Error> {
        let row = |token| self.audit_row(call, action, (stack, token), details);
        let rows: Result<Vec<_>, _> = match tokens {
            [] => row(None).map(|row| vec![row]),
            _ => tokens.iter().map(|uid| row(Some(*uid))).collect(),
        };
        for some in rows?.chunks(AT_ONCE) {
            let some = Entity::insert_many(some.iter().cloned());
            taken(some.exec_without_returning(tx).await)?;
        }
        Ok(())
    }

    fn audit_row(
        &self,
        call: &Call,
        action: AuditAction,
        (stack, token): (&LockedStack, Option<TokenUid>),
        details: &Details,
    ) -> Result<ActiveModel, Error> {
        Ok(ActiveModel {
            uid: Set(
                id::generate::<id::EventKind>(stack.at, self.entropy.as_ref())?.into_untyped_uuid(),
            ),
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
            request_id: Set(call.request_id.clone()),
            details: Set(serde_json::to_string(details).unwrap_or_default()),
        })
    }

    /// Records refusals, each with the number of refusals since they were last recorded. The row
    /// has the stack, the token and the request id of the first refused call in its minute.
    ///
    /// # Errors
    /// Returns [`Error`] if the store cannot be written. Nothing was recorded then.
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
            request_id: Set(first.request_id.clone()),
            details: Set("{}".to_owned()),
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

    /// Returns a page of the audit log.
    ///
    /// # Errors
    /// Returns [`Error::Refused`] if the caller may not read the audit log.
    pub async fn list_audit(
        &self,
        call: &Call,
        filter: &AuditFilter,
        (size, after): (u64, Option<AuditCursor>),
    ) -> Result<AuditPage, Error> {
        read_tx!(self, call, "list_audit", |tx| {
            match &filter.stack_key {
                Some(key) => {
                    self.load_stack(tx, call, key, RemovedStacks::Include)
                        .await?;
                }
                None => call.requirement.judge(&call.caller, None)?,
            }
            let mut query = Entity::find().filter(condition(filter));
            if let Some(after) = after {
                let earlier = Column::OccurredAt.lt(after.at).or(Column::OccurredAt
                    .eq(after.at)
                    .and(Column::Uid.lt(after.uid)));
                query = query.filter(earlier);
            }
            let mut rows = query
                .order_by_desc(Column::OccurredAt)
                .order_by_desc(Column::Uid)
                .limit(size + 1)
                .all(tx)
                .await?;
            let more = rows.len() as u64 > size;
            rows.truncate(usize::try_from(size).unwrap_or(usize::MAX));
            let last = rows.last().filter(|_| more);
            let next = last.map(|row| AuditCursor {
                at: row.occurred_at,
                uid: row.uid,
            });
            let events: Result<_, _> = rows.into_iter().map(Event::try_from).collect();
            Ok(AuditPage {
                events: events?,
                next,
            })
        })
    }
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
    /// The id of the refused request.
    pub request_id: String,
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
    serde_json::to_string(&parts).unwrap_or_default()
}

fn taken<T>(inserted: Result<T, DbErr>) -> Result<(), Error> {
    match inserted {
        Ok(_) => Ok(()),
        // An unreachable or full store has its own error. It counts as an audit failure only if the
        // database rejects the statement on the audit table.
        Err(error) => Err(match Error::from(error) {
            Error::Database(source) => Error::AuditUnavailable(source),
            other => other,
        }),
    }
}

fn condition(filter: &AuditFilter) -> Condition {
    let stack = filter.stack_key.as_ref().map(StackKey::as_str);
    let token = filter.token_uid.map(|uid| uid.to_string());
    Condition::all()
        .add_option(stack.map(|key| Column::StackKey.eq(key)))
        .add_option(token.map(|uid| Column::TokenUid.eq(uid)))
        .add_option(
            filter
                .actor_issuer
                .as_ref()
                .map(|iss| Column::ActorIssuer.eq(iss)),
        )
        .add_option(
            filter
                .actor_subject
                .as_ref()
                .map(|sub| Column::ActorSubject.eq(sub)),
        )
        .add_option(filter.action.map(|action| Column::Action.eq(action.name())))
        .add_option(
            filter
                .occurred_from
                .map(|at| Column::OccurredAt.gte(at.as_micros())),
        )
        .add_option(
            filter
                .occurred_before
                .map(|at| Column::OccurredAt.lt(at.as_micros())),
        )
}

impl TryFrom<Model> for Event {
    type Error = Error;

    fn try_from(row: Model) -> Result<Self, Error> {
        let corrupt = |column| Error::Corrupt {
            table: "audit_events",
            column,
            id: row.uid.to_string(),
        };
        let details = serde_json::from_str(&row.details).map_err(|_| corrupt("details"))?;
        let count = u32::try_from(row.count).map_err(|_| corrupt("count"))?;
        let outcome = match row.refusal_reason.clone() {
            None => Outcome::Done(details),
            Some(reason) => Outcome::Refused { reason, count },
        };
        Ok(Self {
            uid: EventUid::from_untyped_uuid(row.uid),
            occurred_at: Timestamp::from_micros(row.occurred_at)
                .ok_or_else(|| corrupt("occurred_at"))?,
            actor: Actor {
                kind: CallerKind::from_name(&row.actor_kind)
                    .ok_or_else(|| corrupt("actor_kind"))?,
                issuer: row.actor_issuer,
                subject: row.actor_subject,
            },
            action: AuditAction::from_name(&row.action).ok_or_else(|| Error::Corrupt {
                table: "audit_events",
                column: "action",
                id: row.uid.to_string(),
            })?,
            outcome,
            stack_key: row.stack_key,
            token_uid: row.token_uid,
            request_id: row.request_id,
        })
    }
}
