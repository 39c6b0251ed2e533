//! The arguments of docs/architecture.md as small models, each explored to the last state. With
//! all safeguards no order of events shows a wrong answer; without any one of them some order
//! does.
#![allow(
    clippy::pedantic,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a model is read as a whole, and may fail loudly"
)]

mod explorer;
mod failover;
mod freshness;
mod rotation;
mod unknown_outcome;
