//! Tests a real Envoy in front of a small upstream. Envoy has the configuration of `docs/envoy.md`
//! and asks the real program for authorization.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may panic, and use the clock and the environment of the host"
)]

#[path = "../process/collector.rs"]
mod collector;
mod drains;
mod envoy;
mod extensions;
mod fixture;
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
