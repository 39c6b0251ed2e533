//! Converts `TokenService` messages to domain values and back.

use std::time::Duration;

use prost::Message as _;

use super::{
    actor,
    expiry::{expiry, expiry_of_a_new_token},
    instant, parse_instant, permissions, revision,
};
use crate::{
    app::{Issue, Issued, ListQuery, Order, Rotate, Rotated, TokenPage},
    domain::{
        caller::Call,
        field::{Problem, Violations},
        id::{self, TokenUid},
        page,
        request::Request,
        rotation::{self, Overlap},
        secret::Secret,
        stack::{StackKey, TokenLimit},
        text::{Description, NamePart, Reason, TokenName},
        timestamp::Timestamp,
        token::{Edit, Expiry, Token, TokenState},
    },
    grpc::pb::v1,
};

/// What identifies a token in a request: its stack key and its id.
type Key = (StackKey, TokenUid);

pub fn issue(mut message: v1::IssueRequest, call: &Call) -> Result<Issue, Violations> {
    let mut faults = Violations::default();
    // A preview must have the same fingerprint as the request that it previews.
    message.validate_only = false;
    let id = std::mem::take(&mut message.request_id);
    let request = Request::parse(&id, &message.encode_to_vec());
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let name = faults.keep("name", TokenName::parse(&message.name));
    let description = faults.keep("description", Description::parse(&message.description));
    let permissions = faults.nest("permissions", permissions::parse(message.permissions));
    let expiry = faults.nest("expiry", expiry_of_a_new_token(message.expiry));
    let request = faults.keep("request_id", request);
    let expiry = expiry.map(|(expiry, late)| {
        let mut overdue = Violations::default();
        overdue.nest::<()>("expiry", Err(late));
        // The store decides whether the expiry has passed. If the request has other faults anyway,
        // an expiry that has probably passed is reported together with them.
        if !faults.as_slice().is_empty() && expiry.is_reached(call.received_at) {
            faults.nest::<()>("", Err(overdue.clone()));
        }
        (expiry, overdue)
    });
    let command = stack_key
        .zip(name)
        .zip(description)
        .zip(permissions)
        .zip(expiry)
        .zip(request);
    faults.finish(command.map(
        |(((((stack_key, name), description), permissions), (expiry, overdue)), request)| Issue {
            stack_key,
            name,
            description,
            permissions,
            expiry,
            request,
            overdue,
        },
    ))
}

pub fn issued(issued: &Issued, now: Timestamp) -> v1::IssueResponse {
    let mut token = with_secret(&issued.token, issued.secret.as_ref(), now);
    // A preview has no token id, unless it previews a repeated request, whose token already exists.
    if issued.secret.is_none() && issued.token.generation == 1 {
        token.token_uid.clear();
    }
    v1::IssueResponse {
        token: Some(token),
        secret: shown(issued.secret.as_ref()),
        revision: revision(issued.revision),
    }
}

/// Builds the message of a token that was just issued or rotated. A preview has no secret, so its
/// message has no hint.
fn with_secret(made: &Token, secret: Option<&Secret>, now: Timestamp) -> v1::Token {
    let mut message = token(made, now);
    if secret.is_none() {
        message.secret_hint.clear();
    }
    message
}

/// Returns the secret, which is shown only once (R9), or an empty text for a preview.
fn shown(secret: Option<&Secret>) -> String {
    secret.map_or_else(String::new, |secret| secret.expose().to_owned())
}

pub fn get(message: v1::GetRequest, _: &Call) -> Result<Key, Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    faults.finish(key)
}

pub fn list(message: v1::ListRequest, _: &Call) -> Result<ListQuery, Violations> {
    let mut faults = Violations::default();
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let size = faults.keep("page_size", page::parse_size(message.page_size));
    let states = states(&mut faults, &message);
    let expires_before = message.expires_before.map(parse_instant).transpose();
    let expires_before = faults.keep("expires_before", expires_before).flatten();
    let unused_since = message.unused_since.map(parse_instant).transpose();
    let unused_since = faults.keep("unused_since", unused_since).flatten();
    let part = NamePart::parse(&message.name_contains);
    let name_contains = faults.keep("name_contains", part);
    let order = faults.keep("order", order(message.order));
    let (Some(stack_key), Some(size), Some(order)) = (stack_key, size, order) else {
        return faults.finish(None);
    };
    let mut query = ListQuery {
        stack_key,
        states,
        expires_before,
        name_contains,
        unused_since,
        order,
        size,
        after: None,
    };
    let after = page::open(&question(&query), &message.page_token);
    query.after = faults.keep("page_token", after).flatten();
    faults.finish(Some(query))
}

