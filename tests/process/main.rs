//! The program as its users have it: started, asked, killed, and read from outside.
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

mod away;
mod client_verbs;
mod clock;
mod collector;
mod command_line;
mod crash;
mod database_file;
mod disk;
#[path = "../mesh/envoy.rs"]
mod envoy;
mod full;
mod housekeeping;
mod leak;
mod lifecycle;
mod metrics;
mod outage;
mod pasted;
mod pause;
#[path = "../replicas/postgres.rs"]
mod postgres;
mod program;
#[path = "../replicas/proxy.rs"]
mod proxy;
mod read_only;
mod readme;
mod rotated;
mod serve;
mod served;
mod settings;
mod skips;
mod stalled;
mod stub;
#[path = "../it/support/mod.rs"]
mod support;
mod traces;
mod unheard;
mod wrong_clock;
