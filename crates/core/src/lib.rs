//! Evaluates management tokens. The server and its Rust client share this crate. It contains the
//! format of secrets, the permissions, the built-in catalogue of actions, the verdict, the cache of
//! facts, and the lease that limits how long the cache may be used for answers.
//!
//! This crate has no async runtime, no gRPC and no database, and does not read a clock. The caller
//! passes the current time.

pub mod catalogue;
pub mod clock;
mod digests;
pub mod entropy;
pub mod facts_cache;
pub mod field;
pub mod id;
pub mod labels;
pub mod lease;
pub mod origin;
pub mod permissions;
pub mod revision;
pub mod secret;
pub mod text;
pub mod timestamp;
pub mod verdict;
