//! Defines the failures of calls, from which statuses are built.

use std::sync::Arc;

use crate::{
    app,
    domain::{field::Violations, refusal::Refusal},
};

/// Why a call fails.
#[derive(Debug)]
pub enum Failure {
    /// These fields of the message are missing or invalid.
    Invalid(Violations),
    /// The message cannot be decoded, for this reason.
    Unreadable(String),
    /// The headers are larger than the limit.
    HeadersTooLarge {
        /// The limit in bytes.
        max: u32,
    },
    /// The call has no credential.
    CredentialMissing,
    /// The credential is invalid.
    CredentialInvalid,
    /// A management token was sent as the caller's credential.
    TokenNotAcceptedHere,
    /// The only credential is a client certificate whose names are not in the issuers file.
    CertificateUnlisted,
    /// The client certificate has expired since the connection was opened.
    CertificateExpired,
    /// The issuer's keys are unavailable.
    KeysUnavailable,
    /// The use case returned this error.
    App(app::Error),
    /// The use case returned this error for one or more questions of a batch.
    Question(Arc<app::Error>),
    /// The message is compressed with an encoding that this server does not support.
    EncodingUnsupported {
        /// The name of the encoding; `None` if it is not printable.
        name: Option<String>,
    },
    /// The client has cancelled the call or lost its connection. It cannot receive this error, but
    /// the error is counted.
    Cancelled,
    /// The deadline has passed.
    Deadline,
    /// The limit on concurrent calls is reached.
    Overloaded,
    /// This replica is stopping.
    Draining,
    /// This replica has no database connection yet.
    Starting,
    /// The RPC does not exist.
    RpcUnknown,
}

impl Failure {
    pub(in crate::grpc) fn app_error(&self) -> Option<&app::Error> {
        match self {
            Self::App(error) => Some(error),
            Self::Question(error) => Some(error),
            _ => None,
        }
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        Self::App(error)
    }
}

impl From<Violations> for Failure {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::App(app::Error::Refused(refusal))
    }
}
