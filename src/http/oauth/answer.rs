//! Builds the response to an introspection (RFC 7662 §2.2).

use serde::Serialize;

use crate::grpc::pb::v1::{
    Access, ActionRequirement, Decision, IntrospectResponse, Permissions, Reason,
    action_requirement::Requirement,
};

/// The response. For an inactive token, it contains only `active`, so that it does not disclose why
/// the token is inactive.
#[derive(Serialize, Default)]
pub(super) struct Answer<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stacktoken: Option<Decided<'a>>,
}

/// The decision on the requested actions.
#[derive(Serialize)]
struct Decided<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    results: Vec<ActionAnswer<'a>>,
}

#[derive(Serialize)]
struct ActionAnswer<'a> {
    name: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<serde_json::Value>,
}

/// Returns the response for a verdict. `stack` is the stack key that was presented with the token.
pub(super) fn of<'a>(
    verdict: &'a IntrospectResponse,
    stack: &'a str,
    issuer: &'a str,
    has_actions: bool,
) -> Answer<'a> {
    if !verdict.active {
        return Answer::default();
    }
    let token = verdict.token.as_ref();
    let issued_at = token.and_then(|token| token.issued_at.as_ref());
    Answer {
        active: true,
        scope: verdict.permissions.as_ref().map(scope),
        sub: Some(&verdict.token_uid),
        aud: Some(stack),
        iss: Some(issuer),
        iat: issued_at.map(|at| at.seconds),
        exp: verdict.expires_at.as_ref().map(|at| at.seconds),
        stacktoken: has_actions.then(|| decided(verdict)),
    }
}

/// Returns the scope: `module:ACCESS` for each grant, or `*:ACCESS` if the token is not restricted
/// to modules.
pub(super) fn scope(permissions: &Permissions) -> String {
    let Some(modules) = &permissions.modules else {
        return format!("*:{}", access(permissions.access));
    };
    let grants = modules.grants.iter();
    let grants = grants.map(|grant| format!("{}:{}", grant.module, access(grant.access)));
    grants.collect::<Vec<_>>().join(" ")
}

fn decided(verdict: &IntrospectResponse) -> Decided<'_> {
    let results = verdict.results.iter().map(|result| ActionAnswer {
        name: &result.name,
        allowed: result.allowed,
        reason: reason(result.reason),
        missing: result.missing.as_ref().and_then(missing),
    });
    Decided {
        decision: match Decision::try_from(verdict.decision) {
            Ok(Decision::Allow) => "ALLOW",
            _ => "DENY",
        },
        reason: reason(verdict.reason),
        results: results.collect(),
    }
}

fn missing(missing: &ActionRequirement) -> Option<serde_json::Value> {
    let of = |name: &str, value: serde_json::Value| Some(serde_json::json!({ name: value }));
    match missing.requirement.as_ref()? {
        Requirement::Access(needed) => of("access", access(*needed).into()),
        Requirement::Grant(grant) => {
            let scope = format!("{}:{}", grant.module, access(grant.access));
            of("scope", scope.into())
        }
        Requirement::Branch(branch) => of("branch", branch.as_str().into()),
        Requirement::BranchAlias(alias) => of("branch_alias", alias.as_str().into()),
        Requirement::AnyBranch(_) => of("any_branch", true.into()),
        Requirement::Fact(fact) => of("fact", serde_json::json!({ &fact.name: fact.value })),
    }
}

fn access(access: i32) -> &'static str {
    match Access::try_from(access) {
        Ok(Access::ReadWrite) => "READ_WRITE",
        _ => "READ",
    }
}

fn reason(reason: i32) -> Option<&'static str> {
    let reason = Reason::try_from(reason).unwrap_or_default();
    let name = reason.as_str_name();
    (reason != Reason::Unspecified).then(|| name.strip_prefix("REASON_").unwrap_or(name))
}
