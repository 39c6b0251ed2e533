//! Converts `IntrospectionService` messages to domain values and back.

use std::{collections::BTreeMap, time::Duration};

use zeroize::Zeroizing;

use super::{instant, permissions};
use crate::{
    app::{Introspection, Question},
    domain::{
        caller::Call,
        catalogue::{self, ActionAccess, Rule},
        field::{Problem, Violations},
        revision::Revision,
        secret,
        verdict::{self, ActionQuestion, Reason, Verdict},
    },
    grpc::pb::v1,
};

/// Maximum length of a token in bytes, far above the length of any secret.
const MAX_TOKEN: usize = 512;
/// Maximum length of a stack key in bytes.
const MAX_STACK_KEY: usize = 128;
const MAX_ACTIONS: usize = 20;
const MAX_FACTS: usize = 16;
const MAX_NAME: usize = 64;

pub fn introspect(message: v1::IntrospectRequest, _: &Call) -> Result<Question, Violations> {
    let mut faults = Violations::default();
    let token = Zeroizing::new(message.token);
    faults.keep("token", sized(&token, MAX_TOKEN));
    faults.keep(
        "stack_api_key",
        sized(&message.stack_api_key, MAX_STACK_KEY),
    );
    if message.actions.len() > MAX_ACTIONS {
        let count = message.actions.len();
        let problem = format!("has {count} entries: ask about at most {MAX_ACTIONS} at once");
        faults.add("actions", Problem::new(problem));
        return faults.finish(None);
    }
    let mut actions = Vec::with_capacity(message.actions.len());
    for (at, question) in message.actions.into_iter().enumerate() {
        actions.extend(faults.nest(&format!("actions[{at}]"), action(question)));
    }
    let min = (!message.min_revision.is_empty()).then(|| Revision::parse(&message.min_revision));
    let min_revision = faults.keep("min_revision", min.transpose()).flatten();
    let stack_api_key = message.stack_api_key;
    faults.finish(Some(Question {
        token,
        stack_api_key,
        actions,
        min_revision,
    }))
}

fn sized(text: &str, max: usize) -> Result<(), Problem> {
    match text.len() {
        0 => Err(Problem::new("is required: send it as it was presented")),
        length if length > max => Err(Problem::new(format!(
            "has {length} bytes: at most {max} are looked at"
        ))),
        _ => Ok(()),
    }
}

