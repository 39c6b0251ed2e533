//! Builds the gRPC status of every failure, with code, message and details. The message says what
//! is wrong and what to do next. The causes are written only to the log.

use std::{collections::HashMap, error::Error as _, fmt::Write as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, QuotaViolation, StatusExt as _};

use crate::{
    app,
    domain::{
        field::Violations,
        refusal::{Candidate, Refusal, Why},
    },
    grpc::{field_violations, pb::v1::ErrorReason},
};

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "stacktoken";
/// Prefix of the generated names of `ErrorReason`.
const PREFIX: &str = "ERROR_REASON_";
/// The retry delay after an outage that may be brief.
const SOON: Duration = Duration::from_secs(1);

/// Why a call fails.
#[derive(Debug)]
pub enum Failure {
    /// The message has these missing or invalid fields.
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

/// Code, reason and message of a failure, with metadata and retry delay.
struct Told {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Told {
    fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::named(code, name_of_reason(reason), message)
    }

    /// Creates a `Told` from the name of a reason, as refusals contain it.
    fn named(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            reason,
            message,
            metadata: HashMap::new(),
            retry_after: None,
        }
    }

    fn unavailable(reason: ErrorReason, message: &str) -> Self {
        Self {
            retry_after: Some(SOON),
            ..Self::new(Code::Unavailable, reason, message)
        }
    }

    fn with(mut self, name: &str, value: &impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }
}

/// Returns the name of a reason without the prefix that protobuf's naming rules require.
fn name_of_reason(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Builds the status of a failure, with the request id.
#[must_use]
pub fn of(failure: impl Into<Failure>, request_id: &str) -> Status {
    let failure = failure.into();
    let told = tell(&failure);
    log(&failure, &told, request_id);
    let mut details = ErrorDetails::with_error_info(told.reason, DOMAIN, told.metadata);
    details.set_request_info(request_id, "");
    if let Some(retry_after) = told.retry_after {
        details.set_retry_info(Some(retry_after));
    }
    match &failure {
        Failure::Invalid(violations)
        | Failure::App(app::Error::Refused(Refusal::Invalid(violations))) => {
            field_violations::add_to(&mut details, violations);
        }
        Failure::App(app::Error::Refused(Refusal::LimitReached { candidates, .. })) => {
            let candidate = |candidate: &Candidate| {
                QuotaViolation::new(format!("token:{}", candidate.uid), in_words(candidate))
            };
            let whole = QuotaViolation::new("live tokens of the stack", &told.message);
            let violations = std::iter::once(whole).chain(candidates.iter().map(candidate));
            details.set_quota_failure(violations.collect::<Vec<_>>());
        }
        _ => {}
    }
    Status::with_error_details(told.code, told.message, details)
}

fn in_words(Candidate { name, why, .. }: &Candidate) -> String {
    let why = match why {
        Why::ExpiresSoonest(at) => format!("expires soonest, at {at}"),
        Why::NeverUsed(at) => format!("never used since it was issued at {at}"),
        Why::LastUsed(at) => format!("idle longest, last used at {at}"),
    };
    format!("a candidate to revoke: {name} ({why})")
}

/// Returns the reason of a failure, for metrics.
#[must_use]
pub fn reason_of(failure: &Failure) -> &'static str {
    tell(failure).reason
}

/// Returns the status for a handler that was reached without the middleware.
#[must_use]
pub fn unlayered() -> Status {
    of(
        app::Error::Internal("a handler was reached without its layers".into()),
        "",
    )
}

/// Returns the status that replaces a status from tonic, for example for an unknown method or a
/// message that tonic cannot decode. So every error has our details.
#[must_use]
pub fn in_place_of(code: Code, message: &str, request_id: &str) -> Status {
    let failure = match code {
        Code::Unimplemented => Failure::RpcUnknown,
        Code::Cancelled | Code::DeadlineExceeded => Failure::Deadline,
        Code::OutOfRange | Code::Internal | Code::InvalidArgument | Code::ResourceExhausted => {
            Failure::Unreadable(message.to_owned())
        }
        _ => Failure::App(app::Error::Internal(message.into())),
    };
    of(failure, request_id)
}

