//! Builds the gRPC status of a failed call: code, message and `google.rpc` details. The message
//! says what is wrong and what to do next. The causes are only logged, because they can reveal
//! internals.

mod details;
mod failure;
mod log;
mod received;
mod role;

use std::{collections::HashMap, time::Duration};

use prost::Message as _;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{StatusExt as _, pb};

use crate::{
    app,
    domain::refusal::Refusal,
    grpc::{field_violations, pb::v1::ErrorReason},
    metrics::Metrics,
};

pub use self::{failure::Failure, received::ReceivedError};

/// `ErrorInfo.domain` of every error.
const DOMAIN: &str = "stacktoken";
/// Prefix of the generated names of `ErrorReason`.
const PREFIX: &str = "ERROR_REASON_";
/// Header with the retry delay in milliseconds, for automatic retries by gRPC client libraries.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The gRPC header that lists the message encodings that this server accepts.
const ACCEPTED: (&str, &str) = ("grpc-accept-encoding", "identity");
/// The reason of a cancelled call. It is not part of the contract, because no client receives it.
const CANCELLED: &str = "CANCELLED";
/// Maximum length of tonic's error text about an unreadable message, in bytes.
const MAX_UNREADABLE: usize = 300;
/// The retry delay for an outage that may be brief.
const SOON: Duration = Duration::from_secs(1);

/// The code, reason, message, metadata and retry delay of a failure.
struct ErrorParts {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl ErrorParts {
    fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::named(code, name_of_reason(reason), message)
    }

    /// Creates an `ErrorParts` from the name of a reason, as [`Refusal::reason`] returns it.
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

/// Returns the name of a reason without the prefix that the naming rules of protobuf require.
fn name_of_reason(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Returns whether the API has a reason of this name, without the prefix.
#[must_use]
pub fn is_reason(name: &str) -> bool {
    let reason = ErrorReason::from_str_name(&format!("{PREFIX}{name}"));
    reason.is_some_and(|reason| reason != ErrorReason::Unspecified)
}

/// Builds the status of a failure, with the request id.
#[must_use]
pub fn of(failure: impl Into<Failure>, request_id: &str) -> Status {
    let failure = failure.into();
    let parts = error_parts(&failure);
    log::log(&failure, &parts, request_id);
    let mut details = details::details(&failure, &parts);
    details.set_request_info(request_id, "");
    let mut metadata = MetadataMap::new();
    if let Some(retry_after) = parts.retry_after {
        let milliseconds = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        metadata.insert(PUSHBACK, milliseconds.into());
    }
    if matches!(failure, Failure::EncodingUnsupported { .. }) {
        metadata.insert(ACCEPTED.0, MetadataValue::from_static(ACCEPTED.1));
    }
    Status::with_error_details_and_metadata(parts.code, parts.message, details, metadata)
}

/// Builds the status of one question of a batch. The status has no request id, because that id
/// belongs to the whole call. Logs the failure only if `logged_id` is set, so that the caller can
/// avoid logging an outage once per question.
#[must_use]
pub fn of_question(failure: &Failure, logged_id: Option<&str>) -> pb::Status {
    let parts = error_parts(failure);
    if let Some(request_id) = logged_id {
        log::log(failure, &parts, request_id);
    }
    let details = details::details(failure, &parts);
    let status = Status::with_error_details(parts.code, parts.message.as_str(), details);
    // The details are an encoded `google.rpc.Status`, as gRPC sends it in a trailer. Decoding
    // cannot fail, because it was just encoded.
    pb::Status::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: parts.code.into(),
        message: parts.message,
        details: Vec::new(),
    })
}

/// Returns the reason of a failure, for metrics.
#[must_use]
pub fn reason_of(failure: &Failure) -> &'static str {
    error_parts(failure).reason
}

