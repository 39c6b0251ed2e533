//! Converts `AuditService` messages to domain values and back.

use std::collections::BTreeMap;

use super::{actor, instant, parse_instant};
use crate::{
    app::{AuditCursor, AuditFilter, AuditPage},
    domain::{
        audit::{AuditAction, Event, Outcome},
        caller::Call,
        field::{Problem, Violations},
        id, page,
        stack::StackKey,
        text::{Issuer, Subject},
        timestamp::Timestamp,
    },
    grpc::pb::audit::v1,
};

type ListQuestion = (AuditFilter, u64, Option<AuditCursor>);

pub fn list(message: v1::ListRequest, _: &Call) -> Result<ListQuestion, Violations> {
    let mut faults = Violations::default();
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let stack_key = named(&message.stack_api_key, StackKey::parse);
    let token_uid = named(&message.token_uid, id::parse);
    let actor_issuer = named(&message.actor_issuer, Issuer::parse);
    let actor_subject = named(&message.actor_subject, Subject::parse);
    let from = message.occurred_from.map(parse_instant).transpose();
    let before = message.occurred_before.map(parse_instant).transpose();
    let filter = AuditFilter {
        stack_key: faults.keep("stack_api_key", stack_key).flatten(),
        token_uid: faults.keep("token_uid", token_uid).flatten(),
        actor_issuer: text(faults.keep("actor_issuer", actor_issuer).flatten(), |iss| {
            iss.as_str()
        }),
        actor_subject: text(
            faults.keep("actor_subject", actor_subject).flatten(),
            |sub| sub.as_str(),
        ),
        action: faults.keep("action", action(message.action)).flatten(),
        occurred_from: faults.keep("occurred_from", from).flatten(),
        occurred_before: faults.keep("occurred_before", before).flatten(),
    };
    let after = page::open(&question(&filter), &message.page_token);
    let after = faults.keep("page_token", after).flatten();
    faults.finish(size.map(|size| (filter, size, after)))
}

fn named<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    (!text.is_empty()).then(|| parse(text)).transpose()
}

fn text<T>(value: Option<T>, words: impl FnOnce(&T) -> &str) -> Option<String> {
    value.as_ref().map(|value| words(value).to_owned())
}

fn question(filter: &AuditFilter) -> impl serde::Serialize {
    (
        filter.stack_key.as_ref().map(ToString::to_string),
        filter.token_uid.map(|uid| uid.to_string()),
        filter.actor_issuer.clone(),
        filter.actor_subject.clone(),
        filter.action.map(AuditAction::name),
        filter.occurred_from.map(Timestamp::as_micros),
        filter.occurred_before.map(Timestamp::as_micros),
    )
}

fn action(action: i32) -> Result<Option<AuditAction>, Problem> {
    let unknown = || Problem::new("is not an action: see AuditAction");
    let action = v1::AuditAction::try_from(action).map_err(|_| unknown())?;
    if action == v1::AuditAction::Unspecified {
        return Ok(None);
    }
    let name = action
        .as_str_name()
        .trim_start_matches("AUDIT_ACTION_")
        .to_lowercase();
    AuditAction::from_name(&name).map(Some).ok_or_else(unknown)
}

fn action_message(action: AuditAction) -> i32 {
    let name = format!("AUDIT_ACTION_{}", action.name().to_uppercase());
    v1::AuditAction::from_str_name(&name)
        .unwrap_or_default()
        .into()
}

pub fn listed(filter: &AuditFilter, page: AuditPage) -> v1::ListResponse {
    let next = page
        .next
        .map(|cursor| page::seal(&question(filter), cursor));
    v1::ListResponse {
        events: page.events.into_iter().map(event).collect(),
        next_page_token: next.unwrap_or_default(),
    }
}

fn event(event: Event) -> v1::AuditEvent {
    let (outcome, reason, count, details) = match event.outcome {
        Outcome::Done(details) => (v1::AuditOutcome::Done, String::new(), 1, details),
        Outcome::Refused { reason, count } => {
            (v1::AuditOutcome::Refused, reason, count, BTreeMap::new())
        }
    };
    v1::AuditEvent {
        event_uid: event.uid.to_string(),
        occurred_at: Some(instant(event.occurred_at)),
        actor: Some(actor(&event.actor)),
        action: action_message(event.action),
        outcome: outcome.into(),
        stack_api_key: event.stack_key.unwrap_or_default(),
        token_uid: event.token_uid.unwrap_or_default(),
        reason,
        count,
        request_id: event.request_id,
        details: details.into_iter().collect(),
    }
}
