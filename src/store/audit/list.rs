//! Lists the audit log.

use std::mem;

use newtype_uuid::GenericUuid as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, FromQueryResult, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Value,
    sea_query::{Expr, ExprTrait as _, SimpleExpr},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::snapshot;
use crate::domain::{
    audit::{AuditAction, Change, Event, Outcome},
    caller::{Actor, Call, CallerKind},
    id::{EventUid, TokenUid},
    page,
    stack::StackKey,
    timestamp::Timestamp,
};
use crate::store::{
    Error, Store,
    engine::transaction::Transaction,
    entity::audit_event::{Column, Entity, Model},
    stack::access::RemovedStacks,
    token::rows::corrupt,
};

/// A filter for audit events. Each field narrows the result, unless it is `None` or empty. The
/// values of one field are alternatives.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only events of this stack. `None` selects the events of all stacks, which only operators may
    /// list.
    pub stack_key: Option<StackKey>,
    /// Only events with one of these actions. With an empty list no event matches.
    pub actions: Option<Vec<AuditAction>>,
    /// Only refusals, or only completed calls.
    pub refused: Option<bool>,
    /// Only refusals with one of these reasons, given as their names in the API without the prefix.
    pub error_reasons: Vec<String>,
    /// Only events of these tokens.
    pub token_uids: Vec<TokenUid>,
    /// Only events of these callers.
    pub actors: Vec<AuditActor>,
    /// Only events of requests with this idempotency key.
    pub request_id: Option<String>,
    /// Only events of the call with this id.
    pub call_id: Option<String>,
    /// Only events at or after this instant.
    pub occurred_from: Option<Timestamp>,
    /// Only events before this instant.
    pub occurred_before: Option<Timestamp>,
}

/// One caller, or every caller of an issuer, in an [`AuditFilter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditActor {
    /// The `iss` of the caller.
    pub issuer: String,
    /// The `sub` of the caller. `None` selects every caller of the issuer.
    pub subject: Option<String>,
}

/// The position of the last event on a page.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, FromQueryResult,
)]
pub struct AuditCursor {
    #[sea_orm(from_alias = "occurred_at")]
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

impl Store {
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
                None => call.requirement.check(&call.caller, None)?,
            }
            let (mut keys, (branches, rest)) = (Vec::new(), branches(filter));
            for branch in branches {
                let matching = branch.add(condition(&rest));
                keys.extend(keys_of(tx, matching, after, size + 1).await?);
            }
            keys.sort_unstable_by(|one, other| other.cmp(one));
            // An event can match several values, such as an issuer and a caller of this issuer.
            keys.dedup();
            let next = page::cut(&mut keys, size, |key| *key);
            let rows = rows_of(tx, &keys).await?;
            let events: Result<_, _> = rows.into_iter().map(Event::try_from).collect();
            Ok(AuditPage {
                events: events?,
                next,
            })
        })
    }
}

/// Returns the positions of the newest events that match, at most `most` of them.
async fn keys_of(
    tx: &Transaction,
    matching: Condition,
    after: Option<AuditCursor>,
    most: u64,
) -> Result<Vec<AuditCursor>, Error> {
    let mut query = Entity::find()
        .select_only()
        .columns([Column::OccurredAt, Column::Uid])
        .filter(matching);
    if let Some(after) = after {
        // This is a single comparison of row values, so that every index that ends with these
        // columns can be scanned as a range.
        let key = Expr::tuple([Expr::col(Column::OccurredAt), Expr::col(Column::Uid)]);
        let last = Expr::tuple([Expr::value(after.at), Expr::value(after.uid)]);
        query = query.filter(key.lt(last));
    }
    let keys = query
        .order_by_desc(Column::OccurredAt)
        .order_by_desc(Column::Uid)
        .limit(most)
        .into_model::<AuditCursor>()
        .all(tx)
        .await?;
    Ok(keys)
}

/// Returns the rows at these positions, the newest first.
async fn rows_of(tx: &Transaction, keys: &[AuditCursor]) -> Result<Vec<Model>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Entity::find()
        .filter(Column::Uid.is_in(keys.iter().map(|key| key.uid)))
        .order_by_desc(Column::OccurredAt)
        .order_by_desc(Column::Uid)
        .all(tx)
        .await?;
    Ok(rows)
}

