//! End-to-end tests. They run the real server with all its layers on a free port, with a manual
//! clock, seeded randomness and a test issuer.
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

mod api_docs;
mod attacks;
mod audit;
mod connections;
mod coverage;
mod deadlines;
mod edges;
mod errors;
mod examples;
mod ext_authz;
mod federation;
#[path = "../floods/frames.rs"]
mod h2;
mod handover;
mod health;
mod housekeeping;
mod http;
mod incidents;
mod introspection;
mod layers;
mod limits;
mod outages;
mod panics;
mod previews;
mod protocol;
mod reflection;
mod secrets;
mod settings_docs;
mod stacks;
mod support;
mod tls;
mod tokens;
mod usage;
mod watch;
mod ways;
mod wire;
