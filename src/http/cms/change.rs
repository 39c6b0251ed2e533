//! Creates and deletes tokens.

use axum::{body::Body, response::Response};
use http::StatusCode;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    CmsError, UidInPath, expiry,
    input::Sent,
    scope,
    shape::{OneToken, Shown},
    stack_key, uid,
};
use crate::{
    grpc::pb::v1::{IssueRequest, IssueResponse, RevokeRequest, RevokeResponse},
    http::{error::json, forward, query, request::HttpRequest},
};

const ISSUE: &str = "/stacktoken.v1.TokenService/Issue";
const REVOKE: &str = "/stacktoken.v1.TokenService/Revoke";
/// Header with the idempotency key of a creation, with which the client can repeat the request if
/// the response is lost.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Creates a token. Neither its scope nor its expiry has a default (R3).
pub(in crate::http) async fn create(request: HttpRequest) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let sent = Sent::parse(&request)?;
    sent.require_new()?;
    let (name, description) = sent.texts()?;
    let expires_on = sent.expires_on.as_ref().ok_or_else(|| {
        CmsError::field(
            "expires_on",
            "is required, there is no default: a date, or null for never",
        )
    })?;
    let message = IssueRequest {
        stack_api_key: stack_key(&request.headers)?,
        name: name.unwrap_or_default().to_owned(),
        description: description.unwrap_or_default().to_owned(),
        permissions: Some(scope::parse(sent.scope.as_ref().unwrap_or(&Value::Null))?),
        expiry: Some(expiry::parse(expires_on)?),
        request_id: idempotency_key(&request)?,
        ..IssueRequest::default()
    };
    let issued: IssueResponse = request.call(ISSUE, &message).await?;
    let secret = Zeroizing::new(issued.secret);
    let token = issued.token.unwrap_or_default();
    let body = OneToken {
        notice: Some("Management Token created successfully."),
        token: Shown::new(&token, Some(&secret)),
    };
    Ok(json(StatusCode::CREATED, None, &body))
}

/// Returns the idempotency key of a creation; empty if the client sent none. Removes the quotes
/// that some clients put around it.
fn idempotency_key(request: &HttpRequest) -> Result<String, CmsError> {
    let sent = forward::single(&request.headers, IDEMPOTENCY_KEY);
    let sent = sent.map_err(|problem| CmsError::field("Idempotency-Key", problem))?;
    let id = sent.unwrap_or_default();
    let unquoted = id.strip_prefix('"').and_then(|id| id.strip_suffix('"'));
    Ok(unquoted.unwrap_or(id).to_owned())
}

/// Deletes a token by revoking it. Succeeds even if the token was already deleted.
pub(in crate::http) async fn delete(
    in_path: UidInPath,
    request: HttpRequest,
) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let message = RevokeRequest {
        stack_api_key: stack_key(&request.headers)?,
        token_uid: uid(in_path)?,
        ..RevokeRequest::default()
    };
    let _: RevokeResponse = request.call(REVOKE, &message).await?;
    let body = serde_json::json!({ "notice": "Management Token deleted successfully." });
    Ok(json(StatusCode::OK, None, &body))
}
