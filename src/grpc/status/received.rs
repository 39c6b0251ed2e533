//! The error of a call in the form in which a client receives it. The HTTP port, which calls RPCs
//! in memory, converts these errors to its own formats.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::grpc::pb::v1::ErrorReason;

/// The error of a call.
#[derive(Debug)]
pub struct ReceivedError {
    /// The gRPC code.
    pub code: Code,
    /// The reason in the API contract, without its prefix.
    pub reason: String,
    /// The message for people.
    pub message: String,
    /// The delay before a retry.
    pub retry_after: Option<Duration>,
    /// The missing or invalid fields, each with a description of the problem.
    pub fields: Vec<(String, String)>,
}

impl ReceivedError {
    /// Returns the error that a status contains.
    pub(in crate::grpc) fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let violations = details.bad_request().map(|bad| &bad.field_violations);
        let fields = violations.into_iter().flatten();
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            fields: fields
                .map(|field| (field.field.clone(), field.description.clone()))
                .collect(),
        }
    }

    /// Creates an internal error.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self::new(Code::Internal, ErrorReason::Internal, message)
    }

    /// Creates the error for a request without a credential.
    #[must_use]
    pub fn no_credential() -> Self {
        Self::new(
            Code::Unauthenticated,
            ErrorReason::CredentialMissing,
            "no credential: send `authorization: Bearer <JWT>` from a configured issuer",
        )
    }

    fn new(code: Code, reason: ErrorReason, message: &str) -> Self {
        Self {
            code,
            reason: reason.as_str_name().replace("ERROR_REASON_", ""),
            message: message.to_owned(),
            retry_after: None,
            fields: Vec::new(),
        }
    }
}