#[rustfmt::skip]
fn tell(failure: &Failure) -> Told {
    match failure {
        Failure::Invalid(violations) => {
            Told::new(Code::InvalidArgument, ErrorReason::InvalidField, field_violations::in_words(violations))
        }
        Failure::Unreadable(why) => Told::new(Code::InvalidArgument, ErrorReason::InvalidField, format!(
            "the request message cannot be read: {why}; check it against the contract, and keep it within 64 KiB, a BatchIntrospect within 1 MiB")),
        Failure::HeadersTooLarge { max } => Told::new(Code::InvalidArgument, ErrorReason::InvalidField, format!(
            "the headers of the call are larger than {max} bytes: send less metadata")),
        Failure::CredentialMissing => Told::new(Code::Unauthenticated, ErrorReason::CredentialMissing,
            "no credential: send `authorization: Bearer <JWT>` from a configured issuer, or, as a service, a client certificate that the issuers file lists"),
        Failure::CertificateUnlisted => Told::new(Code::Unauthenticated, ErrorReason::CredentialInvalid,
            "the client certificate stands for nobody: have its SPIFFE id or DNS name listed under [[mtls]] in the issuers file, or send `authorization: Bearer <JWT>`"),
        Failure::CertificateExpired => Told::new(Code::Unauthenticated, ErrorReason::CredentialInvalid,
            "the client certificate has expired since this connection was made: reconnect with a valid one"),
        Failure::CredentialInvalid => Told::new(Code::Unauthenticated, ErrorReason::CredentialInvalid,
            "the credential is malformed, expired, not yet valid, or not from a configured issuer for this audience: obtain a new JWT and send it once, as `authorization: Bearer <JWT>`"),
        Failure::TokenNotAcceptedHere => Told::new(Code::Unauthenticated, ErrorReason::TokenNotAcceptedHere,
            "a management token is no credential for this service: sign in with an identity provider and send its JWT; revoke the token if it was exposed by this call"),
        Failure::KeysUnavailable => Told::unavailable(ErrorReason::KeysUnavailable,
            "the issuer's keys are unavailable, so the credential cannot be verified: try again"),
        Failure::App(error) => tell_app(error),
        Failure::Deadline => Told::new(Code::DeadlineExceeded, ErrorReason::Deadline,
            "the call did not finish within its deadline: a change may or may not have been made, so look before trying again"),
        Failure::Overloaded => Told::unavailable(ErrorReason::Overloaded, "more calls than this replica takes: try again"),
        Failure::Starting => Told::unavailable(ErrorReason::StoreUnavailable,
            "this replica waits for its database: try again, or ask another"),
        Failure::Draining => Told::unavailable(ErrorReason::Draining, "this replica is stopping: try again, another will answer"),
        Failure::RpcUnknown => Told::new(Code::Unimplemented, ErrorReason::RpcUnknown,
            "no such RPC: `grpcurl list` shows the services, `grpcurl describe` their methods"),
    }
}

fn tell_app(error: &app::Error) -> Told {
    match error {
        app::Error::Refused(refusal) => tell_refusal(refusal),
        app::Error::StoreUnavailable(error) if error.is_read_only() => Told::unavailable(
            ErrorReason::StoreUnavailable,
            "the database is read-only, so nothing was decided or changed: try again, or ask another",
        ),
        app::Error::StoreUnavailable(_) => Told::unavailable(
            ErrorReason::StoreUnavailable,
            "the store cannot be reached, so nothing was decided or changed: try again",
        ),
        app::Error::OutcomeUnknown(_) => Told::unavailable(
            ErrorReason::StoreUnavailable,
            "the store did not say whether the change was made: look before trying again",
        ),
        app::Error::NotFresh => Told::unavailable(
            ErrorReason::NotFresh,
            "this replica cannot tell whether what it knows is fresh enough: try again, or ask another",
        ),
        app::Error::RevisionUnknown => Told::new(
            Code::OutOfRange,
            ErrorReason::RevisionUnknown,
            "min_revision is of another history or one not reached yet: send a revision as it was answered, or none",
        ),
        app::Error::WatchUnknown => Told::new(
            Code::OutOfRange,
            ErrorReason::RevisionUnknown,
            "from_revision, or what was watched, is of another history or one not reached yet: forget everything, then watch without from_revision",
        ),
        app::Error::RevisionPurged => Told::new(
            Code::OutOfRange,
            ErrorReason::RevisionPurged,
            "the changes since are no longer kept, or too many to tell: forget everything, then watch without from_revision",
        ),
        app::Error::WatchLagged => Told::new(
            Code::Aborted,
            ErrorReason::WatchLagged,
            "changes came faster than this client read them: watch again from the last revision",
        ),
        app::Error::Overloaded => Told::unavailable(
            ErrorReason::Overloaded,
            "more calls than this replica takes: try again",
        ),
        app::Error::StorageFull(_) => Told::unavailable(
            ErrorReason::StorageFull,
            "the store has no space left, so nothing was changed: try again when there is",
        ),
        app::Error::AuditUnavailable(_) => Told::unavailable(
            ErrorReason::AuditUnavailable,
            "the audit could not be written, so nothing was changed: try again",
        ),
        app::Error::ClockSkew => Told::unavailable(
            ErrorReason::ClockSkew,
            "a clock is wrong by more than the permitted skew, so nothing was decided or changed: try again, or ask another replica",
        ),
        app::Error::Internal(_) => Told::new(
            Code::Internal,
            ErrorReason::Internal,
            "a fault of this service: report it with the request id",
        ),
    }
}

