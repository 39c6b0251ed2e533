//! stacktoken: management tokens for the stacks of a headless CMS.
//!
//! # Modules
//!
//! This crate is the server. The crate `stacktoken-core` contains the code that the server and
//! `stacktoken-client` share. A module may use only the modules to its left, which
//! `tests/architecture.rs` checks:
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
//! - [`domain`]: the part of the domain model that only the server needs: parsed values, and state
//!   transitions that take `now` as an argument. It does no I/O.
//! - [`store`]: transactions on SQLite or PostgreSQL. `token`, `stack`, `lookup`, `change_log`,
//!   `last_used` and `audit` have a file per method. `engine` contains the differences between the
//!   two databases.
//! - [`app`]: the use cases, and the rules for answering from the cache.
//! - [`auth`]: authenticates a credential. The policy table says who may call which RPC.
//! - [`grpc`]: converts messages to domain values and back. No other module builds statuses.
//! - [`server`]: sockets, the layers in front of every call, health checks, graceful shutdown.
//! - [`cli`]: command-line flags, `dev`, and the client commands.
//! - `client` (the crate `stacktoken-client`): the client library for Rust services. The server
//!   does not use it.
//!
//! # Path of a request
//!
//! This is the path of `Introspect`. In [`server`], a call passes these steps in this order:
//!
//! 1. The rule of its path is looked up (`server/rpc_middleware.rs`, `auth/policy.rs`).
//! 2. The size of its headers and the unread responses of its peer are checked
//!    (`server/headers.rs`, `server/connections/share.rs`).
//! 3. Its trace starts, and it gets a request id (`telemetry/traces.rs`, `server/request_id.rs`).
//! 4. Its deadline starts (`server/deadline.rs`). A path without a rule is refused
//!    (`server/admission.rs`).
//! 5. Its credential is authenticated (`auth/authenticator.rs`), and the kind of its caller is
//!    compared with the rule (`domain/caller.rs`).
//! 6. Its message arrives (`server/message.rs`). If the verdict is not ready at once, the call
//!    takes a permit (`server/permits.rs`).
//!
//! Then [`grpc`] parses the message once and reports every field violation
//! (`grpc/introspection.rs`, `grpc/convert/introspection.rs`). [`app`] hashes the secret and looks
//! up its facts, in the cache if the lease covers it (`app/freshness.rs`) and otherwise in
//! [`store`] (`app/lookup.rs`). It evaluates the facts at one instant with [`domain::verdict`]
//! (`app/introspect.rs`). `grpc/convert/introspection.rs` builds the response, and [`grpc::status`]
//! builds the status of an error.
//!
//! A change takes the same path, with two differences in [`server`]: the rate of its caller's
//! changes is checked after step 5 (`app/throttle.rs`), and the call always takes a permit after
//! its message has arrived. Its store method is one transaction. Envoy's `Check` has its own
//! service (`grpc/ext_authz`) and uses the same use case in [`app`].

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
