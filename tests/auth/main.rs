//! Tests how callers are authenticated, without a server, with a fake clock and a fake fetcher. The
//! tests over the wire use the same corpus.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

mod corpus;
mod credentials;
mod entries;
mod freshness;
mod http;
mod issuers_file;
mod support;
mod workloads;
