//! stacktoken: management tokens for the stacks of a headless CMS.
//!
//! # Modules
//!
//! This crate is the server; `stacktoken-core` holds what it shares with `stacktoken-client`. A
//! module may use only the modules to its left; `tests/architecture.rs` checks this:
//!
//! ```text
//! core ← domain ← store ← app ← grpc ← server ← cli ← main
//!   ↑       ↑
//!   │       └─ auth (used by server and cli)      leaves: config, metrics, telemetry
//!   └─ client
//! ```
//!
//! - `core` (the crate `stacktoken-core`): secrets, permissions, the action catalogue, the
//!   verdict, the lease and the facts cache. [`domain`] re-exports all of it except the cache.
//! - [`domain`]: the server-only domain model: parsed values and state transitions that take
//!   `now`. No I/O.
//! - [`store`]: transactions on SQLite or PostgreSQL: `token`, `stack`, `lookup`, `change_log`,
//!   `last_used` and `audit` have a file per method; `engine` has what differs between the engines.
//! - [`app`]: the use cases, and the rules for answering from the cache.
//! - [`auth`]: authenticates a credential; holds the policy table of who may call which RPC.
//! - [`grpc`]: converts messages to domain values and back; the only module that builds statuses.
//! - [`server`]: sockets, the layers in front of every call, health checks, graceful shutdown.
//! - [`cli`]: command-line flags, `dev`, and the client commands.
//! - `client` (the crate `stacktoken-client`): the client library for Rust services. The server
//!   does not use it.
//!
//! # Path of a request
//!
//! `Introspect` enters at [`server`]: trace, request id, path policy, credential, caller kind,
//! permit, deadline. [`grpc`] parses the message once and reports every field violation.
//! [`app`] hashes the secret, looks up its facts in the cache if the lease covers it and otherwise
//! in [`store`], and evaluates them with [`domain::verdict`] at one instant. `convert` builds the
//! response; [`grpc::status`] builds the status of an error. A change takes the same path, and its
//! store method is one transaction. Envoy's `Check` has its own service in [`grpc`] and uses the
//! same use case in [`app`].

// Call futures nest deeply, and an optimised build computes the layout of the whole nest at once.
#![recursion_limit = "256"]

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod metrics;
pub mod server;
pub mod store;
pub mod telemetry;
