//! Why there is no answer, by what there is to do about it. None of these is a verdict (R13).

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How long to wait where nobody said.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a question is not answered, or a client not built. Says nothing about any token: the
/// request at hand neither goes on nor is told that its token is bad.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the client is wrong. Mend it.
    #[error("{name}: {problem}")]
    Setting {
        /// Which, by the name of the builder's method.
        name: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The caller's own credential could not be had. Mend its source.
    #[error("the caller's own credential could not be had: {0}")]
    Credential(Box<dyn std::error::Error + Send + Sync>),
    /// Nobody could decide just now: no server was reached in time, or none that could answer.
    /// Answer the request at hand as 503, with this time in `Retry-After`.
    #[error("not decided ({reason}): {message}")]
    Undecided {
        /// The error reason of the contract, such as `NOT_FRESH`; else gRPC's code.
        reason: String,
        /// In words.
        message: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The question is ill-formed. Mend the fields named.
    #[error("the question is ill-formed: {message}")]
    Question {
        /// In words.
        message: String,
        /// The path of each field and what is wrong with it.
        fields: Vec<(String, String)>,
    },
    /// The `min_revision` of the question is of another history, or not reached. Ask without.
    #[error("the revision asked for is not known: {message}")]
    RevisionUnknown {
        /// In words.
        message: String,
    },
    /// This service may not ask: its own credential is bad, or lacks the introspect role.
    /// Mend that; it says nothing about the token.
    #[error("this service may not ask ({reason}): {message}")]
    NotEntitled {
        /// The error reason of the contract, such as `CREDENTIAL_INVALID`.
        reason: String,
        /// In words.
        message: String,
    },
    /// The server's answer holds what this client does not know. Update this client.
    #[error("the server's answer is not understood: {what}; update this client")]
    Unreadable {
        /// Which part of it.
        what: &'static str,
    },
    /// The server failed in a way that asking again does not mend. Report it.
    #[error("the server refused ({reason}): {message}")]
    Refused {
        /// The error reason of the contract, such as `INTERNAL`; else gRPC's code.
        reason: String,
        /// In words.
        message: String,
    },
}

impl Error {
    pub(super) fn setting(name: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Setting { name, problem }
    }

    /// No answer in time.
    pub(super) fn late(timeout: Duration) -> Self {
        Self::Undecided {
            reason: "DEADLINE_EXCEEDED".to_owned(),
            message: format!("no answer within {timeout:?}"),
            retry_after: RETRY_AFTER,
        }
    }

    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided { .. })
    }
}

/// The reason of the contract, if the status is the service's own.
pub(super) fn reason(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == "stacktoken").then_some(info.reason)
}

/// A code as the contract spells it: `UNAVAILABLE`.
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

/// How long the server asks to wait.
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Whether the failure may be gone on another try: it is an outage, or it is nothing that the
/// service itself has said, as when the connection broke.
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
