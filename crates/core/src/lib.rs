//! The evaluation of management tokens, shared by the server and its Rust client: the format of
//! secrets, permissions, the built-in catalogue of actions, the verdict, the cache of facts, and
//! the lease that decides how long the cache may be used for answers.
//!
//! This crate has no async runtime, no gRPC, no database and no clock of its own: the caller passes
//! the instant.

pub mod catalogue;
pub mod clock;
pub mod entropy;
pub mod facts_cache;
pub mod field;
pub mod id;
pub mod lease;
pub mod origin;
pub mod permissions;
pub mod revision;
pub mod secret;
pub mod text;
pub mod timestamp;
pub mod verdict;
