//! Converts the messages of `Rotate` and `EndOverlap` to domain values and back.

use std::time::Duration;

use prost::Message as _;

use super::{instant, parse_duration, revision, tokens};
use crate::{
    app::{Rotate, Rotated},
    domain::{
        caller::Call,
        etag::Target,
        field::{Problem, Violations},
        request::Request,
        rotation::{self, Overlap},
        timestamp::Timestamp,
    },
    grpc::pb::v1::{self, overlap::Ends},
};

pub fn rotate(mut message: v1::RotateRequest, _: &Call) -> Result<Rotate, Violations> {
    let mut faults = Violations::default();
    message.validate_only = false;
    let id = std::mem::take(&mut message.request_id);
    let request = Request::parse(&id, &message.encode_to_vec());
    let key = tokens::key(&mut faults, &message.stack_api_key, &message.token_uid);
    let overlap = faults.nest("overlap", overlap(message.overlap));
    let request = faults.keep("request_id", request);
    let target = tokens::target(&mut faults, key, &message.etag);
    let command = target.zip(overlap).zip(request);
    faults.finish(command.map(|((target, overlap), request)| Rotate {
        target,
        overlap,
        request,
    }))
}

/// Parses how long the former secret stays valid. A missing value is a violation, because there is
/// no default.
fn overlap(message: Option<v1::Overlap>) -> Result<Overlap, Violations> {
    let mut faults = Violations::default();
    let message = message.unwrap_or_default();
    let at_most = message.at_most.map(length_of);
    let at_most = at_most.and_then(|length| faults.keep("at_most", length));
    let overlap = match message.ends {
        None => {
            let choices = "is required, there is no default: choose overlap_for or until_first_use";
            faults.add("", Problem::new(choices));
            None
        }
        Some(Ends::OverlapFor(length)) => {
            if message.at_most.is_some() {
                let alone = "goes with until_first_use only: leave it out, or shorten overlap_for";
                faults.add("at_most", Problem::new(alone));
            }
            let length = length_of(length).map(Overlap::For);
            faults.keep("overlap_for", length)
        }
        Some(Ends::UntilFirstUse(true)) => Some(Overlap::UntilFirstUse {
            at_most: at_most.unwrap_or(rotation::LONGEST),
        }),
        Some(Ends::UntilFirstUse(false)) => {
            let otherwise = "can only be true: to say otherwise, choose overlap_for";
            faults.add("until_first_use", Problem::new(otherwise));
            None
        }
    };
    faults.finish(overlap)
}

fn length_of(length: prost_types::Duration) -> Result<Duration, Problem> {
    let length = parse_duration(length)?;
    if length > rotation::LONGEST {
        let problem = "must be 0 to 30 days (2592000s): choose a shorter overlap";
        return Err(Problem::new(problem));
    }
    Ok(length)
}

pub fn rotated(rotated: &Rotated, now: Timestamp) -> v1::RotateResponse {
    let secret = rotated.secret.as_ref();
    v1::RotateResponse {
        token: Some(tokens::made(&rotated.rotated.token, secret.is_none(), now)),
        secret: tokens::shown(secret),
        revision: revision(rotated.revision),
        overlap_ends_at: Some(instant(rotated.rotated.overlap_ends_at)),
    }
}

pub fn end_overlap(message: v1::EndOverlapRequest, _: &Call) -> Result<Target, Violations> {
    let mut faults = Violations::default();
    let key = tokens::key(&mut faults, &message.stack_api_key, &message.token_uid);
    let target = tokens::target(&mut faults, key, &message.etag);
    faults.finish(target)
}
