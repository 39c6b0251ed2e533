//! Converts `IntrospectionService` messages to domain values and back.

use std::{collections::BTreeMap, time::Duration};

use zeroize::Zeroizing;

use super::{instant, permissions};
use crate::{
    app::{Included, Introspection, Question},
    domain::{
        catalogue,
        field::{Problem, Violations},
        revision::Revision,
        secret,
        verdict::{self, ActionQuestion, Missing, Reason, Verdict},
    },
    grpc::pb::v1,
};

const MAX_ACTIONS: usize = 20;
const MAX_FACTS: usize = 16;
const MAX_NAME: usize = 64;
const MAX_INCLUDE: usize = 16;

/// Parses a request. Any text is accepted as token and as stack key and gets a verdict, because
/// both come from an end user. Only the other fields, which the calling service sets, can be
/// invalid.
pub fn introspect(message: v1::IntrospectRequest) -> Result<Question, Violations> {
    let mut faults = Violations::default();
    let min = (!message.min_revision.is_empty()).then(|| Revision::parse(&message.min_revision));
    let actions = actions(&mut faults, message.actions);
    let min_revision = faults.keep("min_revision", min.transpose()).flatten();
    let include = include(&mut faults, &message.include);
    faults.finish(Some(Question {
        token: Zeroizing::new(message.token),
        stack_api_key: message.stack_api_key,
        actions,
        min_revision,
        include,
    }))
}

/// Parses one question of a batch.
pub fn question(message: v1::IntrospectQuestion) -> Result<Question, Violations> {
    let mut faults = Violations::default();
    let actions = actions(&mut faults, message.actions);
    let include = include(&mut faults, &message.include);
    faults.finish(Some(Question {
        token: Zeroizing::new(message.token),
        stack_api_key: message.stack_api_key,
        actions,
        min_revision: None,
        include,
    }))
}

fn actions(faults: &mut Violations, messages: Vec<v1::ActionQuestion>) -> Vec<ActionQuestion> {
    if messages.len() > MAX_ACTIONS {
        let count = messages.len();
        let problem = format!("has {count} entries: at most {MAX_ACTIONS} are permitted");
        faults.add("actions", Problem::new(problem));
        return Vec::new();
    }
    let mut actions = Vec::with_capacity(messages.len());
    for (index, question) in messages.into_iter().enumerate() {
        match action(question) {
            Ok(action) => actions.push(action),
            invalid => {
                faults.nest(&format!("actions[{index}]"), invalid);
            }
        }
    }
    actions
}

fn include(faults: &mut Violations, values: &[i32]) -> Included {
    let mut included = Included::default();
    if values.len() > MAX_INCLUDE {
        let count = values.len();
        let problem = format!("has {count} entries: name each part once");
        faults.add("include", Problem::new(problem));
        return included;
    }
    for (index, value) in values.iter().enumerate() {
        match v1::IntrospectInclude::try_from(*value) {
            Ok(v1::IntrospectInclude::Permissions) => included.permissions = true,
            Ok(v1::IntrospectInclude::Stack) => included.stack = true,
            Ok(v1::IntrospectInclude::Token) => included.token = true,
            Ok(v1::IntrospectInclude::Labels) => included.labels = true,
            Ok(v1::IntrospectInclude::Session) => included.session = true,
            Ok(v1::IntrospectInclude::Unspecified) | Err(_) => faults.add(
                format!("include[{index}]"),
                Problem::new(
                    "is not a part that this server knows: name PERMISSIONS, STACK, TOKEN, LABELS or SESSION",
                ),
            ),
        }
    }
    included
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
    // Sorts the facts by name, so that the same request always gets the same error message.
    let facts: BTreeMap<String, bool> = message.facts.into_iter().collect();
    for name in facts.keys() {
        faults.keep("facts", fact_name(name));
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    faults.finish(Some(ActionQuestion {
        name: message.name,
        branch: some(message.branch),
        branch_alias: some(message.branch_alias),
        facts,
    }))
}

fn fact_name(name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.len() > MAX_NAME {
        let problem = format!("has a name of {} bytes: use 1 to {MAX_NAME}", name.len());
        return Err(Problem::new(problem));
    }
    without_secret(name)
}

fn short(text: &str) -> Result<(), Problem> {
    if text.len() <= MAX_NAME {
        return without_secret(text);
    }
    Err(Problem::new(format!(
        "has {} bytes: at most {MAX_NAME} are permitted",
        text.len()
    )))
}

/// Rejects a secret in a string that a response may repeat (R9).
fn without_secret(text: &str) -> Result<(), Problem> {
    if secret::is_within(text) {
        return Err(Problem::new(
            "contains the secret of a management token: send it as `token`, and nowhere else",
        ));
    }
    Ok(())
}

/// Builds the response. If the token is not recognized, the response has only the reason and the
/// decision, so that it is identical for an unknown token, a mistyped token and a wrong stack key.
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
        let (facts, include) = (&known.facts, introspection.include);
        answer.results = results.into_iter().map(result).collect();
        answer.token_uid = facts.token.uid.to_string();
        answer.expires_at = facts.expires_at().map(instant);
        // Builds only the requested parts, because every cache hit takes this path.
        answer.permissions =
            (include.permissions).then(|| permissions::message(&facts.permissions));
        answer.token = include.token.then(|| token(&facts.token));
        answer.stack = include.stack.then(|| stack(&facts.stack));
        if include.labels {
            answer.labels = facts.token.labels.to_map();
        }
        if include.session {
            answer.session = facts.session.as_deref().map(session);
        }
    }
    answer
}

