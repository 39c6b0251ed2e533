//! Converts the requested expiry of a token. This module does not use the current time, because
//! relative values are resolved at the instant at which the change is decided (R8).

use super::parse_instant;
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
            let choices = "is required, there is no default: choose at, on_date, now or never";
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

/// Parses the expiry of a new token. The expiry must be in the future, so `now` is invalid. Also
/// returns the violations to report if the expiry has passed by the time the store decides the
/// request.
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
        Some(Choice::At(_) | Choice::Never(_) | Choice::Now(false)) => "at",
        None => {
            let choices = "is required, there is no default: choose at, on_date or never";
            faults.add("", Problem::new(choices));
            return faults.finish(None);
        }
    };
    let mut overdue = Violations::default();
    overdue.add(field, later());
    expiry(message).map(|expiry| (expiry, overdue))
}
