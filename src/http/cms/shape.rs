//! Builds the CMS's JSON for a management token.

use prost_types::Timestamp;
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::scope;
use crate::grpc::pb::v1::Token;

/// The CMS's format for an instant, in UTC.
const INSTANT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A token as a response shows it. It contains the secret only if the token was just created.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    pub uid: &'a str,
    pub api_key: &'a str,
    pub name: &'a str,
    pub description: &'a str,
    pub scope: Vec<Value>,
    pub expires_on: Option<String>,
    pub is_email_notification_enabled: bool,
    pub created_at: Option<String>,
    pub created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
}

/// A response with one token.
#[derive(Serialize)]
pub(super) struct OneToken<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
    pub token: Shown<'a>,
}

impl<'a> Shown<'a> {
    /// Converts a token. `secret` must be set only for a new token.
    pub fn new(token: &'a Token, secret: Option<&'a str>) -> Self {
        let issued_by = token.issued_by.as_ref();
        Self {
            uid: &token.token_uid,
            api_key: &token.stack_api_key,
            name: &token.name,
            description: &token.description,
            scope: scope::shown(token.permissions.as_ref()),
            expires_on: token.expires_at.as_ref().and_then(instant),
            is_email_notification_enabled: false,
            created_at: token.issued_at.as_ref().and_then(instant),
            created_by: issued_by.map_or("", |actor| actor.subject.as_str()),
            token: secret,
        }
    }
}

/// Formats an instant with millisecond precision.
fn instant(at: &Timestamp) -> Option<String> {
    let whole = OffsetDateTime::from_unix_timestamp(at.seconds).ok()?;
    let nanosecond = u32::try_from(at.nanos).ok()?;
    whole
        .replace_nanosecond(nanosecond)
        .ok()?
        .format(INSTANT)
        .ok()
}