/// Counts a failure that does not become the status of a call, such as the failure of one question
/// of a batch.
pub(super) fn count_failure(metrics: &Metrics, failure: &Failure) {
    metrics.note_error(Some(reason_of(failure)));
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
/// message that tonic cannot decode, so that every error has our details.
#[must_use]
pub fn in_place_of(code: Code, message: &str, request_id: &str) -> Status {
    let failure = match code {
        Code::Unimplemented => Failure::RpcUnknown,
        Code::Cancelled => Failure::Cancelled,
        Code::DeadlineExceeded => Failure::Deadline,
        Code::OutOfRange | Code::Internal | Code::InvalidArgument | Code::ResourceExhausted => {
            Failure::Unreadable(message.to_owned())
        }
        _ => Failure::App(app::Error::Internal(message.into())),
    };
    of(failure, request_id)
}

/// Returns the status that replaces the status from tonic in the headers of an error response.
#[must_use]
pub fn in_place_of_headers(headers: &http::HeaderMap, request_id: &str) -> Status {
    // Decodes the message, which is percent-encoded in the headers. Otherwise, the new status would
    // encode it again.
    let theirs = Status::from_header_map(headers);
    let (code, message) = theirs.as_ref().map_or((Code::Unknown, ""), |theirs| {
        (theirs.code(), theirs.message())
    });
    in_place_of(code, message, request_id)
}

#[rustfmt::skip]
fn error_parts(failure: &Failure) -> ErrorParts {
    match failure {
        Failure::Invalid(violations) => {
            ErrorParts::new(Code::InvalidArgument, ErrorReason::InvalidField, field_violations::summary(violations))
        }
        Failure::Unreadable(why) => ErrorParts::new(Code::InvalidArgument, ErrorReason::InvalidField, format!(
            "the request message cannot be read: {}; check it against the contract and the server's size limit (by default 64 KiB, and 1 MiB for BatchIntrospect)", &why[..why.floor_char_boundary(MAX_UNREADABLE)])),
        Failure::HeadersTooLarge { max } => ErrorParts::new(Code::InvalidArgument, ErrorReason::InvalidField, format!(
            "the headers of the call are larger than {max} bytes: send less metadata")),
        Failure::CredentialMissing => ErrorParts::new(Code::Unauthenticated, ErrorReason::CredentialMissing,
            "no credential: send `authorization: Bearer <JWT>` from a configured issuer, or, as a service, a client certificate that the issuers file lists"),
        Failure::CertificateUnlisted => ErrorParts::new(Code::Unauthenticated, ErrorReason::CredentialInvalid,
            "no [[mtls]] entry of the issuers file matches the client certificate: add its SPIFFE id or DNS name there, or send `authorization: Bearer <JWT>`"),
        Failure::CertificateExpired => ErrorParts::new(Code::Unauthenticated, ErrorReason::CredentialInvalid,
            "the client certificate has expired since this connection was made: reconnect with a valid one"),
        Failure::CredentialInvalid => ErrorParts::new(Code::Unauthenticated, ErrorReason::CredentialInvalid,
            "the credential is malformed, expired, not yet valid, or not from a configured issuer for this audience: obtain a new JWT and send it once, as `authorization: Bearer <JWT>`"),
        Failure::TokenNotAcceptedHere => ErrorParts::new(Code::Unauthenticated, ErrorReason::TokenNotAcceptedHere,
            "a management token is not a credential for this service: sign in with an identity provider and send its JWT; revoke the token if it was exposed by this call"),
        Failure::KeysUnavailable => ErrorParts::unavailable(ErrorReason::KeysUnavailable,
            "the issuer's keys are unavailable, so the credential cannot be verified: try again"),
        Failure::App(error) => app_error_parts(error),
        Failure::Question(error) => app_error_parts(error),
        Failure::EncodingUnsupported { name } => ErrorParts::new(Code::Unimplemented, ErrorReason::EncodingUnsupported, format!(
            "the messages of this call are encoded as {}, which this server does not support: send them uncompressed",
            name.as_deref().unwrap_or("an unprintable encoding"))),
        Failure::Cancelled => ErrorParts::named(Code::Cancelled, CANCELLED, "the client has cancelled the call"),
        Failure::Deadline => ErrorParts::new(Code::DeadlineExceeded, ErrorReason::Deadline,
            "the call did not finish within its deadline: a change may or may not have been made, so check before you retry"),
        Failure::Overloaded => ErrorParts::unavailable(ErrorReason::Overloaded, "this replica is at its limit of concurrent calls: try again"),
        Failure::Starting => ErrorParts::unavailable(ErrorReason::StoreUnavailable,
            "this replica waits for its database: try again, or ask another"),
        Failure::Draining => ErrorParts::unavailable(ErrorReason::Draining, "this replica is stopping: try again, another will answer"),
        Failure::RpcUnknown => ErrorParts::new(Code::Unimplemented, ErrorReason::RpcUnknown,
            "no such RPC: `grpcurl list` shows the services, `grpcurl describe` their methods"),
    }
}

fn app_error_parts(error: &app::Error) -> ErrorParts {
    match error {
        app::Error::Refused(refusal) => refusal_parts(refusal),
        app::Error::StoreUnavailable(error) if error.is_read_only() => ErrorParts::unavailable(
            ErrorReason::StoreUnavailable,
            "the database is read-only, so nothing was decided or changed: try again, or ask another",
        ),
        app::Error::StoreUnavailable(_) => ErrorParts::unavailable(
            ErrorReason::StoreUnavailable,
            "the store cannot be reached, so nothing was decided or changed: try again",
        ),
        app::Error::OutcomeUnknown(_) => ErrorParts::unavailable(
            ErrorReason::StoreUnavailable,
            "the outcome of the change is unknown: check whether it was made before you retry",
        ),
        app::Error::NotFresh => ErrorParts::unavailable(
            ErrorReason::NotFresh,
            "this replica cannot guarantee a fresh enough answer: try again, or ask another",
        ),
        app::Error::RevisionUnknown => ErrorParts::new(
            Code::OutOfRange,
            ErrorReason::RevisionUnknown,
            "min_revision is unknown to this server: send a revision from an earlier response, or none",
        ),
        app::Error::WatchUnknown => ErrorParts::new(
            Code::OutOfRange,
            ErrorReason::RevisionUnknown,
            "from_revision is unknown to this server, or its change log was replaced: clear your cache, then watch without from_revision",
        ),
        app::Error::RevisionPurged => ErrorParts::new(
            Code::OutOfRange,
            ErrorReason::RevisionPurged,
            "the changes since from_revision were purged, or are too many to send: clear your cache, then watch without from_revision",
        ),
        app::Error::WatchLagged => ErrorParts::new(
            Code::Aborted,
            ErrorReason::WatchLagged,
            "changes came faster than this client read them: watch again from the last revision",
        ),
        app::Error::KeysUnavailable => ErrorParts::unavailable(
            ErrorReason::KeysUnavailable,
            "the issuer's keys are unavailable, so the JWT cannot be verified: try again",
        ),
        app::Error::Overloaded => ErrorParts::unavailable(
            ErrorReason::Overloaded,
            "this replica is at its limit of concurrent calls: try again",
        ),
        app::Error::StorageFull(_) => ErrorParts {
            retry_after: Some(SOON),
            ..ErrorParts::new(
                Code::ResourceExhausted,
                ErrorReason::StorageFull,
                "the store has no space left, so nothing was changed: try again when there is",
            )
        },
        app::Error::AuditUnavailable(_) => ErrorParts::unavailable(
            ErrorReason::AuditUnavailable,
            "the audit could not be written, so nothing was changed: try again",
        ),
        app::Error::ClockSkew => ErrorParts::unavailable(
            ErrorReason::ClockSkew,
            "a clock is wrong by more than the permitted skew, so nothing was decided or changed: try again, or ask another replica",
        ),
        app::Error::RestoredFromPast => ErrorParts::unavailable(
            ErrorReason::RestoredFromPast,
            "the database was restored from a backup, so what was revoked since could work again: nothing is decided or changed until an operator has run `stacktoken restore apply`",
        ),
        app::Error::GuardUnavailable => ErrorParts::unavailable(
            ErrorReason::StoreUnavailable,
            "the restore guard does not accept the change, so nothing was changed: try again",
        ),
        app::Error::Internal(_) => ErrorParts::new(
            Code::Internal,
            ErrorReason::Internal,
            "internal error: report it with the request id",
        ),
    }
}

#[rustfmt::skip]
fn refusal_parts(refusal: &Refusal) -> ErrorParts {
    let parts = |code, message: &str| ErrorParts::named(code, refusal.reason(), message);
    match refusal {
        Refusal::RoleRequired(required) => role::error_parts(required),
        Refusal::StackNotFound => parts(Code::NotFound,
            "the stack does not exist, or you are not a member of it: check stack_api_key, or ask an operator to add you"),
        Refusal::TokenNotFound => parts(Code::NotFound,
            "no such token in this stack: call List for its tokens"),
        Refusal::NameTaken { token_uid } => parts(Code::AlreadyExists,
            "a live token of this stack, which token_uid names, has this name: choose another, or revoke that token first")
            .with("token_uid", token_uid),
        Refusal::RequestIdReused { token_uid } => parts(Code::AlreadyExists,
            "this request_id was used before, and its answer cannot be repeated: get the token that token_uid names, and use another request_id for a new request")
            .with("token_uid", token_uid),
        Refusal::RequestIdTaken => parts(Code::AlreadyExists,
            "this request_id was used before for a call with other content: repeat that call as it was, or choose another request_id for something new"),
        Refusal::Invalid(violations) => parts(Code::InvalidArgument, &field_violations::summary(violations)),
        Refusal::StackKeyTaken { stack_uid, removed } => parts(Code::AlreadyExists,
            "this stack key is in use or belonged to a removed stack: omit stack_api_key to let the server generate one")
            .with("stack_uid", stack_uid).with("removed", removed),
        Refusal::LimitReached { limit, .. } => parts(Code::ResourceExhausted, &format!(
            "the stack has {} live tokens of at most {}: revoke one, or ask an operator to raise the limit", limit.used, limit.max))
            .with("used", &limit.used).with("max", &limit.max),
        Refusal::TokenRevoked => parts(Code::FailedPrecondition,
            "the token is revoked permanently: issue a new one"),
        Refusal::TokenExpired => parts(Code::FailedPrecondition,
            "the token has expired permanently: issue a new one"),
        Refusal::StackSuspended => parts(Code::FailedPrecondition,
            "the stack is suspended: ask an operator to resume it; revoking and earlier expiries work meanwhile"),
        Refusal::OwnerRequired => parts(Code::FailedPrecondition,
            "a stack has exactly one owner, who cannot be removed or demoted: use TransferOwnership"),
        Refusal::PreviewChanged { count } => parts(Code::Aborted, &format!(
            "the set of tokens has changed since the preview: {count} would be revoked now, and none was; call again with validate_only, check the response, and send its preview_hash"))
            .with("count", count),
        Refusal::EtagMismatch { etag } => parts(Code::Aborted,
            "the token has changed since this etag was read: get the token again, check what has changed, and send its current etag").with("etag", etag),
        Refusal::TokenFederated => parts(Code::FailedPrecondition,
            "the token is federated and has no secret of its own: its sessions end by themselves, or with EndSessions"),
        Refusal::ExchangeRefused(_) => parts(Code::PermissionDenied,
            "the JWT is not exchanged for a secret: ask an owner or admin of the stack to call ExplainExchange with it"),
        Refusal::SessionLimit { max } => parts(Code::ResourceExhausted, &format!(
            "the token or the workload has {max} live sessions, which is the limit: use a session for longer, wait until one ends, or have one ended with EndSessions"))
            .with("max", max),
        Refusal::RateLimited { retry_after_ms } => ErrorParts {
            retry_after: Some(Duration::from_millis(*retry_after_ms)),
            ..parts(Code::ResourceExhausted, "the rate limit of this caller is exceeded: retry after the delay in RetryInfo")
        },
    }
}

/// Returns the status that the health protocol requires for an unknown service name.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the maker of statuses")]
pub fn health_unknown(names: impl Iterator<Item = &'static str>) -> Status {
    let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    Status::not_found(format!(
        "no such service: ask about one of {}",
        names.join(", ")
    ))
}

/// Returns the reason in the headers of an error response; `None` if the API does not define it.
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

/// Returns the error in the headers or trailers of a response; `None` if they contain none.
#[must_use]
pub fn received(headers: &http::HeaderMap) -> Option<ReceivedError> {
    let status = Status::from_header_map(headers)?;
    (status.code() != Code::Ok).then(|| ReceivedError::from_status(&status))
}
