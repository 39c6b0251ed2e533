//! The domain model, without I/O: parsed values, state transitions that take the current time as
//! `now`, and the evaluation of verdicts. It does not depend on gRPC or the store. The only thing
//! that it reads from the host is the clock (`clock`).

pub mod audit;
pub mod caller;
pub mod catalogue_file;
pub mod clock;
pub mod comparison;
pub mod edit;
pub mod etag;
pub mod federation;
pub mod impact;
pub mod incident;
mod operator_file;
pub mod page;
pub mod refusal;
pub mod request;
pub mod rotation;
pub mod routes;
pub mod stack;
pub mod token;
pub mod token_secret;
pub mod unique_json;
pub mod version;

pub use self::operator_file::FileError;
pub use stacktoken_core::{
    catalogue, entropy, field, id, labels, lease, origin, permissions, revision, secret, text,
    timestamp, verdict,
};
