//! stacktoken: management tokens for the stacks of a headless CMS.
//!
//! # The house
//!
//! One crate; `tests/architecture.rs` keeps the walls. A room may use those to its left:
//!
//! ```text
//! domain ← store ← app ← grpc ← server ← cli ← main
//!    ↑
//!    ├─ memory (used by app and client)
//!    └─ auth (used by server and cli)      leaves: config, metrics, telemetry
//! ```
//!
//! - [`domain`]: what a token is: values that parse, transitions that take `now`, the verdict.
//!   No I/O.
//! - [`store`]: whole transactions on SQLite or PostgreSQL, and the history of changes.
//! - `memory`: facts by digest, and what throws them out.
//! - [`app`]: the use cases, and the lease that says when memory may be answered from.
//! - [`auth`]: from a credential to a caller, and the one table of who may call what.
//! - [`grpc`]: messages to domain values and back; the only maker of statuses.
//! - [`server`]: sockets, the layers in front of every call, health, the orderly end.
//! - [`cli`]: flags to settings, `dev`, and the client verbs.
//! - `client` (a feature): for Rust services that ask; may use [`domain`], `memory` and the
//!   generated code, and is used by no other room.
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
#[cfg(feature = "client")]
pub mod client;
pub mod config;
pub mod domain;
pub mod grpc;
mod memory;
pub mod metrics;
pub mod server;
pub mod store;
pub mod telemetry;
