//! Tests the verdicts on tokens.

mod answers;
mod batch;
mod own_catalogue;
mod permissions;
mod questions;
mod recognition;
mod tampering;
