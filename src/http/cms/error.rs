//! Errors in the format of the CMS: a message, a code, and what is wrong with each field.

use std::{collections::BTreeMap, time::Duration};

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
/// Error codes of the CMS.
const NOT_SIGNED_IN: u16 = 105;
const NO_STACK: u16 = 109;
const INVALID: u16 = 119;
const NO_TOKEN: u16 = 141;
const NOT_PERMITTED: u16 = 162;

/// An error of a route of the CMS.
#[derive(Debug)]
pub(in crate::http) struct CmsError {
    status: StatusCode,
    code: u16,
    message: String,
    errors: BTreeMap<String, Vec<String>>,
    retry_after: Option<Duration>,
}

/// The body of an error.
#[derive(Serialize)]
struct ErrorBody {
    error_message: String,
    error_code: u16,
    errors: BTreeMap<String, Vec<String>>,
}

impl CmsError {
    fn new(status: StatusCode, code: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            errors: BTreeMap::new(),
            retry_after: None,
        }
    }

    /// Returns the error for a field that must be corrected.
    pub fn field(name: &str, problem: impl Into<String>) -> Self {
        let error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            INVALID,
            "The management token is not valid: see errors.",
        );
        error.with(name, problem)
    }

    /// Returns the error for a request without a usable stack key.
    pub fn stack_key(problem: &str) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            NO_STACK,
            "The stack was not found.",
        )
        .with("api_key", problem)
    }

    /// Returns the error for a token that does not exist.
    pub fn no_token() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            NO_TOKEN,
            "The management token was not found.",
        )
        .with("uid", "is not the uid of a management token of this stack")
    }

    /// Returns whether the error is that the caller has no permission.
    pub fn is_not_permitted(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// Adds to the message that `made`, a part of the update, was applied before the error.
    pub fn after_part(mut self, made: &str) -> Self {
        self.message = format!("{made} {}", self.message);
        self
    }

    fn with(mut self, name: &str, problem: impl Into<String>) -> Self {
        self.errors
            .entry(name.to_owned())
            .or_default()
            .push(problem.into());
        self
    }

    fn of_fields(error: ReceivedError) -> Self {
        let start = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            INVALID,
            "The management token is not valid: see errors.",
        );
        if error.fields.is_empty() {
            return start.with("token", error.message);
        }
        let is_only = |field: &str| error.fields.iter().all(|(name, _)| name == field);
        if is_only("stack_api_key") {
            return Self::stack_key("does not have the form of a stack API key");
        }
        // A malformed uid cannot belong to a token.
        if is_only("token_uid") {
            return Self::no_token();
        }
        let fields = error.fields.into_iter();
        fields.fold(start, |whole, (name, problem)| {
            whole.with(cms_name(&name), problem)
        })
    }

    fn later(status: StatusCode, error: ReceivedError) -> Self {
        Self {
            retry_after: Some(error.retry_after.unwrap_or(SOON)),
            ..Self::new(status, status.as_u16(), error.message)
        }
    }
}

/// Maps the path of an RPC field to the name of that field in the CMS's JSON.
fn cms_name(field: &str) -> &str {
    let field = field.strip_prefix("token.").unwrap_or(field);
    let first = field.split(['.', '[']).next().unwrap_or(field);
    match first {
        "permissions" => "scope",
        "expiry" => "expires_on",
        "token_uid" => "uid",
        "stack_api_key" => "api_key",
        "request_id" => "Idempotency-Key",
        other => other,
    }
}

impl From<ReceivedError> for CmsError {
    fn from(error: ReceivedError) -> Self {
        match (error.code, error.reason.as_str()) {
            (Code::Unauthenticated, _) => {
                Self::new(StatusCode::UNAUTHORIZED, NOT_SIGNED_IN, &error.message)
                    .with("authtoken", "is not valid")
            }
            (Code::PermissionDenied, _) => {
                Self::new(StatusCode::FORBIDDEN, NOT_PERMITTED, error.message)
            }
            (Code::NotFound, "STACK_NOT_FOUND") => Self::stack_key("is not valid"),
            (Code::NotFound, _) => Self::no_token(),
            (Code::AlreadyExists, "NAME_TAKEN") => Self::field("name", "is not unique"),
            (Code::Aborted, _) => Self::new(StatusCode::CONFLICT, INVALID, error.message),
            (Code::ResourceExhausted, "RATE_LIMITED") => {
                Self::later(StatusCode::TOO_MANY_REQUESTS, error)
            }
            (Code::ResourceExhausted, "STORAGE_FULL")
            | (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, _) => {
                Self::later(StatusCode::SERVICE_UNAVAILABLE, error)
            }
            (Code::Internal | Code::Unknown | Code::Unimplemented | Code::DataLoss, _) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(status, status.as_u16(), error.message)
            }
            _ => Self::of_fields(error),
        }
    }
}

impl From<Refusal> for CmsError {
    fn from(refusal: Refusal) -> Self {
        let (status, message) = refusal.parts();
        let retry_after = (refusal == Refusal::Overloaded).then_some(SOON);
        Self {
            retry_after,
            ..Self::new(status, status.as_u16(), message)
        }
    }
}

impl IntoResponse for CmsError {
    fn into_response(self) -> Response<Body> {
        let body = ErrorBody {
            error_message: self.message,
            error_code: self.code,
            errors: self.errors,
        };
        let mut response = json(self.status, self.retry_after, &body);
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
