//! Parses the JSON that clients send: `{"token": {…}}`. Errors state the names of unknown and
//! repeated fields, but never values, because a value can be a secret.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::CmsError;
use crate::{
    domain::{text, unique_json::Unique},
    http::{body, request::HttpRequest},
};

/// Maximum length of a parser's message in an error, in characters.
const MAX_TEXT: usize = 200;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    token: Sent,
}

/// A token as a client sends it. A field is `None` if it is not sent.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sent {
    #[serde(deserialize_with = "sent")]
    pub name: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub description: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub scope: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub expires_on: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub is_email_notification_enabled: Option<Value>,
    // Fields that the server sets. Clients that send back a whole object include them.
    #[serde(deserialize_with = "sent")]
    pub uid: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub api_key: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub created_at: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub created_by: Option<Value>,
    #[serde(deserialize_with = "sent")]
    pub token: Option<Value>,
}

/// Distinguishes a field that is null from one that is not sent. Rejects objects with duplicate
/// members.
fn sent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Unique::deserialize(deserializer).map(|Unique(value)| Some(value))
}

impl Sent {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// The content type is not JSON, the body is not valid JSON, or a field is unknown or repeated.
    pub fn parse(request: &HttpRequest) -> Result<Self, CmsError> {
        body::require_type(&request.headers, body::JSON)?;
        let parsed: Result<Body, _> = serde_json::from_slice(&request.body);
        let body = parsed.map_err(|problem| {
            let problem = printable(&problem.to_string());
            let wanted = "is not the JSON of a token, {\"token\": {…}}";
            CmsError::field(field_in(&problem), format!("{wanted}: {problem}"))
        })?;
        body.token.require_no_notification()?;
        Ok(body.token)
    }

    /// Returns the name and the description; `None` for one that is not sent.
    ///
    /// # Errors
    /// One of them is not text.
    pub fn texts(&self) -> Result<(Option<&str>, Option<&str>), CmsError> {
        let name = text_of("name", self.name.as_ref())?;
        let description = match &self.description {
            // The CMS shows a description that was never set as null.
            Some(Value::Null) => Some(""),
            other => text_of("description", other.as_ref())?,
        };
        Ok((name, description))
    }

    /// Refuses fields that the server sets, because a new token does not have them yet.
    pub fn require_new(&self) -> Result<(), CmsError> {
        for (name, value) in self.made() {
            if value.is_some() {
                return Err(CmsError::field(name, "is made by the server: leave it out"));
            }
        }
        Ok(())
    }

    /// Returns the fields that the server sets.
    pub const fn made(&self) -> [(&'static str, Option<&Value>); 5] {
        [
            ("uid", self.uid.as_ref()),
            ("api_key", self.api_key.as_ref()),
            ("created_at", self.created_at.as_ref()),
            ("created_by", self.created_by.as_ref()),
            ("token", self.token.as_ref()),
        ]
    }

    fn require_no_notification(&self) -> Result<(), CmsError> {
        match &self.is_email_notification_enabled {
            None | Some(Value::Bool(false) | Value::Null) => Ok(()),
            Some(_) => Err(CmsError::field(
                "is_email_notification_enabled",
                "must be false: this service sends no mail, and its metrics and log report tokens that expire soon",
            )),
        }
    }
}

fn text_of<'a>(name: &str, value: Option<&'a Value>) -> Result<Option<&'a str>, CmsError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(CmsError::field(name, "must be text")),
    }
}

/// Returns the name of the field in the parser's message.
fn field_in(problem: &str) -> &str {
    let named = ["unknown field `", "duplicate field `"];
    let start = named.iter().find_map(|start| problem.strip_prefix(start));
    start
        .and_then(|rest| rest.split('`').next())
        .unwrap_or("token")
}

/// Returns the parser's message without anything that could be a value sent by the client. A parser
/// quotes a value of the wrong type in its message.
pub(super) fn printable(problem: &str) -> String {
    if problem.starts_with("invalid type") || problem.starts_with("invalid value") {
        let expected = problem
            .rsplit_once("expected ")
            .map_or("", |(_, expected)| expected);
        return format!("a value has the wrong type; expected {expected}");
    }
    if text::holds_credential(problem) {
        return "it has a field whose name holds a secret".to_owned();
    }
    problem.chars().take(MAX_TEXT).collect()
}
