//! The authentication of callers, on its own: without a server, with a clock and a fetcher of
//! the test's own. The corpus is shared with the tests over the wire.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test may fail loudly"
)]

mod corpus;
mod credentials;
mod entries;
mod freshness;
mod http;
mod issuers_file;
mod support;
