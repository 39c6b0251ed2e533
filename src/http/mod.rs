//! The HTTP port, for clients that do not use gRPC: OAuth 2.0 endpoints (RFCs 7009, 7662, 8414 and
//! 8693) and the routes of the CMS for management tokens. Each request is converted to calls of
//! this server's own RPCs, which pass all layers of the gRPC port. So authentication, limits,
//! audit, metrics and traces are the same, and this module makes no decisions of its own. It
//! ignores cookies, accepts no credential in a query, and permits no cross-origin requests (CORS).

mod body;
mod cms;
mod error;
mod forward;
mod oauth;
mod openapi;
mod query;
mod request;
mod rpc;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    routing::{MethodRouter, get, post},
};
use http::{HeaderValue, Request, Response, header};
use tokio_util::bytes::Bytes;
use tower::util::ServiceExt as _;

pub use self::{
    error::Refusal,
    rpc::{RpcFuture, Rpcs},
};
use self::{
    error::{Family, IntoFamily as _},
    request::Origin,
};
use crate::domain::clock::Clock;

/// Header with the id of a request, in requests and in responses.
const REQUEST_ID: &str = "x-request-id";

/// Settings of the HTTP port.
#[derive(Clone)]
pub struct Settings {
    /// Base URL at which clients reach the port, without a path.
    pub public_url: String,
    /// Whether TLS requests client certificates.
    pub client_certificates: bool,
    /// The clock, used to compute the remaining lifetime of a secret.
    pub clock: Arc<dyn Clock>,
}

/// The routes of the HTTP port.
pub struct Api {
    router: Router,
}

/// A path of the port and its handlers.
type Route = (&'static str, MethodRouter<Arc<Settings>>);

/// Returns all routes. A test checks that the `OpenAPI` document describes the same routes.
fn routes() -> [Route; 8] {
    let tokens = get(cms::list).post(cms::create);
    let token = get(cms::fetch).put(cms::update).delete(cms::delete);
    [
        (
            "/.well-known/oauth-authorization-server",
            get(oauth::metadata),
        ),
        ("/oauth2/introspect", post(oauth::introspect)),
        (
            "/oauth2/introspect/{stack_api_key}",
            post(oauth::introspect_at),
        ),
        ("/oauth2/token", post(oauth::token)),
        ("/oauth2/revoke", post(oauth::revoke)),
        ("/v3/stacks/management_tokens", tokens),
        ("/v3/stacks/management_tokens/{uid}", token),
        ("/openapi.json", get(openapi::document)),
    ]
}

impl Api {
    /// Builds the routes.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let add = |router: Router<_>, (path, methods): Route| router.route(path, methods);
        let router = routes().into_iter().fold(Router::new(), add);
        let router = router
            .fallback(error::not_found)
            .method_not_allowed_fallback(error::method_not_allowed)
            .with_state(Arc::new(settings));
        Self { router }
    }

    /// Answers a request whose body has arrived. Its RPCs are called through `rpcs`.
    pub async fn answer(
        &self,
        mut request: Request<Bytes>,
        rpcs: Arc<dyn Rpcs>,
        request_id: &str,
    ) -> Response<Body> {
        request.extensions_mut().insert(Origin {
            rpcs,
            request_id: request_id.to_owned(),
        });
        let router = self.router.clone();
        let Ok(response) = router.oneshot(request.map(Body::from)).await;
        finish(response, request_id)
    }

    /// Answers a request that was refused before it was read.
    #[must_use]
    pub fn refuse(path: &str, refusal: Refusal, request_id: &str) -> Response<Body> {
        finish(refusal.into_family(Family::of(path)), request_id)
    }
}

/// Sets the headers that every response has. Responses can contain secrets and verdicts, so they
/// must not be cached.
fn finish(mut response: Response<Body>, request_id: &str) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_describes_exactly_the_routes_that_are_served() {
        let documented = openapi::paths();
        let served: Vec<_> = routes()
            .iter()
            .map(|(path, _)| (*path).to_owned())
            .collect();
        let sorted = |mut paths: Vec<String>| {
            paths.sort();
            paths
        };
        assert_eq!(sorted(documented), sorted(served));
    }
}
