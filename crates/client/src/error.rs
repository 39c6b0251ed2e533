//! The errors of the client, grouped by what the caller should do. No error is a verdict (R13).

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The delay before a retry if the server does not state one.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a question was not answered, or why a client could not be built. An error says nothing about
/// the token. So do not let the incoming request proceed, but do not report that its token is bad
/// either.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the client is wrong. Correct the setting.
    #[error("{name}: {problem}")]
    Setting {
        /// The name of the builder's method that sets this setting.
        name: &'static str,
        /// What is wrong with the setting, and how to correct it.
        problem: String,
    },
    /// The caller's own credential could not be obtained. Fix its source.
    #[error("the credential of this service could not be obtained: {0}")]
    Credential(Box<dyn std::error::Error + Send + Sync>),
    /// The question was not decided, because no server was reached in time or no server was able to
    /// decide it. Answer the incoming request with 503, and put `retry_after` in `Retry-After`.
    #[error("not decided ({reason}): {message}")]
    Undecided {
        /// The error reason in the contract, such as `NOT_FRESH`, or the gRPC code if there is no
        /// reason.
        reason: String,
        /// A description of the cause.
        message: String,
        /// How long to wait before a retry.
        retry_after: Duration,
    },
    /// The question is malformed. Correct the fields that the error lists.
    #[error("the question is ill-formed: {message}")]
    Question {
        /// A description of the cause.
        message: String,
        /// The path of each wrong field, and what is wrong with the field.
        fields: Vec<(String, String)>,
    },
    /// The `min_revision` of the question belongs to another change log, or the server has not
    /// reached it yet. Repeat the question without a `min_revision`.
    #[error("the requested revision is unknown: {message}")]
    RevisionUnknown {
        /// A description of the cause.
        message: String,
    },
    /// This service may not introspect tokens, because its own credential is invalid or lacks the
    /// introspect role. Correct the credential. The error says nothing about the token.
    #[error("this service may not ask ({reason}): {message}")]
    NotEntitled {
        /// The error reason in the contract, such as `CREDENTIAL_INVALID`.
        reason: String,
        /// A description of the cause.
        message: String,
    },
    /// The server's response contains something that this client does not know. Update this client.
    #[error("the server's response cannot be interpreted: {what}; update this client")]
    Unreadable {
        /// The part of the response that this client does not know.
        what: &'static str,
    },
    /// The server failed in a way that a retry does not fix. Report the failure to its operators.
    #[error("the server refused ({reason}): {message}")]
    Refused {
        /// The error reason in the contract, such as `INTERNAL`, or the gRPC code if there is no
        /// reason.
        reason: String,
        /// A description of the cause.
        message: String,
    },
}

impl Error {
    pub(super) fn setting(name: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Setting { name, problem }
    }

    /// Returns the error for a question that was not answered in time.
    pub(super) fn late(timeout: Duration) -> Self {
        Self::Undecided {
            reason: "DEADLINE_EXCEEDED".to_owned(),
            message: format!("no answer within {timeout:?}"),
            retry_after: RETRY_AFTER,
        }
    }

    /// Returns whether a later retry may succeed.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided { .. })
    }
}

/// Returns the error reason in a status, if the status comes from the service itself.
pub(super) fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "stacktoken").then_some(info.reason)
}

/// Returns the name of a code in the spelling of the gRPC specification, such as `UNAVAILABLE`.
pub(super) fn code_name(code: Code) -> String {
    let words = format!("{code:?}");
    let mut name = String::new();
    for (at, letter) in words.char_indices() {
        if at > 0 && letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// Returns the retry delay that the server requests.
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Returns whether a retry may succeed. This is the case if the status reports an outage, or if it
/// does not come from the service itself, for example because the connection broke.
pub(super) fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => reason(status).is_none(),
        _ => false,
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let own = reason(&status);
        let reason = own.unwrap_or_else(|| code_name(status.code()));
        let message = status.message().to_owned();
        match status.code() {
            Code::DeadlineExceeded | Code::ResourceExhausted => undecided(reason, message, &status),
            _ if may_pass(&status) => undecided(reason, message, &status),
            Code::InvalidArgument => Self::Question {
                message,
                fields: fields(&status),
            },
            Code::OutOfRange => Self::RevisionUnknown { message },
            Code::Unauthenticated | Code::PermissionDenied => Self::NotEntitled { reason, message },
            _ => Self::Refused { reason, message },
        }
    }
}

fn undecided(reason: String, message: String, status: &Status) -> Error {
    Error::Undecided {
        reason,
        message,
        retry_after: retry_after(status).unwrap_or(RETRY_AFTER),
    }
}

fn fields(status: &Status) -> Vec<(String, String)> {
    let bad = status.get_details_bad_request();
    let faults = bad.map(|bad| bad.field_violations).unwrap_or_default();
    faults
        .into_iter()
        .map(|fault| (fault.field, fault.description))
        .collect()
}
