//! `POST /oauth2/introspect` (RFC 7662). A client that can send only `token` in the form uses the
//! path that contains the stack key.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use http::StatusCode;
use zeroize::Zeroizing;

use super::{OauthError, action, answer, form};
use crate::{
    domain::stack::StackKey,
    grpc::pb::v1::{IntrospectInclude, IntrospectRequest, IntrospectResponse},
    http::{Settings, body::Form, error::json, forward, request::HttpRequest},
};

const RPC: &str = "/stacktoken.v1.IntrospectionService/Introspect";
/// The form parameter with the stack key.
const STACK_KEY: &str = "stack_api_key";

/// Introspects a token whose stack key is in the form or in the header `api_key`.
pub(in crate::http) async fn introspect(
    State(settings): State<Arc<Settings>>,
    request: HttpRequest,
) -> Result<Response<Body>, OauthError> {
    run(&settings, None, &request).await
}

/// Introspects a token whose stack key is in the path.
pub(in crate::http) async fn introspect_at(
    State(settings): State<Arc<Settings>>,
    in_path: Result<Path<String>, PathRejection>,
    request: HttpRequest,
) -> Result<Response<Body>, OauthError> {
    let Path(stack_api_key) = in_path
        .map_err(|_| OauthError::invalid_request("the stack key in the path is not UTF-8"))?;
    run(&settings, Some(&stack_api_key), &request).await
}

async fn run(
    settings: &Settings,
    in_path: Option<&str>,
    request: &HttpRequest,
) -> Result<Response<Body>, OauthError> {
    let form = form(request)?;
    let stack_api_key = stack_key(in_path, &form, request)?;
    let token = form.get("token").ok_or_else(|| {
        OauthError::invalid_request("token is required: send the presented token in the form")
    })?;
    let actions: Vec<_> = form
        .all("action")
        .map(action::parse)
        .collect::<Result<_, _>>()?;
    let has_actions = !actions.is_empty();
    let include = [IntrospectInclude::Permissions, IntrospectInclude::Token];
    let mut question = IntrospectRequest {
        token: token.to_owned(),
        stack_api_key,
        actions,
        min_revision: String::new(),
        include: include.map(Into::into).to_vec(),
    };
    let verdict: Result<IntrospectResponse, _> = request.call(RPC, &question).await;
    drop(Zeroizing::new(std::mem::take(&mut question.token)));
    let verdict = verdict?;
    let stack = &question.stack_api_key;
    let answer = answer::of(&verdict, stack, &settings.public_url, has_actions);
    Ok(json(StatusCode::OK, None, &answer))
}

/// Returns the stack key. If it is sent in several places, the values must be equal. A malformed
/// stack key is an error of the caller. It must not be answered as "inactive", because the caller
/// would then reject all its users.
fn stack_key(
    in_path: Option<&str>,
    form: &Form,
    request: &HttpRequest,
) -> Result<String, OauthError> {
    let in_header = forward::single(&request.headers, forward::API_KEY);
    let in_header = in_header.map_err(|problem| {
        OauthError::invalid_request(format!("the header {} {problem}", forward::API_KEY))
    })?;
    let mut sent = [in_path, form.get(STACK_KEY), in_header]
        .into_iter()
        .flatten();
    let key = sent.next().ok_or_else(|| {
        OauthError::invalid_request(
            "the stack key is required: send it in the path, as the form parameter stack_api_key or in the header api_key",
        )
    })?;
    if sent.any(|other| other != key) {
        return Err(OauthError::invalid_request(
            "the stack keys in the path, the form and the header differ: send one",
        ));
    }
    match StackKey::parse(key) {
        Ok(key) => Ok(key.to_string()),
        Err(problem) => Err(OauthError::invalid_request(format!(
            "the stack key {problem}"
        ))),
    }
}
