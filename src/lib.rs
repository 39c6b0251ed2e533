//! stacktoken: management tokens for the stacks of a headless CMS.
//!
//! # Modules
//!
//! This crate is the server. It shares the crate `stacktoken-core` with the client library,
//! `stacktoken-client`, so that both evaluate a token with the same code. A module may use only the
//! modules to its left. `tests/architecture.rs` checks this.
//!
//! ```text
//! core ← domain ← store ← app ← grpc ← http ← server ← cli ← main
//!   ↑       ↑
//!   │       └─ auth (used by server and cli)      leaves: config, metrics, telemetry
//!   └─ client
//! ```
//!
//! - `core` (the crate `stacktoken-core`): secrets, permissions, the action catalogue, the
//!   verdict, the lease and the facts cache. [`domain`] re-exports all of it except the cache.
//! - [`domain`]: the part of the domain model that only the server needs: parsed values, and state
//!   transitions that take `now` as an argument. It does no I/O; only `domain::clock` reads the
//!   host's clock. `R1` to `R15` in comments are the rules in `docs/rules.md`.
//! - [`store`]: transactions on SQLite or PostgreSQL. `token`, `session`, `stack`, `lookup`,
//!   `change_log`, `last_used`, `guard` and `audit` contain the methods, about one file for each. `engine`
//!   contains most of the differences between the two databases. `inspect` reads what a database
//!   says of itself.
//! - [`app`]: the use cases, and the rules for answering from the cache.
//! - [`auth`]: authenticates a credential. The policy table says who may call which RPC.
//! - [`grpc`]: converts messages to domain values and back. No other module builds statuses.
//! - [`http`]: the routes of the HTTP port, each of which calls RPCs.
//! - [`server`]: sockets, the layers in front of every call, health checks, graceful shutdown.
//! - [`cli`]: command-line flags, `dev`, `doctor`, and the client commands.
//! - `client` (the crate `stacktoken-client`): the client library for Rust services. The server
//!   does not use it.
//!
//! # Path of a request
//!
//! A call of `Introspect` first passes these steps in [`server`], in this order:
//!
//! 1. The rule of its path is looked up (`server/rpc_middleware.rs`, `auth/policy.rs`).
//! 2. The size of its headers and the unread responses of its peer are checked
//!    (`server/headers.rs`, `server/connections/backlog.rs`).
//! 3. Its trace starts, and it gets a request id (`telemetry/traces.rs`, `server/request_id.rs`).
//! 4. Its deadline starts (`server/deadline.rs`). A path without a rule is refused
//!    (`server/admission.rs`).
//! 5. Its credential is authenticated (`auth/authenticator.rs`), and the kind of its caller is
//!    compared with the rule (`domain/caller.rs`).
//! 6. Its message arrives (`server/message.rs`). If the verdict is not ready at once, the call
//!    takes a permit (`server/permits.rs`).
//!
//! `server/direct.rs` passes a call through these steps without waiting, on the thread of its
//! connection, and answers it from the cache (`grpc/from_cache.rs`). If a step refuses the call, or
//! the cache is not enough, the call starts again on the main runtime (`server/rpc_layer.rs`).
//!
//! Then [`grpc`] parses the message once and reports every field violation
//! (`grpc/introspection.rs`, `grpc/convert/introspection.rs`). [`app`] hashes the secret and looks
//! up its facts, in the cache if the lease covers it (`app/cached.rs`, `app/freshness.rs`) and
//! otherwise in [`store`] (`app/lookup.rs`). It evaluates the facts at one instant with
//! [`domain::verdict`] (`app/introspect.rs`). `grpc/convert/introspection.rs` builds the response,
//! and [`grpc::status`] builds the status of an error.
//!
//! A request on the HTTP port is read in `server/http_port.rs`. [`http`] converts it to calls of
//! RPCs, which take the path above as if they had arrived on the gRPC port.
//!
//! A change takes the same path, with two differences in [`server`]: the rate of its caller's
//! changes is checked after step 5 (`app/throttle.rs`), and the call always takes a permit after
//! its message has arrived. Its store method is one transaction. Envoy's `Check` has its own
//! service (`grpc/ext_authz`) and uses the same use case in [`app`].
//!
//! # Where to find it
//!
//! - *Where a credential becomes a caller*: for a JWT in `auth/authenticator.rs`, once for each
//!   distinct header, because verified JWTs are cached. For a client certificate in
//!   `auth/certificates.rs`, once for each connection: `server/connections/mod.rs` does this at the
//!   TLS handshake, and `auth/authenticator.rs` only checks the expiry at each call.
//!   `server/admission.rs` then builds the call's [`domain::caller::Call`] from the caller and the
//!   rule of the RPC. A call that the cache can answer needs no `Call`: `server/direct.rs` uses
//!   `Authenticator::recognize` and the same rule.
//! - *Where the lease is computed*: in `crates/core/src/lease.rs`. `Lease::since` is the earlier of
//!   the starts of the last poll and of the last heartbeat, and `Lease::covers` compares its age
//!   with the freshness bound. `app/change_poller.rs` renews both instants. `app/freshness.rs`
//!   holds them, and decides what the lease covers: on SQLite always everything, and nothing once
//!   the file is lost. The client library uses the same type, which pongs renew
//!   (`crates/client/src/cache.rs`).
//! - *Where the limit on live tokens is enforced*: in `store/token/limit.rs`, under the lock that
//!   `store/stack/access.rs` takes. Only `store/token/issue.rs` calls it, because no other change
//!   makes a token live. The default is `DEFAULT_TOKEN_LIMIT` in `domain/stack.rs`.
//! - *Where the instant of a change is read*: in `store/stack/access.rs`, after the lock.
//! - *Where the engines differ*: in `store/engine/dialect.rs` and in the places that
//!   `CONTRIBUTING.md` lists for a third engine.

// The futures of calls are deeply nested, and an optimized build computes the layout of the whole
// nested type at once.
#![recursion_limit = "256"]

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod server;
pub mod store;
pub mod telemetry;
