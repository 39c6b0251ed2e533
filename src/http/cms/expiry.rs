//! Parses `expires_on` of the CMS's JSON: a date, an instant, or null for never.

use prost_types::Timestamp;
use serde_json::Value;
use time::{
    Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description,
};

use super::CmsError;
use crate::grpc::pb::v1::{Expiry, expiry::Expiry as Choice};

/// Parses an expiry.
///
/// # Errors
/// Returns an error that states which values are accepted.
pub(super) fn parse(value: &Value) -> Result<Expiry, CmsError> {
    let choice = match value {
        Value::Null => Choice::Never(true),
        Value::String(text) => of_text(text).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok(Expiry {
        expiry: Some(choice),
    })
}

fn of_text(text: &str) -> Option<Choice> {
    if Date::parse(text, format_description!("[year]-[month]-[day]")).is_ok() {
        return Some(Choice::OnDate(text.to_owned()));
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(Choice::At(Timestamp {
        seconds: at.unix_timestamp(),
        nanos: i32::try_from(at.nanosecond()).ok()?,
    }))
}

/// Returns whether `sent` is the same expiry as `shown`, the token's expiry in a response.
pub(super) fn is_unchanged(sent: &Value, shown: Option<&str>) -> bool {
    match (sent, shown) {
        (Value::Null, None) => true,
        (Value::String(sent), Some(shown)) => {
            sent == shown || shown.strip_suffix("T00:00:00.000Z") == Some(sent)
        }
        _ => false,
    }
}

fn wrong() -> CmsError {
    CmsError::field(
        "expires_on",
        "is neither a date such as 2027-01-31, nor an instant such as 2027-01-31T12:00:00Z, nor null for never",
    )
}
