//! `GET /.well-known/oauth-authorization-server` (RFC 8414).

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use http::StatusCode;
use serde::Serialize;

use super::OauthError;
use crate::http::{Settings, error::json, query, request::HttpRequest};

/// The metadata. There is no authorization endpoint and no token endpoint.
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: &'static [&'static str],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: &'static [&'static str],
    response_types_supported: [&'static str; 0],
}

/// Returns the metadata. The URLs are those of the setting, never those of the request.
pub(in crate::http) async fn metadata(
    State(settings): State<Arc<Settings>>,
    request: HttpRequest,
) -> Result<Response<Body>, OauthError> {
    query::require_none(request.query.as_ref())?;
    // `Bearer` is registered among the access token types, which RFC 8414 §2 permits here.
    let methods: &[&str] = if settings.client_certificates {
        &["Bearer", "tls_client_auth"]
    } else {
        &["Bearer"]
    };
    let issuer = &settings.public_url;
    let metadata = Metadata {
        issuer,
        introspection_endpoint: format!("{issuer}/oauth2/introspect"),
        introspection_endpoint_auth_methods_supported: methods,
        revocation_endpoint: format!("{issuer}/oauth2/revoke"),
        revocation_endpoint_auth_methods_supported: methods,
        response_types_supported: [],
    };
    Ok(json(StatusCode::OK, None, &metadata))
}
