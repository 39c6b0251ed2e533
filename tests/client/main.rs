//! Tests the client for Rust services. A scripted server is used where the order of events matters,
//! and the real server where faults between client and server matter.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, and acts as the environment"
)]

mod caching;
mod changes;
#[path = "../replicas/cluster.rs"]
mod cluster;
mod faults;
mod golden;
#[path = "../replicas/postgres.rs"]
mod postgres;
#[path = "../process/program.rs"]
mod program;
#[path = "../replicas/proxy.rs"]
mod proxy;
mod races;
mod scripted;
mod sessions;
mod settings;
#[path = "../it/support/mod.rs"]
mod support;
mod watching;
