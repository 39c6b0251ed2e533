//! Serves the `OpenAPI` document of the HTTP port.

use std::sync::{Arc, LazyLock};

use axum::{body::Body, extract::State, response::Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Settings, error, oauth::OauthError, query, request::HttpRequest};

/// The document with the version of this program, but without the server URL.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value =
        serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document
});

/// Returns the document with the configured base URL as server.
pub(super) async fn document(
    State(settings): State<Arc<Settings>>,
    request: HttpRequest,
) -> Result<Response<Body>, OauthError> {
    query::require_none(request.query.as_ref())?;
    let mut document = DOCUMENT.clone();
    document["servers"] = json!([{ "url": settings.public_url }]);
    Ok(error::json(StatusCode::OK, None, &document))
}

/// Returns the paths that the document describes.
#[cfg(test)]
pub(super) fn paths() -> Vec<String> {
    let paths = DOCUMENT["paths"].as_object();
    paths
        .into_iter()
        .flatten()
        .map(|(path, _)| path.clone())
        .collect()
}
