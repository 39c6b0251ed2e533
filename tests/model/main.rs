//! Small models of the arguments in docs/architecture.md. Each model is explored exhaustively. With
//! all safeguards, no order of events leads to a wrong answer; without any one of them, some order
//! does.
#![allow(
    clippy::pedantic,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a model is easier to read as a whole, and tests may panic"
)]

mod explorer;
mod failover;
mod freshness;
mod rotation;
mod unknown_outcome;
