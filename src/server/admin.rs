//! The admin port, which serves metrics and HTTP probes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    routing::get,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    connections::{accept_admin, admin_connections::AdminConnections, limiter::Limits},
    health::{Capability, HealthBoard, OVERALL, SERVICES},
};
use crate::metrics::Metrics;

/// Connection limits of the admin port. Kubelets and scrapers need few connections. At a limit, an
/// old connection is closed to admit a new one.
const LIMITS: Limits = Limits {
    all: 64,
    by_address: 16,
};
/// How long a client may take to send the headers of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Maximum lifetime of a connection.
const OPEN_FOR: Duration = Duration::from_mins(5);

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    board: HealthBoard,
}

pub(super) fn router(metrics: Arc<Metrics>, board: HealthBoard) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .with_state(Admin { metrics, board })
}

/// Serves the admin port. Never returns.
pub(super) async fn serve(listener: TcpListener, router: Router, metrics: Arc<Metrics>) {
    let connections = AdminConnections::new(LIMITS);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            (socket, guest) = accept_admin(&listener, &connections, (&metrics, HEAD_WITHIN)) => {
                let service = TowerToHyperService::new(router.clone());
                open.spawn(async move {
                    let mut http1 = http1::Builder::new();
                    http1.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
                    let connection = http1.serve_connection(TokioIo::new(socket), service);
                    // Errors are ignored, because they affect only the client, which notices them
                    // itself.
                    tokio::select! {
                        _ = tokio::time::timeout(OPEN_FOR, connection) => {}
                        () = guest.evicted() => {}
                    }
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

/// Returns the metrics as OpenMetrics to clients that accept this format, and in the older text
/// format of Prometheus to others.
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

/// Returns an error if the clock was set back, because then only a restart lets the process answer
/// again soon.
async fn alive(State(admin): State<Admin>) -> (StatusCode, &'static str) {
    if admin.board.is_clock_behind() {
        let cause = "the clock was set back: restart\n";
        return (StatusCode::SERVICE_UNAVAILABLE, cause);
    }
    (StatusCode::OK, "ok\n")
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let line = |(name, capability): &(&str, Capability)| {
        let name = if *name == OVERALL { "overall" } else { name };
        let serving = admin.board.is_serving(*capability);
        let status = if serving { "SERVING" } else { "NOT_SERVING" };
        format!("{name} {status}\n")
    };
    let text = SERVICES.iter().map(line).collect();
    let code = if admin.board.is_serving(Capability::Answer) {
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
