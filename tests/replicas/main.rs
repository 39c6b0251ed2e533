//! Tests several replicas on one PostgreSQL, with faults between them. The database is a real
//! PostgreSQL that the tests start; the replicas are the real server with the host's clock.
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

mod batch;
mod cluster;
mod conformance;
mod control;
mod defaults;
mod edges;
mod etag;
mod failover;
mod faults;
mod federation;
mod hints;
mod history;
mod housekeeping;
mod idle;
mod incidents;
mod instants;
mod limit;
mod locked;
mod lost_history;
mod origins;
mod outcomes;
mod pgbouncer;
mod plans;
mod pooler;
mod postgres;
mod previews;
mod proxy;
mod readings;
mod repeated;
mod revoke_all;
mod rotation;
mod shares;
mod skew;
mod stopped;
#[path = "../it/support/mod.rs"]
mod support;
mod trips;
mod trusted;
mod usage;
mod visibility;
mod watch;
mod work;
