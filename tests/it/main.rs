//! Tests through the wire: the real server with its real layers on a free port, a clock and
//! randomness of the test's own, an issuer of the test's own.
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

mod api_docs;
mod audit;
mod connections;
mod coverage;
mod deadlines;
mod ext_authz;
#[path = "../floods/frames.rs"]
mod h2;
mod handover;
mod health;
mod housekeeping;
mod incidents;
mod introspection;
mod limits;
mod outages;
mod panics;
mod previews;
mod reflection;
mod secrets;
mod settings_docs;
mod stacks;
mod support;
mod tls;
mod tokens;
mod usage;
mod watch;
mod wire;
