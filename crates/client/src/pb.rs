//! The messages and the client stub of `IntrospectionService`, generated from `proto/` and kept in
//! this repository, so that building this crate needs neither the contract nor a compiler for it.
//! A test of the server regenerates and compares them.

#[allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated; the contract documents it"
)]
pub mod v1 {
    include!("generated/stacktoken.v1.rs");
}
