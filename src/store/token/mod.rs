//! The methods for tokens, with a file for each method or group of methods.

pub(in crate::store) mod change;
pub(in crate::store) mod end_overlap;
pub(in crate::store) mod expiry;
pub(in crate::store) mod filter;
pub(in crate::store) mod first_use;
pub(in crate::store) mod idempotency;
pub(in crate::store) mod impact;
pub(in crate::store) mod issue;
pub(in crate::store) mod leaked;
pub(in crate::store) mod limit;
pub(in crate::store) mod listing;
pub(in crate::store) mod revoke_all;
pub(in crate::store) mod rotate;
pub(in crate::store) mod rows;
pub(in crate::store) mod secrets;
pub(in crate::store) mod state;
