//! Checks the content type of request bodies, and parses forms.

use std::collections::HashSet;

use http::{HeaderMap, header};

use super::error::Refusal;

/// The content type of forms.
const FORM: &str = "application/x-www-form-urlencoded";
/// The content type of JSON.
pub(super) const JSON: &str = "application/json";
/// The only form parameter that may be repeated.
const REPEATED: &str = "action";

/// Checks that the body has this content type, ignoring the content type's parameters, and that it
/// is not compressed, because this server does not decompress bodies.
pub(super) fn require_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Refusal> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if !encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::ContentEncoding);
    }
    let mut sent = headers.get_all(header::CONTENT_TYPE).iter();
    let first = sent.next().and_then(|value| value.to_str().ok());
    let name = first.and_then(|value| value.split(';').next());
    let is_wanted = name.is_some_and(|name| name.trim_end().eq_ignore_ascii_case(wanted));
    if is_wanted && sent.next().is_none() {
        Ok(())
    } else {
        Err(Refusal::ContentType { wanted })
    }
}

/// The parameters of a form. A parameter without a value counts as omitted (RFC 6749 §3.2).
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// The content type is not that of a form, or a parameter other than `action` is repeated.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        require_type(headers, FORM)?;
        let mut names = HashSet::new();
        let mut parameters = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            if name != REPEATED && !names.insert(name.clone()) {
                return Err(Refusal::Repeated);
            }
            if !value.is_empty() {
                parameters.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(Self(parameters))
    }

    /// Returns the value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns all values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = move |(sent, _): &&(String, String)| sent == name;
        self.0.iter().filter(named).map(|(_, value)| value.as_str())
    }
}