/// Splits the filter by the values of the field with the most selective index. Returns one
/// condition per value, and the rest of the filter. A query for a single value reads the events
/// from the index in page order. With several values in one query, the database would instead read
/// all events in the order of their time.
fn branches(filter: &AuditFilter) -> (Vec<Condition>, AuditFilter) {
    let mut rest = filter.clone();
    let tokens = mem::take(&mut rest.token_uids);
    if !tokens.is_empty() {
        let tokens = tokens.iter().map(ToString::to_string);
        return (each(Column::TokenUid, tokens), rest);
    }
    if rest.stack_key.is_some() || rest.call_id.is_some() || rest.request_id.is_some() {
        return (vec![Condition::all()], rest);
    }
    let reasons = mem::take(&mut rest.error_reasons);
    if !reasons.is_empty() {
        return (each(Column::RefusalReason, reasons.into_iter()), rest);
    }
    let actors = mem::take(&mut rest.actors);
    if !actors.is_empty() {
        return (actors.iter().map(actor).collect(), rest);
    }
    match rest.actions.take_if(|actions| !actions.is_empty()) {
        Some(actions) => {
            let names = actions.iter().map(|action| action.name().to_owned());
            (each(Column::Action, names), rest)
        }
        None => (vec![Condition::all()], rest),
    }
}

fn each(column: Column, values: impl Iterator<Item = String>) -> Vec<Condition> {
    values
        .map(|value| Condition::all().add(column.eq(value)))
        .collect()
}

fn condition(filter: &AuditFilter) -> Condition {
    let stack = filter.stack_key.as_ref().map(StackKey::as_str);
    let actions = filter.actions.as_ref();
    let actions = actions.map(|actions| actions.iter().map(|action| action.name()));
    let refused = filter.refused.map(|refused| {
        if refused {
            Column::RefusalReason.is_not_null()
        } else {
            Column::RefusalReason.is_null()
        }
    });
    let tokens = filter.token_uids.iter().map(ToString::to_string);
    let actors = filter.actors.iter().map(actor);
    let actors = actors.fold(Condition::any(), Condition::add);
    let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
    Condition::all()
        .add_option(stack.map(|key| Column::StackKey.eq(key)))
        .add_option(actions.map(|actions| Column::Action.is_in(actions)))
        .add_option(refused)
        .add_option(any_of(Column::RefusalReason, filter.error_reasons.iter()))
        .add_option(any_of(Column::TokenUid, tokens))
        .add_option((!filter.actors.is_empty()).then_some(actors))
        .add_option(
            filter
                .request_id
                .as_ref()
                .map(|id| Column::IdempotencyKey.eq(id)),
        )
        .add_option(filter.call_id.as_ref().map(|id| Column::CallId.eq(id)))
        .add_option(micros(filter.occurred_from).map(|at| Column::OccurredAt.gte(at)))
        .add_option(micros(filter.occurred_before).map(|at| Column::OccurredAt.lt(at)))
}

fn any_of<V: Into<Value>>(
    column: Column,
    values: impl ExactSizeIterator<Item = V>,
) -> Option<SimpleExpr> {
    (values.len() > 0).then(|| column.is_in(values))
}

fn actor(actor: &AuditActor) -> Condition {
    let subject = actor.subject.as_ref();
    Condition::all()
        .add(Column::ActorIssuer.eq(&actor.issuer))
        .add_option(subject.map(|sub| Column::ActorSubject.eq(sub)))
}

impl TryFrom<Model> for Event {
    type Error = Error;

    fn try_from(row: Model) -> Result<Self, Error> {
        let wrong = |column| corrupt("audit_events", column, row.uid);
        let read = |state: Option<&String>, column| {
            let read = state.map(|state| snapshot::read(state).ok_or_else(|| wrong(column)));
            read.transpose()
        };
        let details = serde_json::from_str(&row.details).map_err(|_| wrong("details"))?;
        let count = u32::try_from(row.count).map_err(|_| wrong("count"))?;
        let outcome = match row.refusal_reason.clone() {
            None => Outcome::Done(Change {
                before: read(row.state_before.as_ref(), "state_before")?,
                after: read(row.state_after.as_ref(), "state_after")?,
                details,
            }),
            Some(reason) => Outcome::Refused {
                reason,
                count,
                details,
            },
        };
        let kind = CallerKind::from_name(&row.actor_kind);
        let at = Timestamp::from_micros(row.occurred_at);
        Ok(Self {
            uid: EventUid::from_untyped_uuid(row.uid),
            occurred_at: at.ok_or_else(|| wrong("occurred_at"))?,
            actor: Actor {
                kind: kind.ok_or_else(|| wrong("actor_kind"))?,
                issuer: row.actor_issuer,
                subject: row.actor_subject,
            },
            action: AuditAction::from_name(&row.action)
                .ok_or_else(|| corrupt("audit_events", "action", row.uid))?,
            outcome,
            stack_key: row.stack_key,
            token_uid: row.token_uid,
            request_id: row.idempotency_key,
            call_id: row.call_id,
        })
    }
}