#[rustfmt::skip]
fn tell_refusal(refusal: &Refusal) -> Told {
    let told = |code, message: &str| Told::named(code, refusal.reason(), message);
    match refusal {
        Refusal::RoleRequired { required } => told(Code::PermissionDenied, &format!(
            "this takes: {required}; ask one of those, or to be made one")).with("required", required),
        Refusal::StackNotFound => told(Code::NotFound,
            "no such stack, or none that you have a part in: check stack_api_key, or ask its owner to be added"),
        Refusal::TokenNotFound => told(Code::NotFound,
            "no such token in this stack: List shows the ones there are"),
        Refusal::NameTaken => told(Code::AlreadyExists,
            "a live token of this stack has this name: choose another, or revoke that token first"),
        Refusal::RequestIdReused { token_uid } => told(Code::AlreadyExists,
            "this request_id was used before and cannot be answered again: look at the token that token_uid names, and choose another request_id for something new")
            .with("token_uid", token_uid),
        Refusal::Invalid(violations) => told(Code::InvalidArgument, &field_violations::in_words(violations)),
        Refusal::StackKeyTaken => told(Code::AlreadyExists,
            "this stack key is in use or belonged to a removed stack: leave stack_api_key out to have one made"),
        Refusal::LimitReached { limit, .. } => told(Code::ResourceExhausted, &format!(
            "the stack has {} live tokens of at most {}: revoke one, or ask an operator to raise the limit", limit.used, limit.max))
            .with("used", &limit.used).with("max", &limit.max),
        Refusal::TokenRevoked => told(Code::FailedPrecondition,
            "the token is revoked and stays so: issue a new one"),
        Refusal::TokenExpired => told(Code::FailedPrecondition,
            "the token has expired and stays so: issue a new one"),
        Refusal::StackSuspended => told(Code::FailedPrecondition,
            "the stack is suspended: ask an operator to resume it; revoking and earlier expiries work meanwhile"),
        Refusal::OwnerRequired => told(Code::FailedPrecondition,
            "a stack has exactly one owner, who cannot be removed or demoted: use TransferOwnership"),
        Refusal::PreviewChanged { count } => told(Code::Aborted, &format!(
            "these are not the tokens that were previewed: {count} would be revoked now, and none was; call again with validate_only, look at what it answers, and send its preview_hash"))
            .with("count", count),
        Refusal::RateLimited { retry_after_ms } => Told {
            retry_after: Some(Duration::from_millis(*retry_after_ms)),
            ..told(Code::ResourceExhausted, "too many of these from one caller: wait as long as RetryInfo says")
        },
    }
}

/// Logs the request id of a failed call and the chain of causes, which is never sent to the client.
fn log(failure: &Failure, told: &Told, request_id: &str) {
    let Failure::App(error) = failure else { return };
    let mut cause = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a `String` never fails.
        let _ = write!(cause, "{source}: ");
        next = source.source();
    }
    let cause = cause.trim_end_matches(": ");
    match told.code {
        Code::Internal => tracing::error!(request_id, reason = told.reason, cause, "call failed"),
        Code::Unavailable => tracing::warn!(request_id, reason = told.reason, cause, "call failed"),
        _ => return,
    }
    // The lines above are sampled. This line reports every failure, at debug level.
    tracing::debug!(request_id, reason = told.reason, cause, "call failed");
}

/// Returns the health protocol's status for an unknown service name.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the maker of statuses")]
pub fn health_unknown() -> Status {
    let names = "\"\", stacktoken.v1.IntrospectionService and stacktoken.v1.TokenService";
    Status::not_found(format!("no such service: ask about {names}"))
}

/// Returns the reason in the headers of an error response, if the API defines that reason.
#[must_use]
pub fn reason_in(headers: &http::HeaderMap) -> Option<&'static str> {
    if !headers.contains_key("grpc-status-details-bin") {
        return None;
    }
    let reason = Status::from_header_map(headers)?
        .get_details_error_info()?
        .reason;
    let known = ErrorReason::from_str_name(&format!("{PREFIX}{reason}"))?;
    Some(name_of_reason(known))
}

/// Returns the name that OpenTelemetry uses for a status code.
#[must_use]
pub const fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
