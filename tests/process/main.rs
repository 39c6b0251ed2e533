//! Tests the program the way users run it: it is started, called, killed, and observed from
//! outside.
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

mod client_verbs;
mod clock;
mod collector;
mod collector_down;
mod command_line;
#[path = "../auth/corpus.rs"]
mod corpus;
mod crash;
mod database_down;
mod database_file;
mod disk;
mod doctor;
mod documented_commands;
mod drift;
#[path = "../mesh/envoy.rs"]
mod envoy;
mod exchange;
mod federation;
mod full;
mod housekeeping;
mod leak;
mod leak_http;
mod lifecycle;
mod metrics;
mod migrations;
mod outage;
mod owner_verbs;
mod owner_words;
mod pause;
#[path = "../replicas/pgbouncer.rs"]
mod pgbouncer;
#[path = "../replicas/postgres.rs"]
mod postgres;
mod program;
#[path = "../replicas/proxy.rs"]
mod proxy;
mod read_only;
mod readme;
mod refused;
mod restored;
mod rotated;
mod rules;
mod serve;
mod served;
mod settings;
mod skips;
mod stalled;
mod stub;
#[path = "../it/support/mod.rs"]
mod support;
mod traces;
mod wrong_clock;
mod wrong_lines;
