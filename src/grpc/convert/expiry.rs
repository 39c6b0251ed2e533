//! Converts the requested expiry of a token. This module does not use the current time, because
//! relative values are resolved at the instant at which the change is decided (R8).

use std::time::Duration;

use super::{parse_duration, parse_instant};
use crate::{
    domain::{
        field::{Problem, Violations},
        timestamp::Timestamp,
        token::Expiry,
    },
    grpc::pb::v1::{self, expiry::Expiry as Choice},
};

/// Parses an expiry (R7). A missing expiry is a violation, because there is no default (R3).
pub fn expiry(message: Option<v1::Expiry>) -> Result<Expiry, Violations> {
    let only_true = |at| {
        Problem::new(format!(
            "can only be true: to say otherwise, choose another of the {at}"
        ))
    };
    let mut faults = Violations::default();
    let expiry = match message.and_then(|message| message.expiry) {
        None => {
            let choices =
                "is required, there is no default: choose at, on_date, after, now or never";
            faults.add("", Problem::new(choices));
            None
        }
        Some(Choice::At(at)) => faults.keep("at", parse_instant(at)).map(Expiry::At),
        Some(Choice::OnDate(date)) => {
            let start = Timestamp::start_of_date(&date);
            let wrong = || Problem::new("is not a date of the form YYYY-MM-DD, such as 2027-01-31");
            faults
                .keep("on_date", start.ok_or_else(wrong))
                .map(Expiry::At)
        }
        Some(Choice::After(length)) => faults.keep("after", after(length)).map(Expiry::After),
        Some(Choice::Now(true)) => Some(Expiry::Now),
        Some(Choice::Never(true)) => Some(Expiry::Never),
        Some(Choice::Now(false)) => {
            faults.add("now", only_true("choices"));
            None
        }
        Some(Choice::Never(false)) => {
            faults.add("never", only_true("choices"));
            None
        }
    };
    faults.finish(expiry)
}

/// Parses the expiry of a new token, which must be in the future, so `now` is invalid. Also returns
/// the violations that the store reports if the expiry has passed when it decides the request.
pub fn expiry_of_a_new_token(
    message: Option<v1::Expiry>,
) -> Result<(Expiry, Violations), Violations> {
    let later = || {
        Problem::new(
            "is not in the future: choose a later instant or date (a date begins at 00:00 UTC), or never",
        )
    };
    let mut faults = Violations::default();
    let field = match message.as_ref().and_then(|message| message.expiry.as_ref()) {
        Some(Choice::Now(true)) => {
            faults.add("now", later());
            return faults.finish(None);
        }
        Some(Choice::OnDate(_)) => "on_date",
        Some(Choice::After(_)) => "after",
        Some(Choice::At(_) | Choice::Never(_) | Choice::Now(false)) => "at",
        None => {
            let choices = "is required, there is no default: choose at, on_date, after or never";
            faults.add("", Problem::new(choices));
            return faults.finish(None);
        }
    };
    let mut overdue = Violations::default();
    overdue.add(field, later());
    expiry(message).map(|expiry| (expiry, overdue))
}

/// Parses a relative expiry. Truncates it to microseconds, which is the precision of all instants.
fn after(length: prost_types::Duration) -> Result<Duration, Problem> {
    let length = parse_duration(length)?;
    let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
    let length = Duration::from_micros(micros);
    if length.is_zero() {
        return Err(Problem::new("must be above 0: choose a longer duration"));
    }
    if length > Expiry::LONGEST {
        return Err(Problem::new(
            "must be at most 36500 days (3153600000s): choose a shorter duration, at, or never",
        ));
    }
    Ok(length)
}
