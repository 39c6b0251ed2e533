//! The request id of a call: the id that the client sent if it is safe to log, otherwise a
//! generated id. It appears in log lines, errors and the audit.

use http::{HeaderMap, HeaderValue};

use crate::domain::{clock::Clock, entropy::SplitMix64, id, secret};

/// The header that carries the request id, in requests and in responses.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// Returns the id that the client sent if it consists of 1 to 64 characters of `[A-Za-z0-9._-]` and
/// contains no secret (R9).
pub(super) fn sent(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let fit = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !secret::is_within(id);
    fit.then(|| id.to_owned())
}

/// Generates a request id. It does not have to be unpredictable.
pub(super) fn generate(clock: &dyn Clock, ids: &SplitMix64) -> String {
    let uid = id::generate::<id::EventKind>(clock.now(), ids);
    uid.map(|uid| uid.to_string()).unwrap_or_default()
}

/// Sets the request id in the headers of a request or a response.
pub(super) fn set(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
}
