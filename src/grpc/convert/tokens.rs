//! Converts `TokenService` messages to domain values and back.

use prost::Message as _;

use super::{
    actor,
    expiry::{expiry, expiry_of_a_new_token},
    federation, instant, permissions, revision,
};
use crate::{
    app::{Issue, Issued},
    domain::{
        caller::Call,
        catalogue::Catalogue,
        etag::{Etag, Target},
        federation::FederationIssuers,
        field::Violations,
        id::{self, TokenUid},
        labels::Labels,
        request::Request,
        secret::Secret,
        stack::{StackKey, TokenLimit},
        text::{Description, Reason, TokenName},
        timestamp::Timestamp,
        token::{Expiry, Token, TokenState},
        token_secret::TokenSecret,
    },
    grpc::pb::v1,
};

/// The stack key and the token id, which identify a token in a request.
pub(super) type Key = (StackKey, TokenUid);

pub fn issue(
    mut message: v1::IssueRequest,
    call: &Call,
    (catalogue, issuers): (&Catalogue, &FederationIssuers),
) -> Result<Issue, Violations> {
    let mut faults = Violations::default();
    // A preview must have the same fingerprint as the request that it previews.
    message.validate_only = false;
    let id = std::mem::take(&mut message.request_id);
    let request = Request::parse(&id, &message.encode_to_vec());
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let name = faults.keep("name", TokenName::parse(&message.name));
    let description = faults.keep("description", Description::parse(&message.description));
    let permissions = permissions::parse(message.permissions, catalogue);
    let permissions = faults.nest("permissions", permissions);
    let labels = faults.nest("labels", Labels::parse(message.labels));
    let federation = message
        .federation
        .map(|message| federation::parse(message, stack_key.as_ref(), issuers));
    let federation = faults.nest("federation", federation.transpose());
    let expiry = faults.nest("expiry", expiry_of_a_new_token(message.expiry));
    let request = faults.keep("request_id", request);
    let expiry = expiry.map(|(expiry, late)| {
        let mut overdue = Violations::default();
        overdue.nest::<()>("expiry", Err(late));
        // The store decides whether the expiry has passed. But if the request is rejected because
        // of other faults, an expiry that has probably passed is reported together with them.
        if !faults.as_slice().is_empty() && expiry.is_reached(call.received_at) {
            faults.nest::<()>("", Err(overdue.clone()));
        }
        (expiry, overdue)
    });
    let command = stack_key
        .zip(name)
        .zip(description)
        .zip(permissions)
        .zip(labels)
        .zip(federation)
        .zip(expiry)
        .zip(request);
    faults.finish(command.map(
        |(
            (
                (((((stack_key, name), description), permissions), labels), federation),
                (expiry, overdue),
            ),
            request,
        )| Issue {
            stack_key,
            name,
            description,
            permissions,
            labels,
            expiry,
            federation,
            request,
            overdue,
        },
    ))
}

pub fn issued(issued: &Issued, now: Timestamp) -> v1::IssueResponse {
    let previewed = issued.revision.is_none();
    let mut token = made(&issued.token, previewed, now);
    // A preview has no token id, because the request itself will generate a different one. The
    // exception is a preview of a repeated request, whose token already exists.
    if previewed && !issued.is_repetition {
        token.token_uid.clear();
    }
    v1::IssueResponse {
        token: Some(token),
        secret: shown(issued.secret.as_ref()),
        revision: revision(issued.revision),
    }
}

/// Builds the message for a token that was just issued or rotated. A preview creates no secret and
/// no version of the token, so its message has no hint of the newest secret and no etag.
pub(super) fn made(made: &Token, previewed: bool, now: Timestamp) -> v1::Token {
    let mut message = token(made, now);
    if previewed {
        message.etag.clear();
        if let Some(newest) = message.secrets.first_mut() {
            newest.hint.clear();
        }
    }
    message
}

