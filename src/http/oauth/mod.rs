//! OAuth 2.0 endpoints: introspection (RFC 7662), revocation (RFC 7009) and metadata (RFC 8414).

mod action;
mod answer;
mod error;
mod introspect;
mod metadata;
mod revoke;

use http::header;

pub(super) use self::{
    error::OauthError,
    introspect::{introspect, introspect_at},
    metadata::metadata,
    revoke::revoke,
};
use super::{body::Form, query, request::HttpRequest};

/// Form parameters that carry a credential of the caller. None of them is accepted.
const CREDENTIALS: [&str; 3] = ["client_secret", "client_assertion", "access_token"];

/// Parses the form of a request.
///
/// # Errors
/// The request has a query, another content type, a repeated parameter, or a credential in its body.
fn form(request: &HttpRequest) -> Result<Form, OauthError> {
    query::require_none(request.query.as_ref())?;
    let form = Form::parse(&request.headers, &request.body)?;
    if let Some(name) = CREDENTIALS.iter().find(|name| form.get(name).is_some()) {
        // With two credentials, nobody can tell which of them counts (RFC 6749 §2.3).
        let both = request.headers.contains_key(header::AUTHORIZATION);
        return Err(if both {
            OauthError::invalid_request(format!(
                "there is a credential in the header and one in the body ({name}): send the header alone"
            ))
        } else {
            OauthError::invalid_client(format!(
                "a credential in the body ({name}) is not accepted: send it as Authorization: Bearer"
            ))
        });
    }
    Ok(form)
}
