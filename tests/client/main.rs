//! The client for Rust services: against a server played by the test, where the order of
//! things matters, and against the real one, with whatever can come between.
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

mod changes;
#[path = "../replicas/cluster.rs"]
mod cluster;
mod faults;
mod golden;
mod played;
#[path = "../replicas/postgres.rs"]
mod postgres;
#[path = "../process/program.rs"]
mod program;
#[path = "../replicas/proxy.rs"]
mod proxy;
mod races;
mod remembering;
mod settings;
#[path = "../it/support/mod.rs"]
mod support;
mod watching;
