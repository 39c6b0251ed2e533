//! `POST /oauth2/revoke` (RFC 7009). Revokes a token through `LeakService.ReportLeaked`. The
//! response is the same for any text, so that it does not disclose whether a token exists.

use axum::{body::Body, response::Response};
use http::StatusCode;
use zeroize::Zeroizing;

use super::{OauthError, form};
use crate::{
    grpc::pb::v1::{ReportLeakedRequest, ReportLeakedResponse},
    http::request::HttpRequest,
};

const RPC: &str = "/stacktoken.v1.LeakService/ReportLeaked";

/// Revokes the token of a secret.
pub(in crate::http) async fn revoke(request: HttpRequest) -> Result<Response<Body>, OauthError> {
    let form = form(&request)?;
    let token = form.get("token").ok_or_else(|| {
        OauthError::invalid_request("token is required: send the token to revoke in the form")
    })?;
    let mut report = ReportLeakedRequest {
        secret: token.to_owned(),
        url: String::new(),
    };
    let reported: Result<ReportLeakedResponse, _> = request.call(RPC, &report).await;
    drop(Zeroizing::new(std::mem::take(&mut report.secret)));
    reported?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}