/// Returns the values to which a page token is bound: all list parameters except the start of the
/// page.
fn question(query: &ListQuery) -> impl serde::Serialize {
    (
        query.stack_key.to_string(),
        query
            .states
            .iter()
            .map(|state| format!("{state:?}"))
            .collect::<Vec<_>>(),
        query.expires_before.map(Timestamp::as_micros),
        query
            .name_contains
            .as_ref()
            .map(|part| part.as_str().to_owned()),
        format!("{:?}", query.order),
        query.unused_since.map(Timestamp::as_micros),
    )
}

pub fn listed(query: &ListQuery, page: TokenPage) -> v1::ListResponse {
    let next = page.next.map(|cursor| page::seal(&question(query), cursor));
    v1::ListResponse {
        tokens: page
            .tokens
            .iter()
            .map(|listed| token(listed, page.listed_at))
            .collect(),
        next_page_token: next.unwrap_or_default(),
        limit: Some(limit(page.limit)),
    }
}

pub fn update(
    message: v1::UpdateRequest,
    _: &Call,
) -> Result<(StackKey, TokenUid, Edit), Violations> {
    let mut faults = Violations::default();
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let paths = message.update_mask.unwrap_or_default().paths;
    let required = || Problem::new("is required: its token_uid, and the fields to change");
    let token = faults.keep("token", message.token.ok_or_else(required));
    let uid = token
        .as_ref()
        .and_then(|token| faults.keep("token.token_uid", id::parse(&token.token_uid)));
    if paths.is_empty() {
        let choices = "is required: one or more of name, description, permissions";
        faults.add("update_mask", Problem::new(choices));
    }
    let edit = token.map(|token| edit(&mut faults, &paths, token));
    faults.finish(
        stack_key
            .zip(uid)
            .zip(edit)
            .map(|((stack_key, uid), edit)| (stack_key, uid, edit)),
    )
}

fn edit(faults: &mut Violations, paths: &[String], token: v1::Token) -> Edit {
    let mut edit = Edit::default();
    for (at, path) in paths.iter().enumerate() {
        match path.as_str() {
            "name" => edit.name = faults.keep("token.name", TokenName::parse(&token.name)),
            "description" => {
                let parsed = Description::parse(&token.description);
                edit.description = faults.keep("token.description", parsed);
            }
            "permissions" => {
                let parsed = permissions::parse(token.permissions.clone());
                edit.permissions = faults.nest("token.permissions", parsed);
            }
            _ => faults.add(
                format!("update_mask.paths[{at}]"),
                Problem::new("cannot be updated: use name, description or permissions; SetExpiry changes the expiry"),
            ),
        }
    }
    edit
}

pub fn set_expiry(
    message: v1::SetExpiryRequest,
    _: &Call,
) -> Result<(StackKey, TokenUid, Expiry), Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    let expiry = faults.nest("expiry", expiry(message.expiry));
    faults.finish(
        key.zip(expiry)
            .map(|((stack, uid), expiry)| (stack, uid, expiry)),
    )
}

pub fn revoke(
    message: v1::RevokeRequest,
    _: &Call,
) -> Result<(StackKey, TokenUid, Reason), Violations> {
    let mut faults = Violations::default();
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    let reason = faults.keep("reason", Reason::parse(&message.reason));
    faults.finish(
        key.zip(reason)
            .map(|((stack, uid), reason)| (stack, uid, reason)),
    )
}

pub fn rotate(mut message: v1::RotateRequest, _: &Call) -> Result<Rotate, Violations> {
    let mut faults = Violations::default();
    message.validate_only = false;
    let id = std::mem::take(&mut message.request_id);
    let request = Request::parse(&id, &message.encode_to_vec());
    let key = key(&mut faults, &message.stack_api_key, &message.token_uid);
    let overlap = faults.nest("", overlap(message.overlap));
    let request = faults.keep("request_id", request);
    let command = key.zip(overlap).zip(request);
    faults.finish(
        command.map(|(((stack_key, token_uid), overlap), request)| Rotate {
            stack_key,
            token_uid,
            overlap,
            request,
        }),
    )
}