/// Returns the secret, which is shown only once (R9), or an empty string if there is none.
pub(super) fn shown(secret: Option<&Secret>) -> String {
    secret.map_or_else(String::new, |secret| secret.expose().to_owned())
}

pub fn get(message: v1::GetRequest, _: &Call) -> Result<Key, Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    faults.finish(key)
}

pub fn get_usage(message: v1::GetUsageRequest, _: &Call) -> Result<Key, Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    faults.finish(key)
}

pub fn set_expiry(message: v1::SetExpiryRequest, _: &Call) -> Result<(Target, Expiry), Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    let expiry = faults.nest("expiry", expiry(message.expiry));
    let target = target(&mut faults, key, &message.etag);
    faults.finish(target.zip(expiry))
}

pub fn revoke(message: v1::RevokeRequest, _: &Call) -> Result<(Target, Reason), Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    let reason = faults.keep("reason", Reason::parse(&message.reason));
    let target = target(&mut faults, key, &message.etag);
    faults.finish(target.zip(reason))
}

/// Builds the target of a change from the key of the token and the etag that the caller sent.
pub(super) fn target(faults: &mut Violations, key: Option<Key>, etag: &str) -> Option<Target> {
    let etag = faults.keep("etag", Etag::parse(etag));
    let ((stack_key, uid), etag) = key.zip(etag)?;
    Some(Target {
        stack_key,
        uid,
        etag,
    })
}

pub(super) fn key(faults: &mut Violations, stack: &str, uid: &str) -> Option<Key> {
    let stack = faults.keep("stack_api_key", StackKey::parse(stack));
    let uid = faults.keep("token_uid", id::parse(uid));
    stack.zip(uid)
}

pub fn limit(limit: TokenLimit) -> v1::TokenLimit {
    v1::TokenLimit {
        used: limit.used,
        max: limit.max,
    }
}

/// Builds the message for a token, with its state at `now`.
pub fn token(token: &Token, now: Timestamp) -> v1::Token {
    let state = match token.state(now) {
        TokenState::Active => v1::TokenState::Active,
        TokenState::Expired => v1::TokenState::Expired,
        TokenState::Revoked => v1::TokenState::Revoked,
    };
    let revocation = token.revocation.as_ref();
    v1::Token {
        token_uid: token.uid.to_string(),
        stack_api_key: token.stack_key.to_string(),
        name: token.name.as_str().to_owned(),
        description: token.description.as_str().to_owned(),
        permissions: Some(permissions::message(&token.permissions)),
        state: state.into(),
        generation: token.generation,
        secrets: token.live_secrets(now).map(secret).collect(),
        issued_at: Some(instant(token.issued_at)),
        expires_at: token.expires_at.map(instant),
        revoked_at: revocation.map(|revoked| instant(revoked.at)),
        revoke_reason: revocation.map_or_else(String::new, |r| r.reason.as_str().to_owned()),
        issued_by: Some(actor(&token.issued_by)),
        revoked_by: revocation.map(|revoked| actor(&revoked.by)),
        last_used_at: token.last_used_at.map(instant),
        etag: token.etag(now).to_string(),
        labels: token.labels.to_map(),
        federation: token.federation.as_ref().map(federation::message),
        issuer_configured: token.issuer_configured,
    }
}

/// Builds the message for a token after a change. A preview has no etag, because the previewed
/// version of the token is never stored.
pub fn changed(changed: &Token, call: &Call, now: Timestamp) -> v1::Token {
    let mut message = token(changed, now);
    if call.previews() {
        message.etag.clear();
    }
    message
}

fn secret(secret: &TokenSecret) -> v1::TokenSecret {
    v1::TokenSecret {
        generation: secret.generation,
        hint: secret.hint.clone(),
        created_at: Some(instant(secret.created_at)),
        first_used_at: secret.first_used_at.map(instant),
        ends_at: secret.ending.map(|ending| instant(ending.at)),
    }
}
