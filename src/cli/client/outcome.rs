//! Reports a failed call in one line with code, reason, message and request id. Chooses the exit
//! code so that an outage is never reported as a refusal.

use std::error::Error;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use super::{
    fields::{self, Sent},
    text::printable,
};
use crate::{
    cli::{
        exit::{ExitError, FAILURE, NOT_FOUND, REFUSED, UNAVAILABLE, USAGE},
        output::{error_text, without_repetition},
    },
    grpc::code::name_of,
};

/// The reasons with the code `RESOURCE_EXHAUSTED` that report a temporary shortage in the service.
/// All other reasons with this code are limits, which a retry does not overcome.
const SHORTAGES: [&str; 3] = ["RATE_LIMITED", "OVERLOADED", "STORAGE_FULL"];

/// Converts the status of a failed call to an error for the user, which names flags instead of
/// fields. If the status contains a request id, that id is shown instead of `request_id`, because a
/// proxy may have replaced the client's id.
pub fn failure<T: Sent>(status: &Status, request_id: &str) -> ExitError {
    let mut message = described(status, &fields::message_of::<T>(status));
    if let Some(data) = data_of(status) {
        message = format!("{message} ({data})");
    }
    let info = status.get_details_request_info();
    let known = info.map(|info| info.request_id);
    let known = known.filter(|id| !id.is_empty());
    let request_id = known.as_deref().unwrap_or(request_id);
    let failed = ExitError::new(exit_code(status), printable(&message));
    let failed = failed.with_request_id(&printable(request_id));
    if is_undecided(status) {
        failed.with_unknown_outcome()
    } else {
        failed
    }
}

/// Formats an error of a call. Formats a status like [`failure`], with code and reason.
pub fn words_of_error(error: &anyhow::Error) -> String {
    let status = error.downcast_ref::<Status>();
    status.map_or_else(|| error_text(error), words_of)
}

/// Formats a status with its code, reason, message and the causes that the library added.
fn words_of(status: &Status) -> String {
    described(status, status.message())
}

fn described(status: &Status, message: &str) -> String {
    let mut name = name_of(status.code()).to_owned();
    if let Some(info) = status.get_details_error_info() {
        name = format!("{name}/{}", info.reason);
    }
    let message = format!("{name}: {message}");
    let causes = causes(status).map(ToString::to_string);
    printable(&without_repetition(message, causes))
}

/// Returns those details of the error that a user needs: the id of the token that already has the
/// name or that an earlier request created, the current etag, and the tokens that could be revoked.
fn data_of(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let mut parts = Vec::new();
    if let Some(info) = details.error_info() {
        let known = ["token_uid", "etag"].into_iter();
        parts.extend(known.filter_map(|key| Some(format!("{key} {}", info.metadata.get(key)?))));
    }
    if let Some(quota) = details.quota_failure() {
        let candidates = quota.violations.iter();
        let candidates = candidates.filter(|violation| violation.subject.starts_with("token:"));
        parts.extend(candidates.map(|one| format!("{}: {}", one.subject, one.description)));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns whether a change may have been made although the call failed. This is not the case if
/// the server states one of the reasons below, with which it never makes a change.
fn is_undecided(status: &Status) -> bool {
    const NOTHING_DONE: [&str; 8] = [
        "RATE_LIMITED",
        "OVERLOADED",
        "STORAGE_FULL",
        "DRAINING",
        "CLOCK_SKEW",
        "KEYS_UNAVAILABLE",
        "NOT_FRESH",
        "AUDIT_UNAVAILABLE",
    ];
    let info = status.get_details_error_info();
    let refused = info.is_some_and(|info| NOTHING_DONE.contains(&info.reason.as_str()));
    exit_code(status) == UNAVAILABLE && !refused
}

/// Returns whether this client's own timeout ended the call, which tonic reports as CANCELLED.
pub fn is_own_timeout(status: &Status) -> bool {
    causes(status).any(<dyn Error>::is::<TimeoutExpired>)
}

fn exit_code(status: &Status) -> u8 {
    match status.code() {
        Code::NotFound => NOT_FOUND,
        Code::InvalidArgument => USAGE,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => REFUSED,
        Code::ResourceExhausted if is_limit(status) => REFUSED,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted => {
            UNAVAILABLE
        }
        // tonic reports a broken connection as UNKNOWN with a source. A status that the server sent
        // has no source.
        Code::Unknown if status.source().is_some() => UNAVAILABLE,
        Code::Ok
        | Code::Unknown
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => FAILURE,
    }
}

/// Returns whether the status reports a limit that a retry does not overcome. A status with a retry
/// delay, or one without a reason of this service, which a proxy may have sent, counts as an
/// overload instead.
fn is_limit(status: &Status) -> bool {
    let details = status.get_error_details();
    let waits = details.retry_info().is_some();
    let reason = details.error_info().map(|info| info.reason.as_str());
    !waits && reason.is_some_and(|reason| !SHORTAGES.contains(&reason))
}

/// Returns the causes of a status. Only a status that the library itself created has causes.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}
