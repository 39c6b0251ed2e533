//! The rows as stored: plain columns, no meaning. `TryFrom` in the files beside this folder
//! converts them to domain values.

pub mod audit_event;
pub mod member;
pub mod meta;
pub mod request;
pub mod stack;
pub mod token;
pub mod token_secret;
pub mod token_usage;
