//! Verdicts on presented tokens.

mod answers;
mod permissions;
mod questions;
mod recognition;
mod tampering;
