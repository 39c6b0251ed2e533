//! The domain model, without I/O. It contains parsed values, state transitions that take the
//! current time as `now`, and the pure verdict. It does not depend on gRPC, the store or the host.

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
