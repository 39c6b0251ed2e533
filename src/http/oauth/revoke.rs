//! `POST /oauth2/revoke` (RFC 7009). With a credential, revokes a token through
//! `LeakService.ReportLeaked`. Without one, ends the session of a secret through
//! `ExchangeService.EndSession`. The response is the same for any text, so that it does not disclose
//! whether a token or a session exists.

use axum::{body::Body, response::Response};
use http::StatusCode;
use zeroize::Zeroizing;

use super::{OauthError, form};
use crate::{
    grpc::{
        pb::v1::{
            EndSessionRequest, EndSessionResponse, ReportLeakedRequest, ReportLeakedResponse,
        },
        status::ReceivedError,
    },
    http::request::HttpRequest,
};

const REPORT: &str = "/stacktoken.v1.LeakService/ReportLeaked";
const END_SESSION: &str = "/stacktoken.v1.ExchangeService/EndSession";

/// Revokes the token of a secret, or ends its session.
pub(in crate::http) async fn revoke(request: HttpRequest) -> Result<Response<Body>, OauthError> {
    let form = form(&request)?;
    let token = form.get("token").ok_or_else(|| {
        OauthError::invalid_request("token is required: send the token to revoke in the form")
    })?;
    if request.has_credential() {
        report(&request, token).await?;
    } else {
        end_session(&request, token).await?;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

async fn report(request: &HttpRequest, token: &str) -> Result<(), ReceivedError> {
    let mut report = ReportLeakedRequest {
        secret: token.to_owned(),
        url: String::new(),
    };
    let reported: Result<ReportLeakedResponse, _> = request.call(REPORT, &report).await;
    drop(Zeroizing::new(std::mem::take(&mut report.secret)));
    reported.map(drop)
}

async fn end_session(request: &HttpRequest, token: &str) -> Result<(), ReceivedError> {
    let mut end = EndSessionRequest {
        secret: token.to_owned(),
    };
    let ended: Result<EndSessionResponse, _> = request.call(END_SESSION, &end).await;
    drop(Zeroizing::new(std::mem::take(&mut end.secret)));
    ended.map(drop)
}
