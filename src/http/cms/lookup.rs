//! `GET /v3/stacks/management_tokens/{uid}`.

use axum::{body::Body, response::Response};
use http::StatusCode;

use super::{
    CmsError, UidInPath,
    shape::{OneToken, Shown},
    stack_key, uid,
};
use crate::{
    grpc::pb::v1::{GetRequest, GetResponse, Token, TokenState},
    http::{error::json, query, request::HttpRequest},
};

const RPC: &str = "/stacktoken.v1.TokenService/Get";

/// Returns a token.
pub(in crate::http) async fn fetch(
    in_path: UidInPath,
    request: HttpRequest,
) -> Result<Response<Body>, CmsError> {
    query::require_none(request.query.as_ref())?;
    let token = get(&request, uid(in_path)?).await?;
    let body = OneToken {
        notice: None,
        token: Shown::new(&token, None),
    };
    Ok(json(StatusCode::OK, None, &body))
}

/// Gets a token. Treats a revoked token as not found, as the CMS does with a deleted token.
///
/// # Errors
/// The token does not exist, or the RPC fails.
pub(super) async fn get(request: &HttpRequest, token_uid: String) -> Result<Token, CmsError> {
    let message = GetRequest {
        stack_api_key: stack_key(&request.headers)?,
        token_uid,
    };
    let found: GetResponse = request.call(RPC, &message).await?;
    let token = found.token.ok_or_else(CmsError::no_token)?;
    if token.state() == TokenState::Revoked {
        return Err(CmsError::no_token());
    }
    Ok(token)
}