/// Parses how long the former secret stays valid. A missing value is a violation, because there is
/// no default.
fn overlap(message: Option<v1::rotate_request::Overlap>) -> Result<Overlap, Violations> {
    use v1::rotate_request::Overlap as Message;
    let mut faults = Violations::default();
    let overlap = match message {
        None => {
            let choices = "is required, there is no default: choose overlap_for or until_first_use";
            faults.add("overlap", Problem::new(choices));
            None
        }
        Some(Message::OverlapFor(length)) => {
            let length = length_of(length).map(Overlap::For);
            faults.keep("overlap_for", length)
        }
        Some(Message::UntilFirstUse(true)) => Some(Overlap::UntilFirstUse),
        Some(Message::UntilFirstUse(false)) => {
            let otherwise = "can only be true: to say otherwise, choose overlap_for";
            faults.add("until_first_use", Problem::new(otherwise));
            None
        }
    };
    faults.finish(overlap)
}

fn length_of(length: prost_types::Duration) -> Result<Duration, Problem> {
    let wrong = || Problem::new("must be 0 to 30 days (2592000s): choose a shorter overlap");
    let length = Duration::try_from(length).map_err(|_| wrong())?;
    if length > rotation::LONGEST {
        return Err(wrong());
    }
    Ok(length)
}

pub fn rotated(rotated: &Rotated, now: Timestamp) -> v1::RotateResponse {
    v1::RotateResponse {
        token: Some(with_secret(
            &rotated.rotated.token,
            rotated.secret.as_ref(),
            now,
        )),
        secret: shown(rotated.secret.as_ref()),
        revision: revision(rotated.revision),
        overlap_ends_at: Some(instant(rotated.rotated.overlap_ends_at)),
    }
}

fn key(faults: &mut Violations, stack: &str, uid: &str) -> Option<Key> {
    let stack = faults.keep("stack_api_key", StackKey::parse(stack));
    let uid = faults.keep("token_uid", id::parse(uid));
    stack.zip(uid)
}

fn states(faults: &mut Violations, message: &v1::ListRequest) -> Vec<TokenState> {
    let mut states = Vec::new();
    for (at, state) in message.states.iter().enumerate() {
        match v1::TokenState::try_from(*state) {
            Ok(v1::TokenState::Active) => states.push(TokenState::Active),
            Ok(v1::TokenState::Expired) => states.push(TokenState::Expired),
            Ok(v1::TokenState::Revoked) => states.push(TokenState::Revoked),
            Ok(v1::TokenState::Unspecified) | Err(_) => {
                let choices = "is not a state: use TOKEN_STATE_ACTIVE, _EXPIRED or _REVOKED";
                faults.add(format!("states[{at}]"), Problem::new(choices));
            }
        }
    }
    states
}

fn order(order: i32) -> Result<Order, Problem> {
    match v1::TokenOrder::try_from(order) {
        Ok(v1::TokenOrder::Unspecified | v1::TokenOrder::NewestFirst) => Ok(Order::NewestFirst),
        Ok(v1::TokenOrder::OldestFirst) => Ok(Order::OldestFirst),
        Ok(v1::TokenOrder::ExpiresFirst) => Ok(Order::ExpiresFirst),
        Ok(v1::TokenOrder::Name) => Ok(Order::Name),
        Err(_) => Err(Problem::new("is not an order: see TokenOrder")),
    }
}

pub fn limit(limit: TokenLimit) -> v1::TokenLimit {
    v1::TokenLimit {
        used: limit.used,
        max: limit.max,
    }
}

/// Builds the message of a token with its state at `now`.
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
        secret_hint: token.secret_hint.clone(),
        issued_at: Some(instant(token.issued_at)),
        expires_at: token.expires_at.map(instant),
        revoked_at: revocation.map(|revoked| instant(revoked.at)),
        revoke_reason: revocation.map_or_else(String::new, |r| r.reason.as_str().to_owned()),
        issued_by: Some(actor(&token.issued_by)),
        revoked_by: revocation.map(|revoked| actor(&revoked.by)),
        last_used_at: token.last_used_at.map(instant),
    }
}
