//! stacktoken: management tokens for the stacks of a headless CMS.
//!
//! # Modules
//!
//! This crate is the server; `stacktoken-core` holds what it shares with `stacktoken-client`. A
//! module may use those to its left, which `tests/architecture.rs` checks:
//!
//! ```text
//! core ← domain ← store ← app ← grpc ← server ← cli ← main
//!   ↑       ↑
//!   │       └─ auth (used by server and cli)      leaves: config, metrics, telemetry
//!   └─ client
//! ```
//!
//! - `core` (the crate `stacktoken-core`): secrets, permissions, the catalogue of actions, the
//!   verdict, the lease, and the cache of facts. [`domain`] re-exports what is not the cache.
//! - [`domain`]: what else a token is to the server: values that parse, transitions that take
//!   `now`. No I/O.
//! - [`store`]: whole transactions on SQLite or PostgreSQL, and the history of changes.
//! - [`app`]: the use cases, and when the cache may be answered from.
//! - [`auth`]: from a credential to a caller, and the one table of who may call what.
//! - [`grpc`]: messages to domain values and back; the only maker of statuses.
//! - [`server`]: sockets, the layers in front of every call, health, the orderly end.
//! - [`cli`]: flags to settings, `dev`, and the client verbs.
//! - `client` (the crate `stacktoken-client`): for Rust services that ask. The server does not use
//!   it.
//!
//! # One request through it
//!
//! `Introspect` enters at [`server`]: trace, request id, the rule of its path, room, credential,
//! kind of caller, deadline. [`grpc`] parses the message once, every fault reported.
//! [`app`] digests the secret, takes what is known of the digest from memory if the lease
//! covers it and from [`store`] if not, and has [`domain::verdict`] judge that at one instant.
//! Back through `convert`; an error goes through [`grpc::status`]. A change takes the same
//! way, and its store method is one transaction. Envoy's `Check` enters [`grpc`] by its own
//! door and joins at [`app`].

// The futures of a call are nested deeply; an optimised build computes the layout of all at once.
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