fn action(message: v1::ActionQuestion) -> Result<ActionQuestion, Violations> {
    let mut faults = Violations::default();
    faults.keep("name", catalogue::check_shape(&message.name));
    faults.keep("branch", short(&message.branch));
    faults.keep("branch_alias", short(&message.branch_alias));
    if message.facts.len() > MAX_FACTS {
        let problem = format!(
            "has {} entries: state at most {MAX_FACTS}",
            message.facts.len()
        );
        faults.add("facts", Problem::new(problem));
        return faults.finish(None);
    }
    let mut facts = BTreeMap::new();
    // The facts are sorted by name, so that the same fault always produces the same error message.
    for (name, value) in message.facts.into_iter().collect::<BTreeMap<_, _>>() {
        facts.extend(fact(&mut faults, name, &value));
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    faults.finish(Some(ActionQuestion {
        name: message.name,
        branch: some(message.branch),
        branch_alias: some(message.branch_alias),
        facts,
    }))
}

fn fact(faults: &mut Violations, name: String, value: &str) -> Option<(String, bool)> {
    if name.is_empty() || name.len() > MAX_NAME {
        let problem = format!("has a name of {} bytes: use 1 to {MAX_NAME}", name.len());
        faults.add("facts", Problem::new(problem));
        return None;
    }
    if let Err(problem) = without_secret(&name) {
        faults.add("facts", problem);
        return None;
    }
    match value {
        "true" => Some((name, true)),
        "false" => Some((name, false)),
        _ => {
            let name = name.escape_debug();
            faults.add(
                format!("facts[\"{name}\"]"),
                Problem::new("must be `true` or `false`"),
            );
            None
        }
    }
}

fn short(text: &str) -> Result<(), Problem> {
    if text.len() <= MAX_NAME {
        return without_secret(text);
    }
    Err(Problem::new(format!(
        "has {} bytes: at most {MAX_NAME} are looked at",
        text.len()
    )))
}

/// Rejects a secret in a text that an answer may repeat (R9).
fn without_secret(text: &str) -> Result<(), Problem> {
    if secret::is_within(text) {
        return Err(Problem::new(
            "holds the secret of a management token: send it as `token`, and nowhere else",
        ));
    }
    Ok(())
}

/// Builds the response. If the token is not recognised, the response has only the reason and the
/// decision, so that its bytes are identical for an unknown token, a mistyped token and a wrong
/// stack key.
pub fn introspected(introspection: Introspection) -> v1::IntrospectResponse {
    let reason = introspection
        .verdict
        .reason()
        .map_or(v1::Reason::Unspecified, reason);
    let active = matches!(introspection.verdict, Verdict::Active(_));
    let decision = match (introspection.asked, reason) {
        (false, _) => v1::Decision::Unspecified,
        (true, v1::Reason::Unspecified) => v1::Decision::Allow,
        (true, _) => v1::Decision::Deny,
    };
    let mut answer = v1::IntrospectResponse {
        active,
        reason: reason.into(),
        decision: decision.into(),
        ..v1::IntrospectResponse::default()
    };
    let Some(known) = introspection.known else {
        return answer;
    };
    answer.evaluated_at = Some(instant(known.evaluated_at));
    answer.max_age = Some(duration(known.max_age));
    answer.revision = known.revision.to_string();
    if let Verdict::Active(results) = introspection.verdict {
        answer.results = results.into_iter().map(result).collect();
        answer.permissions = Some(permissions::message(&known.facts.permissions));
        answer.token = Some(token(&known.facts.token));
        answer.stack = Some(stack(&known.facts.stack));
    }
    answer
}

fn token(facts: &verdict::TokenFacts) -> v1::TokenFacts {
    v1::TokenFacts {
        token_uid: facts.uid.to_string(),
        name: facts.name.clone(),
        generation: facts.generation,
        issued_at: Some(instant(facts.issued_at)),
        expires_at: facts.expires_at.map(instant),
        superseded_at: facts.ends_at.map(instant),
    }
}

fn stack(facts: &verdict::StackFacts) -> v1::StackFacts {
    v1::StackFacts {
        stack_uid: facts.uid.to_string(),
        stack_api_key: facts.key.clone(),
        organization_uid: facts.organization_uid.clone(),
        name: facts.name.clone(),
    }
}

fn result(result: verdict::ActionResult) -> v1::ActionResult {
    let (allowed, why, missing) = match result.denial {
        Ok(()) => (true, v1::Reason::Unspecified, String::new()),
        Err(denial) => (false, reason(denial.reason), denial.missing),
    };
    v1::ActionResult {
        name: result.name,
        allowed,
        reason: why.into(),
        missing,
    }
}

const fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::NotRecognised => v1::Reason::NotRecognised,
        Reason::StackSuspended => v1::Reason::StackSuspended,
        Reason::Revoked => v1::Reason::Revoked,
        Reason::Expired => v1::Reason::Expired,
        Reason::Superseded => v1::Reason::Superseded,
        Reason::NeverAllowed => v1::Reason::NeverAllowed,
        Reason::ActionUnknown => v1::Reason::ActionUnknown,
        Reason::FactMissing => v1::Reason::FactMissing,
        Reason::ReadOnly => v1::Reason::ReadOnly,
        Reason::ModuleNotGranted => v1::Reason::ModuleNotGranted,
        Reason::BranchNotGranted => v1::Reason::BranchNotGranted,
    }
}

pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "parsers have one shape")]
pub const fn list_actions(_: v1::ListActionsRequest, _: &Call) -> Result<(), Violations> {
    Ok(())
}

/// Builds the response with the whole action catalogue.
pub fn catalogue() -> v1::ListActionsResponse {
    v1::ListActionsResponse {
        version: catalogue::VERSION.to_owned(),
        actions: catalogue::ACTIONS.iter().map(row).collect(),
    }
}

fn row(action: &catalogue::Action) -> v1::Action {
    let access = match action.access {
        ActionAccess::Read => v1::ActionAccess::Read,
        ActionAccess::Write => v1::ActionAccess::Write,
    };
    let (rule, fact) = match action.rule {
        Rule::Grantable => (v1::ActionRule::Grantable, String::new()),
        Rule::Never => (v1::ActionRule::Never, String::new()),
        Rule::Conditional(fact) => (
            v1::ActionRule::Conditional,
            format!("{}={}", fact.name, fact.value),
        ),
    };
    v1::Action {
        name: action.name.to_owned(),
        module: action.module.name().to_owned(),
        access: access.into(),
        rule: rule.into(),
        fact,
        branch_bound: action.branch_bound,
    }
}
