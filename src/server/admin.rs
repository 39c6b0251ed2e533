//! The admin port: metrics, and probes for those that speak HTTP only.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};

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

async fn metrics_text(State(admin): State<Admin>) -> ([(&'static str, &'static str); 1], String) {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([("content-type", content_type)], admin.metrics.expose())
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
