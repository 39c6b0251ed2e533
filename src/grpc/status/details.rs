//! Builds the `google.rpc` details of a failure.

use tonic_types::{ErrorDetails, QuotaViolation};

use super::{DOMAIN, ErrorParts, Failure};
use crate::{
    app,
    domain::refusal::{Candidate, Refusal, Why},
    grpc::field_violations,
};

/// Builds the details of a failure, without the request id.
pub(super) fn details(failure: &Failure, parts: &ErrorParts) -> ErrorDetails {
    let mut details = ErrorDetails::with_error_info(parts.reason, DOMAIN, parts.metadata.clone());
    if let Some(retry_after) = parts.retry_after {
        details.set_retry_info(Some(retry_after));
    }
    match (failure, failure.app_error()) {
        (Failure::Invalid(violations), _)
        | (_, Some(app::Error::Refused(Refusal::Invalid(violations)))) => {
            field_violations::add_to(&mut details, violations);
        }
        (_, Some(app::Error::Refused(Refusal::LimitReached { candidates, .. }))) => {
            let candidate = |candidate: &Candidate| {
                QuotaViolation::new(format!("token:{}", candidate.uid), summary(candidate))
            };
            let whole = QuotaViolation::new("live tokens of the stack", &parts.message);
            let violations = std::iter::once(whole).chain(candidates.iter().map(candidate));
            details.set_quota_failure(violations.collect::<Vec<_>>());
        }
        _ => {}
    }
    details
}

fn summary(Candidate { name, why, .. }: &Candidate) -> String {
    let why = match why {
        Why::ExpiresSoonest(at) => format!("expires soonest, at {at}"),
        Why::NeverUsed(at) => format!("never used since it was issued at {at}"),
        Why::LastUsed(at) => format!("idle longest, last used at {at}"),
    };
    format!("a candidate to revoke: {name} ({why})")
}
