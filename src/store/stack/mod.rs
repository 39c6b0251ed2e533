//! Stacks, their members, and the check and lock that every change of one begins with.

pub(in crate::store) mod access;
pub(in crate::store) mod members;
pub(in crate::store) mod stacks;
