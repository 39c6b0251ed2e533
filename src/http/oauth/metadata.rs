//! `GET /.well-known/oauth-authorization-server` (RFC 8414).

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use http::StatusCode;
use serde::Serialize;

use super::{OauthError, token::GRANT_TYPE};
use crate::http::{Settings, error::json, query, request::HttpRequest};

/// The metadata document. There is no authorization endpoint.
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 1],
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: &'static [&'static str],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    response_types_supported: [&'static str; 0],
}

/// Returns the metadata. The URLs are built from the configured base URL, never from the request.
pub(in crate::http) async fn metadata(
    State(settings): State<Arc<Settings>>,
    request: HttpRequest,
) -> Result<Response<Body>, OauthError> {
    query::require_none(request.query.as_ref())?;
    // RFC 8414 §2 permits access token types here, and `Bearer` is a registered one.
    let methods: &[&str] = if settings.client_certificates {
        &["Bearer", "tls_client_auth"]
    } else {
        &["Bearer"]
    };
    let issuer = &settings.public_url;
    let metadata = Metadata {
        issuer,
        token_endpoint: format!("{issuer}/oauth2/token"),
        // The JWT to exchange is a form parameter and not the credential of a client.
        token_endpoint_auth_methods_supported: ["none"],
        grant_types_supported: [GRANT_TYPE],
        introspection_endpoint: format!("{issuer}/oauth2/introspect"),
        introspection_endpoint_auth_methods_supported: methods,
        revocation_endpoint: format!("{issuer}/oauth2/revoke"),
        // The secret of a session is enough to end it.
        revocation_endpoint_auth_methods_supported: [methods, &["none"]].concat(),
        response_types_supported: [],
    };
    Ok(json(StatusCode::OK, None, &metadata))
}
