//! What a management token is, without I/O: values that parse, transitions that take
//! `now`, and the pure verdict. Knows nothing of gRPC, of the store or of the host.

pub mod audit;
pub mod caller;
pub mod catalogue;
pub mod clock;
pub mod entropy;
pub mod field;
pub mod id;
pub mod impact;
pub mod incident;
pub mod lease;
pub mod origin;
pub mod page;
pub mod permissions;
pub mod refusal;
pub mod request;
pub mod revision;
pub mod rotation;
pub mod routes;
pub mod secret;
pub mod stack;
pub mod text;
pub mod timestamp;
pub mod token;
pub mod verdict;
