//! Converts messages to domain values and back. Each request is parsed once, and all of its faults
//! are reported together. Responses contain only what the API specifies.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a parser consumes its message, whether or not it keeps anything of it"
)]

pub mod audit;
pub mod batch;
mod expiry;
pub mod incidents;
pub mod introspection;
pub mod permissions;
pub mod stacks;
pub mod tokens;
pub mod watch;

use crate::{
    domain::{
        caller::{Actor, CallerKind},
        field::Problem,
        impact::Impact,
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

fn parse_instant(at: prost_types::Timestamp) -> Result<Timestamp, Problem> {
    Timestamp::from_parts(at.seconds, at.nanos).ok_or_else(|| {
        Problem::new("is outside the years 0001 to 9999, or its nanos outside 0 to 999,999,999")
    })
}

/// Returns the revision of a change as text. The text is empty for a preview, which has no
/// revision.
pub fn revision(revision: Option<Revision>) -> String {
    revision.map_or_else(String::new, |revision| revision.to_string())
}

/// Builds the message that says who would be affected by a change.
pub fn impact(impact: Impact) -> v1::Impact {
    let services = impact.services.iter().map(|used| v1::ServiceUse {
        service: Some(actor(&used.service)),
        last_used_at: Some(instant(used.last_used_at)),
    });
    v1::Impact {
        last_used_at: impact.last_used_at.map(instant),
        services: services.collect(),
    }
}

fn actor(actor: &Actor) -> v1::Actor {
    let kind = match actor.kind {
        CallerKind::User => v1::CallerKind::User,
        CallerKind::Service => v1::CallerKind::Service,
        CallerKind::Operator => v1::CallerKind::Operator,
    };
    v1::Actor {
        kind: kind.into(),
        issuer: actor.issuer.clone(),
        subject: actor.subject.clone(),
    }
}