fn token(facts: &verdict::TokenFacts) -> v1::TokenFacts {
    v1::TokenFacts {
        name: facts.name.clone(),
        generation: facts.generation,
        issued_at: Some(instant(facts.issued_at)),
        superseded_at: facts.ends_at.map(instant),
    }
}

fn session(facts: &verdict::SessionFacts) -> v1::SessionFacts {
    v1::SessionFacts {
        subject: facts.subject.clone(),
        issued_at: Some(instant(facts.issued_at)),
        expires_at: Some(instant(facts.expires_at)),
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
        Ok(()) => (true, v1::Reason::Unspecified, None),
        Err(denial) => (false, reason(denial.reason), denial.missing.map(missing)),
    };
    v1::ActionResult {
        name: result.name,
        allowed,
        reason: why.into(),
        missing,
    }
}

fn missing(missing: Missing) -> v1::ActionRequirement {
    use v1::action_requirement::Requirement;
    let requirement = match missing {
        Missing::Access(access) => Requirement::Access(permissions::access_message(access)),
        Missing::Grant { module, access } => Requirement::Grant(v1::ModuleGrant {
            module: module.into_owned(),
            access: permissions::access_message(access),
        }),
        Missing::Branch(name) => Requirement::Branch(name),
        Missing::BranchAlias(name) => Requirement::BranchAlias(name),
        Missing::AnyBranch => Requirement::AnyBranch(true),
        Missing::Fact { name, value } => Requirement::Fact(v1::Fact {
            name: name.into_owned(),
            value,
        }),
    };
    v1::ActionRequirement {
        requirement: Some(requirement),
    }
}

const fn reason(reason: Reason) -> v1::Reason {
    match reason {
        Reason::NotRecognized => v1::Reason::NotRecognized,
        Reason::StackSuspended => v1::Reason::StackSuspended,
        Reason::Revoked => v1::Reason::Revoked,
        Reason::Expired => v1::Reason::Expired,
        Reason::Superseded => v1::Reason::Superseded,
        Reason::ActionUnknown => v1::Reason::ActionUnknown,
        Reason::FactMissing => v1::Reason::FactMissing,
        Reason::ReadOnly => v1::Reason::ReadOnly,
        Reason::ModuleNotGranted => v1::Reason::ModuleNotGranted,
        Reason::BranchNotGranted => v1::Reason::BranchNotGranted,
        // `evaluate` never returns `Unknown`; treat it as a denial if it ever does.
        Reason::NeverAllowed | Reason::Unknown => v1::Reason::NeverAllowed,
    }
}

pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}
