//! From a credential to a caller, and who may call what.

pub mod policy;
