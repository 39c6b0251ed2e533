//! Converts messages to domain values and back. Each request is parsed once, and all of its faults
//! are reported together. Responses contain only what the API specifies.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a parser consumes its message, whether or not it keeps anything of it"
)]

pub mod actions;
pub mod audit;
pub mod batch;
pub mod exchange;
mod expiry;
mod federation;
pub mod incidents;
pub mod introspection;
pub mod listing;
pub mod own_stacks;
pub mod permissions;
pub mod rotation;
pub mod stacks;
pub mod tokens;
pub mod update;
pub mod watch;

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    domain::{
        caller::{Actor, CallerKind},
        field::{Problem, Violations},
        impact::Impact,
        page,
        revision::Revision,
        timestamp::Timestamp,
    },
    grpc::pb::v1,
};

fn instant(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.seconds(),
        nanos: at.nanos(),
    }
}

/// Parses an optional string field; an empty string counts as absent.
fn named<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    (!text.is_empty()).then(|| parse(text)).transpose()
}

/// Decodes a page token. If the request has other faults, the query to which the token must belong
/// is not known. Then only the form of the token is checked, so that a malformed token is reported
/// together with the other faults.
fn page_token<C: DeserializeOwned>(
    faults: &mut Violations,
    question: impl Serialize,
    token: &str,
) -> Option<C> {
    let after = if faults.is_empty() {
        page::open(&question, token)
    } else {
        page::check_form(token).map(|()| None)
    };
    faults.keep("page_token", after).flatten()
}

fn parse_instant(at: prost_types::Timestamp) -> Result<Timestamp, Problem> {
    Timestamp::from_parts(at.seconds, at.nanos).ok_or_else(|| {
        Problem::new("is outside the years 0001 to 9999, or its nanos outside 0 to 999,999,999")
    })
}

/// Parses a duration that is not negative. Its seconds and nanoseconds must have the same sign, as
/// `google.protobuf.Duration` requires.
fn parse_duration(length: prost_types::Duration) -> Result<Duration, Problem> {
    let nanos = u32::try_from(length.nanos).ok();
    let nanos = nanos.filter(|nanos| *nanos < 1_000_000_000);
    let parts = u64::try_from(length.seconds).ok().zip(nanos);
    let parsed = parts.map(|(seconds, nanos)| Duration::new(seconds, nanos));
    parsed.ok_or_else(|| {
        Problem::new("is negative, or is not a duration: seconds and nanos have different signs, or nanos are beyond 999,999,999")
    })
}

/// Returns the revision of a change as text. The text is empty for a preview, which has no
/// revision.
pub fn revision(revision: Option<Revision>) -> String {
    revision.map_or_else(String::new, |revision| revision.to_string())
}

/// Builds the message that states which services a change would affect.
pub fn impact(impact: Impact) -> v1::Impact {
    v1::Impact {
        last_used_at: impact.last_used_at.map(instant),
        services: services(&impact),
    }
}

/// Builds the message that states when a token was last used, and by which services.
pub fn usage(usage: Impact) -> v1::GetUsageResponse {
    v1::GetUsageResponse {
        last_used_at: usage.last_used_at.map(instant),
        services: services(&usage),
    }
}

fn services(impact: &Impact) -> Vec<v1::ServiceUse> {
    let services = impact.services.iter().map(|used| v1::ServiceUse {
        service: Some(actor(&used.service)),
        last_used_at: Some(instant(used.last_used_at)),
    });
    services.collect()
}

fn actor(actor: &Actor) -> v1::Actor {
    let kind = match actor.kind {
        CallerKind::User => v1::CallerKind::User,
        CallerKind::Service => v1::CallerKind::Service,
        CallerKind::Operator => v1::CallerKind::Operator,
        CallerKind::Workload => v1::CallerKind::Workload,
    };
    v1::Actor {
        kind: kind.into(),
        issuer: actor.issuer.clone(),
        subject: actor.subject.clone(),
    }
}
