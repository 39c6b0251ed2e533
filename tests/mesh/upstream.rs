//! The upstream behind Envoy, which responds to every request with the headers that it received.

use std::net::SocketAddr;

use axum::{Json, Router, http::HeaderMap};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

/// A server on a free port. It runs until it is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    serving: AbortHandle,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(echo);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            serving: serving.abort_handle(),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Returns the name and the value of each header, as often as the header was sent.
async fn echo(headers: HeaderMap) -> Json<Value> {
    let pairs = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        json!([name.as_str(), value])
    });
    Json(pairs.collect())
}
