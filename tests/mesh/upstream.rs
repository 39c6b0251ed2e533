//! The upstream behind Envoy: responds to every request with its headers.

use std::net::SocketAddr;

use axum::{Json, Router, http::HeaderMap};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

/// Serves on a free port until it is dropped.
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

/// Returns name and value of each header, as often as it was sent.
async fn echo(headers: HeaderMap) -> Json<Value> {
    let pairs = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        json!([name.as_str(), value])
    });
    Json(pairs.collect())
}
