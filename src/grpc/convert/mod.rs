//! Between messages and domain values. Inwards everything is parsed once and every fault is
//! reported; outwards only what the contract names is said.

#![expect(
    clippy::needless_pass_by_value,
    reason = "a parser consumes its message, whether or not it keeps anything of it"
)]

pub mod audit;
pub mod batch;
mod expiry;
pub mod introspection;
pub mod permissions;
pub mod stacks;
pub mod tokens;
pub mod watch;

use crate::{
    domain::{
        caller::{Actor, CallerKind},
        field::Problem,
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
