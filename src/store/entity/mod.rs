//! The rows as they are stored, in plain columns. `TryFrom` implementations elsewhere in `store`
//! convert them to domain values.

pub mod assertion;
pub mod audit_event;
pub mod member;
pub mod meta;
pub mod replay;
pub mod request;
pub mod session;
pub mod stack;
pub mod token;
pub mod token_secret;
pub mod token_usage;
