//! Reports a failed call: one line with code, reason, message and request id, and an exit code that
//! never reports an outage as a refusal.

use std::error::Error;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::{
    cli::exit::{FAILURE, Failed, NOT_FOUND, REFUSED, UNAVAILABLE, USAGE},
    grpc::status::name_of,
};

/// Reasons of `RESOURCE_EXHAUSTED` that report a shortage in the service. Its other reasons are
/// limits of the stack, which apply until somebody changes them.
const SHORTAGES: [&str; 3] = ["RATE_LIMITED", "OVERLOADED", "STORAGE_FULL"];

/// Returns the failure that a status reports, in a call of this id. The id in the status takes
/// precedence: a proxy may have given the call another one.
pub fn failure(status: &Status, request_id: &str) -> Failed {
    let mut name = name_of(status.code()).to_owned();
    if let Some(info) = status.get_details_error_info() {
        name = format!("{name}/{}", info.reason);
    }
    let mut message = format!("{name}: {}", status.message());
    for cause in causes(status) {
        message = format!("{message}: {cause}");
    }
    let info = status.get_details_request_info();
    let known = info.map(|info| info.request_id);
    let known = known.filter(|id| !id.is_empty());
    let request_id = known.as_deref().unwrap_or(request_id);
    Failed::new(exit_code(status), printable(&message)).with_request_id(&printable(request_id))
}

/// Returns whether this client's own timeout ended the call. The library then reports CANCELLED.
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
        // This is how the library reports a broken connection; a status sent by the server has no
        // source.
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

/// Returns whether a limit is reached that a retry does not lift. A retry delay, or no reason of
/// the service's own (as from a proxy in between), indicates an overload instead.
fn is_limit(status: &Status) -> bool {
    let details = status.get_error_details();
    let waits = details.retry_info().is_some();
    let reason = details.error_info().map(|info| info.reason.as_str());
    !waits && reason.is_some_and(|reason| !SHORTAGES.contains(&reason))
}

/// Returns the causes of a status that the library created itself.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

/// Returns the text as one line, whatever the server sent.
fn printable(text: &str) -> String {
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(shown).collect()
}
