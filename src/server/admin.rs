//! The admin port: metrics, and probes for those that speak HTTP only.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    routing::get,
};

use super::health::{Board, Name};
use crate::metrics::Metrics;

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    board: Board,
}

pub(super) fn router(metrics: Arc<Metrics>, board: Board) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .with_state(Admin { metrics, board })
}

/// In OpenMetrics for whoever says that it can read that, in Prometheus' older text for others.
async fn metrics_text(
    State(admin): State<Admin>,
    headers: HeaderMap,
) -> ([(&'static str, &'static str); 1], String) {
    let accepted = headers.get(header::ACCEPT).map(HeaderValue::as_bytes);
    let accepted = String::from_utf8_lossy(accepted.unwrap_or_default());
    let (content_type, text) = if accepted.contains("application/openmetrics-text") {
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            admin.metrics.expose(),
        )
    } else {
        (
            "text/plain; version=0.0.4; charset=utf-8",
            admin.metrics.expose_plain(),
        )
    };
    ([("content-type", content_type)], text)
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let line = |name: Name| {
        let told = if admin.board.is_serving(name) {
            "SERVING"
        } else {
            "NOT_SERVING"
        };
        format!(
            "{} {told}\n",
            if name == Name::Overall {
                "overall"
            } else {
                name.as_str()
            }
        )
    };
    let text = Name::ALL.iter().map(|name| line(*name)).collect();
    let code = if admin.board.is_serving(Name::Overall) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, text)
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
