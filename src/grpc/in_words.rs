//! Formats responses as JSON for people and scripts, with the field names that grpcurl uses.

use serde_json::{Map, Value, json};

use super::pb::v1;
use crate::domain::timestamp::Timestamp;

/// Formats the response to `Introspect`, without its unset fields.
#[must_use]
pub fn introspection(answer: &v1::IntrospectResponse) -> String {
    let mut out = Map::new();
    out.insert("active".into(), answer.active.into());
    put(
        &mut out,
        "reason",
        named(answer.reason().as_str_name(), "REASON_UNSPECIFIED"),
    );
    put(
        &mut out,
        "decision",
        named(answer.decision().as_str_name(), "DECISION_UNSPECIFIED"),
    );
    let results: Vec<_> = answer.results.iter().map(result).collect();
    put(
        &mut out,
        "results",
        (!results.is_empty()).then_some(results.into()),
    );
    put(&mut out, "token", answer.token.as_ref().map(token));
    put(&mut out, "stack", answer.stack.as_ref().map(stack));
    put(
        &mut out,
        "permissions",
        answer.permissions.as_ref().map(permissions),
    );
    put(
        &mut out,
        "evaluatedAt",
        answer.evaluated_at.as_ref().map(instant),
    );
    put(&mut out, "maxAge", answer.max_age.as_ref().map(seconds));
    put(
        &mut out,
        "revision",
        (!answer.revision.is_empty()).then(|| answer.revision.clone().into()),
    );
    format!("{:#}", Value::Object(out))
}

fn put(out: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    out.extend(value.map(|value| (name.to_owned(), value)));
}

fn named(name: &str, unset: &str) -> Option<Value> {
    (name != unset).then(|| name.into())
}

fn result(result: &v1::ActionResult) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), result.name.clone().into());
    out.insert("allowed".into(), result.allowed.into());
    put(
        &mut out,
        "reason",
        named(result.reason().as_str_name(), "REASON_UNSPECIFIED"),
    );
    put(
        &mut out,
        "missing",
        (!result.missing.is_empty()).then(|| result.missing.clone().into()),
    );
    Value::Object(out)
}

fn token(token: &v1::TokenFacts) -> Value {
    let mut out = Map::new();
    out.insert("tokenUid".into(), token.token_uid.clone().into());
    out.insert("name".into(), token.name.clone().into());
    out.insert("generation".into(), token.generation.into());
    put(&mut out, "issuedAt", token.issued_at.as_ref().map(instant));
    put(
        &mut out,
        "expiresAt",
        token.expires_at.as_ref().map(instant),
    );
    Value::Object(out)
}

fn stack(stack: &v1::StackFacts) -> Value {
    json!({
        "stackUid": stack.stack_uid,
        "stackApiKey": stack.stack_api_key,
        "organizationUid": stack.organization_uid,
        "name": stack.name,
    })
}

fn permissions(permissions: &v1::Permissions) -> Value {
    let mut out = Map::new();
    out.insert("access".into(), permissions.access().as_str_name().into());
    let grant = |grant: &v1::ModuleGrant| json!({ "module": grant.module, "access": grant.access().as_str_name() });
    let modules = permissions.modules.as_ref();
    let modules = modules
        .map(|modules| json!({ "grants": modules.grants.iter().map(grant).collect::<Vec<_>>() }));
    put(&mut out, "modules", modules);
    let branches = permissions.branches.as_ref();
    let branches =
        branches.map(|named| json!({ "branches": named.branches, "aliases": named.aliases }));
    put(&mut out, "branches", branches);
    Value::Object(out)
}

fn instant(at: &prost_types::Timestamp) -> Value {
    Timestamp::from_parts(at.seconds, at.nanos)
        .map(|at| at.to_string())
        .into()
}

fn seconds(duration: &prost_types::Duration) -> Value {
    let whole = duration.seconds;
    match duration.nanos {
        0 => format!("{whole}s").into(),
        nanos => format!("{whole}.{nanos:09}s").into(),
    }
}
