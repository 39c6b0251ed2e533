//! The domain model, without I/O: parsed values, state transitions that take `now`, and the pure
//! verdict. Independent of gRPC, the store and the host.

pub mod audit;
pub mod caller;
pub mod clock;
pub mod comparison;
pub mod impact;
pub mod incident;
pub mod page;
pub mod refusal;
pub mod request;
pub mod rotation;
pub mod routes;
pub mod stack;
pub mod token;

pub use stacktoken_core::{
    catalogue, entropy, field, id, lease, origin, permissions, revision, secret, text, timestamp,
    verdict,
};
