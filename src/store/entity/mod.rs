//! The rows as they stand in the store: plain columns, no meaning. `TryFrom` in the files
//! beside this folder makes domain values of them.

pub mod audit_event;
pub mod member;
pub mod meta;
pub mod request;
pub mod stack;
pub mod token;
pub mod token_secret;
pub mod token_usage;
