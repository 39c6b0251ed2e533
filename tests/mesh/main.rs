//! A real Envoy in front of a small upstream, the real program deciding what may pass, with
//! the configuration that `docs/envoy.md` gives.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly, and stands for the world outside"
)]

#[path = "../process/collector.rs"]
mod collector;
mod drains;
mod envoy;
mod extensions;
mod outages;
#[path = "../replicas/postgres.rs"]
mod postgres;
#[path = "../process/program.rs"]
mod program;
mod routes;
#[path = "../it/support/mod.rs"]
mod support;
mod trace;
mod upstream;
mod world;
