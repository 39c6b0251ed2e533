//! Errors in the format of RFC 6749 §5.2, with the challenges of RFC 6750 §3.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::Code;

use crate::{
    grpc::status::ReceivedError,
    http::error::{Refusal, json},
};

/// Delay before a retry if the RPC does not state one.
const SOON: Duration = Duration::from_secs(1);

/// An error of an OAuth endpoint.
#[derive(Debug)]
pub(in crate::http) struct OauthError {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
}

/// The body of an error.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
}

impl OauthError {
    fn new(status: StatusCode, error: &'static str, description: String) -> Self {
        Self {
            status,
            error,
            description,
            retry_after: None,
            challenge: None,
        }
    }

    /// Returns the error for a request that must be corrected.
    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            description.into(),
        )
    }

    /// Returns the error for a token request with an unsupported grant type.
    pub fn unsupported_grant_type(description: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            description.into(),
        )
    }

    /// Returns the error for a caller without an accepted credential.
    pub fn invalid_client(description: impl Into<String>) -> Self {
        Self {
            challenge: Some("Bearer"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                description.into(),
            )
        }
    }

    fn temporarily_unavailable(status: StatusCode, error: ReceivedError) -> Self {
        Self {
            retry_after: Some(error.retry_after.unwrap_or(SOON)),
            ..Self::new(status, "temporarily_unavailable", error.message)
        }
    }
}

impl From<ReceivedError> for OauthError {
    fn from(error: ReceivedError) -> Self {
        let with = |status, name, challenge, description| Self {
            challenge: Some(challenge),
            ..Self::new(status, name, description)
        };
        match (error.code, error.reason.as_str()) {
            (Code::Unauthenticated, "CREDENTIAL_MISSING") => Self::invalid_client(error.message),
            (Code::Unauthenticated, _) => with(
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                "Bearer error=\"invalid_token\"",
                error.message,
            ),
            (Code::PermissionDenied, _) => with(
                StatusCode::FORBIDDEN,
                "insufficient_scope",
                "Bearer error=\"insufficient_scope\"",
                error.message,
            ),
            (Code::ResourceExhausted, "RATE_LIMITED") => {
                Self::temporarily_unavailable(StatusCode::TOO_MANY_REQUESTS, error)
            }
            // An outage must never look like a verdict (R13).
            (
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::ResourceExhausted,
                _,
            ) => Self::temporarily_unavailable(StatusCode::SERVICE_UNAVAILABLE, error),
            (Code::Internal | Code::Unknown | Code::Unimplemented | Code::DataLoss, _) => {
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "server_error",
                    error.message,
                )
            }
            _ => Self::invalid_request(error.message),
        }
    }
}

impl From<Refusal> for OauthError {
    fn from(refusal: Refusal) -> Self {
        let (status, description) = refusal.parts();
        let name = match refusal {
            Refusal::Overloaded => "temporarily_unavailable",
            Refusal::Internal => "server_error",
            _ => "invalid_request",
        };
        let retry_after = (refusal == Refusal::Overloaded).then_some(SOON);
        Self {
            retry_after,
            ..Self::new(status, name, description)
        }
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response<Body> {
        let body = ErrorBody {
            error: self.error,
            error_description: &printable(&self.description),
        };
        let mut response = json(self.status, self.retry_after, &body);
        if let Some(challenge) = self.challenge {
            let challenge = HeaderValue::from_static(challenge);
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Returns a text with only the characters that RFC 6749 §5.2 permits in `error_description`.
fn printable(text: &str) -> String {
    let fit = |character: char| match character {
        '"' => '\'',
        '\\' => '/',
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().map(fit).collect()
}
