//! Reports a failed call in one line with code, reason, message and request id. The exit code never
//! presents an outage as a refusal.

use std::error::Error;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::{
    cli::exit::{FAILURE, Failed, NOT_FOUND, REFUSED, UNAVAILABLE, USAGE},
    grpc::status::name_of,
};

/// The reasons of `RESOURCE_EXHAUSTED` that report a shortage in the service. All other reasons of
/// this code are limits of the stack, which apply until somebody changes them.
const SHORTAGES: [&str; 3] = ["RATE_LIMITED", "OVERLOADED", "STORAGE_FULL"];

/// Converts the status of a failed call to an error for the user. If the status contains a request
/// id, it is shown instead of `request_id`, because a proxy may have replaced the client's id.
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

/// Returns whether this client's own timeout ended the call. In that case tonic reports CANCELLED.
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

/// Returns whether the status reports a limit that does not go away with a retry. If the status has
/// a retry delay, or has no reason of this service because a proxy sent it, it reports an overload
/// instead.
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

/// Returns the server's text as one printable line, even if it contains line breaks or control
/// characters.
fn printable(text: &str) -> String {
    let shown = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(shown).collect()
}
