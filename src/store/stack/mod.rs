//! Stacks and their members, and the lock and the role check with which every change of a stack
//! begins.

pub(in crate::store) mod access;
pub(in crate::store) mod list_members;
pub(in crate::store) mod list_own;
pub(in crate::store) mod members;
pub(in crate::store) mod register;
pub(in crate::store) mod stacks;
