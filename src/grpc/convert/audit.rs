//! Converts `AuditService` messages to domain values and back.

use super::{actor, instant, named, page_token, parse_instant, stacks, tokens};
use crate::{
    app::{AuditActor, AuditCursor, AuditFilter, AuditPage},
    domain::{
        audit::{AuditAction, Change, Event, EventKind, Outcome, Snapshot},
        caller::Call,
        field::{Problem, Violations},
        id, page,
        text::{self, Issuer, WorkloadSubject},
        timestamp::Timestamp,
    },
    grpc::{pb::audit::v1, status},
};

/// Maximum number of values in one filter.
const MAX_VALUES: usize = 100;

type ListQuestion = (AuditFilter, u64, Option<AuditCursor>);

pub fn list(message: v1::ListRequest, call: &Call) -> Result<ListQuestion, Violations> {
    let mut faults = Violations::default();
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let stack_key = stacks::key_or_all(&message.stack_api_key, call);
    let request_id = named(&message.request_id, text::parse_slug);
    let call_id = named(&message.call_id, text::parse_slug);
    let filter = AuditFilter {
        stack_key: faults.keep("stack_api_key", stack_key).flatten(),
        actions: actions(&mut faults, &message),
        refused: refused(&mut faults, &message.outcomes),
        error_reasons: each(
            &mut faults,
            "error_reasons",
            &message.error_reasons,
            |reason| error_reason(reason),
        ),
        token_uids: each(&mut faults, "token_uids", &message.token_uids, |uid| {
            id::parse(uid)
        }),
        actors: actors(&mut faults, &message.actors),
        request_id: faults.keep("request_id", request_id).flatten(),
        call_id: faults.keep("call_id", call_id).flatten(),
        occurred_from: faults
            .keep("occurred_from", bound(message.occurred_from))
            .flatten(),
        occurred_before: faults
            .keep("occurred_before", bound(message.occurred_before))
            .flatten(),
    };
    if let (Some(from), Some(before)) = (filter.occurred_from, filter.occurred_before)
        && from >= before
    {
        let empty = "must be later than occurred_from: no event is in this range";
        faults.add("occurred_before", Problem::new(empty));
    }
    let after = page_token(&mut faults, question(&filter), &message.page_token);
    faults.finish(size.map(|size| (filter, size, after)))
}

fn bound(at: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Problem> {
    at.map(parse_instant).transpose()
}

fn question(filter: &AuditFilter) -> impl serde::Serialize {
    let names = |actions: &Vec<AuditAction>| -> Vec<_> {
        actions.iter().map(|action| action.name()).collect()
    };
    let tokens = filter.token_uids.iter().map(ToString::to_string);
    (
        filter.stack_key.as_ref().map(ToString::to_string),
        filter.actions.as_ref().map(names),
        (filter.refused, filter.error_reasons.clone()),
        tokens.collect::<Vec<_>>(),
        filter.actors.clone(),
        (filter.request_id.clone(), filter.call_id.clone()),
        filter.occurred_from.map(Timestamp::as_micros),
        filter.occurred_before.map(Timestamp::as_micros),
    )
}

/// Returns the actions that match the filters on method and kind; `None` if there is no such
/// filter.
fn actions(faults: &mut Violations, message: &v1::ListRequest) -> Option<Vec<AuditAction>> {
    let methods = each(faults, "methods", &message.methods, |method| known(method));
    let kinds = each(faults, "kinds", &message.kinds, |kind| event_kind(*kind));
    let narrowed = !message.methods.is_empty() || !message.kinds.is_empty();
    let all = AuditAction::ALL.iter().copied().filter(|action| {
        (methods.is_empty() || methods.contains(&action.method()))
            && (kinds.is_empty() || kinds.contains(&action.kind()))
    });
    narrowed.then(|| all.collect())
}

/// Parses the elements of a repeated field. Each fault states the index of its element.
fn each<T, U>(
    faults: &mut Violations,
    field: &str,
    elements: &[T],
    parse: impl Fn(&T) -> Result<U, Problem>,
) -> Vec<U> {
    if elements.len() > MAX_VALUES {
        let many = format!("has {} values: use at most {MAX_VALUES}", elements.len());
        faults.add(field, Problem::new(many));
        return Vec::new();
    }
    let parsed = elements.iter().enumerate();
    parsed
        .filter_map(|(at, element)| faults.keep(format!("{field}[{at}]"), parse(element)))
        .collect()
}

/// Returns `true` if only refusals are requested, `false` if only completed calls are, and `None`
/// if both are.
fn refused(faults: &mut Violations, outcomes: &[i32]) -> Option<bool> {
    let outcomes = each(
        faults,
        "outcomes",
        outcomes,
        |outcome| match v1::AuditOutcome::try_from(*outcome) {
            Ok(v1::AuditOutcome::Done) => Ok(false),
            Ok(v1::AuditOutcome::Refused) => Ok(true),
            Ok(v1::AuditOutcome::Unspecified) | Err(_) => Err(Problem::new(
                "is not an outcome: use AUDIT_OUTCOME_DONE or AUDIT_OUTCOME_REFUSED",
            )),
        },
    );
    let first = *outcomes.first()?;
    let alike = outcomes.iter().all(|refused| *refused == first);
    alike.then_some(first)
}

fn error_reason(reason: &str) -> Result<String, Problem> {
    let known = status::is_reason(reason).then(|| reason.to_owned());
    known.ok_or_else(|| {
        Problem::new("is not an error reason: use a name of ErrorReason without the prefix")
    })
}

fn actors(faults: &mut Violations, actors: &[v1::ActorFilter]) -> Vec<AuditActor> {
    let indices: Vec<_> = (0..actors.len()).collect();
    let indices = each(faults, "actors", &indices, |at| Ok(*at));
    indices
        .into_iter()
        .filter_map(|at| faults.nest(&format!("actors[{at}]"), actor_filter(&actors[at])))
        .collect()
}

fn actor_filter(message: &v1::ActorFilter) -> Result<AuditActor, Violations> {
    let mut faults = Violations::default();
    let issuer = faults.keep("issuer", Issuer::parse(&message.issuer));
    let subject = faults.keep("subject", named(&message.subject, WorkloadSubject::parse));
    faults.finish(issuer.zip(subject).map(|(issuer, subject)| AuditActor {
        issuer: issuer.as_str().to_owned(),
        subject: subject.map(|subject| subject.as_str().to_owned()),
    }))
}

fn known(method: &str) -> Result<&'static str, Problem> {
    let mut all = AuditAction::ALL.iter().map(|action| action.method());
    all.find(|known| *known == method).ok_or_else(|| {
        Problem::new(
            "is not an audited RPC: use its full name, such as stacktoken.v1.TokenService/Issue",
        )
    })
}

