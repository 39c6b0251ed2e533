//! OAuth 2.0 endpoints: introspection (RFC 7662), token exchange (RFC 8693), revocation (RFC 7009)
//! and metadata (RFC 8414).

mod action;
mod answer;
mod error;
mod introspect;
mod metadata;
mod revoke;
mod token;

pub(super) use self::{
    error::OauthError,
    introspect::{introspect, introspect_at},
    metadata::metadata,
    revoke::revoke,
    token::token,
};
use super::{body::Form, forward, query, request::HttpRequest};

/// Form parameters with a credential of the caller. None of them is accepted.
const CREDENTIALS: [&str; 3] = ["client_secret", "client_assertion", "access_token"];

/// Parses the form of a request.
///
/// # Errors
/// The request has a query, another content type or a repeated parameter, or it has a credential in
/// its body or in the header `authtoken`, which is accepted only by the routes of the CMS.
fn form(request: &HttpRequest) -> Result<Form, OauthError> {
    query::require_none(request.query.as_ref())?;
    let form = Form::parse(&request.headers, &request.body)?;
    let in_body = CREDENTIALS.iter().find(|name| form.get(name).is_some());
    let authtoken = forward::AUTHTOKEN.as_str();
    let in_header = request.headers.get(authtoken).map(|_| &authtoken);
    if let Some(name) = in_body.or(in_header) {
        // Two credentials are refused, because it would be ambiguous which one counts (RFC 6749
        // §2.3).
        return Err(if request.has_credential() {
            OauthError::invalid_request(format!(
                "there are two credentials: leave out {name}, which is not accepted"
            ))
        } else {
            OauthError::invalid_client(format!(
                "a credential in {name} is not accepted: send it as Authorization: Bearer"
            ))
        });
    }
    Ok(form)
}
