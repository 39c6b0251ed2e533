//! When a token is to expire, as a request says it.

use super::parse_instant;
use crate::{
    domain::{
        field::{Problem, Violations},
        timestamp::Timestamp,
    },
    grpc::pb::v1,
};

/// When a token is to expire (R7); `Ok(None)`: never. There is no default (R3).
pub fn expiry(
    message: Option<v1::Expiry>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Violations> {
    use v1::expiry::Expiry;
    let only_true = |at| {
        Problem::new(format!(
            "can only be true: to say otherwise, choose another of the {at}"
        ))
    };
    let mut faults = Violations::default();
    let expires_at = match message.and_then(|message| message.expiry) {
        None => {
            let choices = "is required, there is no default: choose at, on_date, now or never";
            faults.add("", Problem::new(choices));
            None
        }
        Some(Expiry::At(at)) => faults.keep("at", parse_instant(at)).map(Some),
        Some(Expiry::OnDate(date)) => {
            let start = Timestamp::start_of_date(&date);
            let wrong = || Problem::new("is not a date of the form YYYY-MM-DD, such as 2027-01-31");
            faults.keep("on_date", start.ok_or_else(wrong)).map(Some)
        }
        Some(Expiry::Now(true)) => Some(Some(now)),
        Some(Expiry::Never(true)) => Some(None),
        Some(Expiry::Now(false)) => {
            faults.add("now", only_true("choices"));
            None
        }
        Some(Expiry::Never(false)) => {
            faults.add("never", only_true("choices"));
            None
        }
    };
    faults.finish(expires_at)
}

/// The field of an expiry that is reached already, and what to do about it.
pub type Late = (&'static str, Problem);

/// A new token must have a future: `now` is not a choice, and an expiry that is reached
/// already is a mistake, told apart since it is none in a repetition.
pub fn expiry_of_a_new_token(
    message: Option<v1::Expiry>,
    now: Timestamp,
) -> Result<(Option<Timestamp>, Option<Late>), Violations> {
    use v1::expiry::Expiry;
    let mut faults = Violations::default();
    let field = match message.as_ref().and_then(|message| message.expiry.as_ref()) {
        Some(Expiry::Now(_)) => "now",
        Some(Expiry::OnDate(_)) => "on_date",
        Some(Expiry::At(_) | Expiry::Never(_)) => "at",
        None => {
            let choices = "is required, there is no default: choose at, on_date or never";
            faults.add("", Problem::new(choices));
            return faults.finish(None);
        }
    };
    let expires_at = faults.nest("", expiry(message, now));
    let late = expires_at.flatten().is_some_and(|at| at <= now).then(|| {
        let later = "is not in the future: choose a later instant or date (a date begins at 00:00 UTC), or never";
        (field, Problem::new(later))
    });
    if field == "now"
        && let Some((field, problem)) = late
    {
        faults.add(field, problem);
        return faults.finish(None);
    }
    faults.finish(expires_at.map(|expires_at| (expires_at, late)))
}
