//! Verdicts on presented tokens.

mod answers;
mod batch;
mod permissions;
mod questions;
mod recognition;
mod tampering;