fn event_kind(kind: i32) -> Result<EventKind, Problem> {
    match v1::AuditEventKind::try_from(kind) {
        Ok(v1::AuditEventKind::Call) => Ok(EventKind::Call),
        Ok(v1::AuditEventKind::FirstUse) => Ok(EventKind::FirstUse),
        Ok(v1::AuditEventKind::Superseded) => Ok(EventKind::Superseded),
        Ok(v1::AuditEventKind::Unspecified) | Err(_) => Err(Problem::new(
            "is not a kind: use AUDIT_EVENT_KIND_CALL, _FIRST_USE or _SUPERSEDED",
        )),
    }
}

const fn kind_message(kind: EventKind) -> v1::AuditEventKind {
    match kind {
        EventKind::Call => v1::AuditEventKind::Call,
        EventKind::FirstUse => v1::AuditEventKind::FirstUse,
        EventKind::Superseded => v1::AuditEventKind::Superseded,
    }
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
    let at = event.occurred_at;
    let (outcome, error_reason, count, change) = match event.outcome {
        Outcome::Done(change) => (v1::AuditOutcome::Done, String::new(), 1, change),
        Outcome::Refused {
            reason,
            count,
            details,
        } => {
            let hidden = Change {
                details,
                ..Change::default()
            };
            (v1::AuditOutcome::Refused, reason, count, hidden)
        }
    };
    v1::AuditEvent {
        event_uid: event.uid.to_string(),
        occurred_at: Some(instant(at)),
        actor: Some(actor(&event.actor)),
        method: event.action.method().to_owned(),
        kind: kind_message(event.action.kind()).into(),
        outcome: outcome.into(),
        error_reason,
        count,
        stack_api_key: event.stack_key.unwrap_or_default(),
        token_uid: event.token_uid.unwrap_or_default(),
        before: change.before.map(|before| state(&before, at)),
        after: change.after.map(|after| state(&after, at)),
        request_id: event.request_id.unwrap_or_default(),
        call_id: event.call_id,
        details: change.details.into_iter().collect(),
    }
}

/// Builds the message for a snapshot. The state of a token is evaluated at `at`.
fn state(snapshot: &Snapshot, at: Timestamp) -> v1::AuditState {
    use v1::audit_state::State;
    let state = match snapshot {
        Snapshot::Token(token) => State::Token(tokens::token(token, at)),
        Snapshot::Stack(stack) => State::Stack(stacks::stack(stack)),
        Snapshot::Member(member) => State::Member(stacks::member(member)),
    };
    v1::AuditState { state: Some(state) }
}
