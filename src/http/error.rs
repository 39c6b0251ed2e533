//! Errors that occur before an RPC is called. Each family of routes has its own error format.

use axum::{
    body::Body,
    response::{IntoResponse as _, Json},
};
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::Serialize;

use super::{cms::CmsError, oauth::OauthError};

/// A family of routes with the same error format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// The OAuth endpoints, whose errors follow RFC 6749 §5.2.
    Oauth,
    /// The routes of the CMS, whose errors are the CMS's error object.
    Cms,
}

impl Family {
    /// Returns the family of a path.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v3/") {
            Self::Cms
        } else {
            Self::Oauth
        }
    }
}

/// Why a request is refused before an RPC is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The headers are larger than the limit.
    HeadersTooLarge {
        /// The limit in bytes.
        max: u32,
    },
    /// The body is larger than the limit.
    BodyTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The body did not arrive in time.
    BodyLate,
    /// The chunked encoding of the body is malformed.
    BodyMalformed,
    /// The body is compressed or has another content encoding.
    ContentEncoding,
    /// The body has another content type.
    ContentType {
        /// The content type of the route.
        wanted: &'static str,
    },
    /// The request has a query, but the path accepts none.
    Query,
    /// A form parameter is repeated.
    Repeated,
    /// This replica is at its limit of concurrent calls.
    Overloaded,
    /// The path does not exist.
    NotFound,
    /// The path exists, but not with this method.
    Method,
    /// An internal error of the server.
    Internal,
}

impl Refusal {
    /// Returns the HTTP status and a human-readable message.
    pub(super) fn parts(self) -> (StatusCode, String) {
        let text = |text: &str| text.to_owned();
        match self {
            Self::HeadersTooLarge { max } => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!("the headers are larger than {max} bytes: send fewer"),
            ),
            Self::BodyTooLarge { max } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {max} bytes: send less"),
            ),
            Self::BodyLate => (
                StatusCode::REQUEST_TIMEOUT,
                text("the body did not arrive in time: send the request again"),
            ),
            Self::BodyMalformed => (
                StatusCode::BAD_REQUEST,
                text("the chunks of the body are malformed: correct their framing"),
            ),
            Self::ContentEncoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                text("the body is encoded: send it without Content-Encoding"),
            ),
            Self::ContentType { wanted } => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("send the body once, with the content type {wanted}"),
            ),
            Self::Query => (
                StatusCode::BAD_REQUEST,
                text("this path takes no query: send parameters in the body"),
            ),
            Self::Repeated => (
                StatusCode::BAD_REQUEST,
                text("a parameter other than action is repeated: send it once"),
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                text("this replica is at its limit of concurrent calls: try again"),
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                text("there is no such path: /openapi.json lists the paths"),
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                text("the path has other methods, which the header Allow lists"),
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                text("internal error: report it with the request id"),
            ),
        }
    }
}

/// Converts an error to a response in the format of a family.
pub(super) trait IntoFamily {
    /// Returns the response.
    fn into_family(self, family: Family) -> Response<Body>;
}

impl IntoFamily for Refusal {
    fn into_family(self, family: Family) -> Response<Body> {
        match family {
            Family::Oauth => OauthError::from(self).into_response(),
            Family::Cms => CmsError::from(self).into_response(),
        }
    }
}

/// Answers a request for an unknown path.
pub(super) async fn not_found(request: Request<Body>) -> Response<Body> {
    Refusal::NotFound.into_family(Family::of(request.uri().path()))
}

/// Answers a request whose method is not supported for its path.
pub(super) async fn method_not_allowed(request: Request<Body>) -> Response<Body> {
    Refusal::Method.into_family(Family::of(request.uri().path()))
}

/// Builds a response with a JSON body, and with `retry-after` if the request can succeed later.
pub(super) fn json(
    status: StatusCode,
    retry_after: Option<std::time::Duration>,
    body: &impl Serialize,
) -> Response<Body> {
    let mut response = (status, Json(body)).into_response();
    if let Some(retry_after) = retry_after {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
    }
    response
}
