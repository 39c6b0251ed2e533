//! The messages and the client stub of `IntrospectionService`. The code is generated from `proto/`
//! and committed, so that this crate can be built without the contract and without a protobuf
//! compiler. A test of the server regenerates the code and compares the result.

#[allow(
    missing_docs,
    clippy::pedantic,
    clippy::large_enum_variant,
    reason = "generated; the contract documents it"
)]
pub mod v1 {
    include!("generated/stacktoken.v1.rs");
}
