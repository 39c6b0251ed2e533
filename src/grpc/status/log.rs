//! Logs failed calls, with the causes that are never sent to the client.

use std::{error::Error as _, fmt::Write as _};

use tonic::Code;

use super::{ErrorParts, Failure};
use crate::app;

/// Logs the request id and the chain of causes of a failed call, if the operator may have to act.
pub(super) fn log(failure: &Failure, parts: &ErrorParts, request_id: &str) {
    let Some(error) = failure.app_error() else {
        return;
    };
    let mut cause = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        // Writing to a `String` never fails.
        let _ = write!(cause, "{source}: ");
        next = source.source();
    }
    let cause = cause.trim_end_matches(": ");
    match parts.code {
        Code::Internal => tracing::error!(request_id, reason = parts.reason, cause, "call failed"),
        Code::Unavailable => {
            tracing::warn!(request_id, reason = parts.reason, cause, "call failed");
        }
        // Other failures with this code are not logged, but a full store requires action by the
        // operator.
        _ if matches!(error, app::Error::StorageFull(_)) => {
            tracing::warn!(request_id, reason = parts.reason, cause, "call failed");
        }
        _ => return,
    }
    // The lines above are sampled. At debug level, every such failure is logged.
    tracing::debug!(request_id, reason = parts.reason, cause, "call failed");
}
