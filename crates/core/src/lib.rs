//! What decides on a management token, shared by the server and by its client for Rust: the format
//! of secrets, permissions, the built-in catalogue of actions, the verdict, the lease that says how
//! long a cache may be answered from, and that cache.
//!
//! No async runtime, no gRPC, no database, and no clock of its own: whoever calls gives the instant.

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
