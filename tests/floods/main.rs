//! Tests attacks below the level of calls. Under floods of frames and sockets, the real program
//! must keep running, use bounded memory and still answer other clients.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests may panic, and use the clock and the environment of the host"
)]

mod answers;
mod frames;
mod honest;
mod messages;
mod openings;
#[path = "../process/program.rs"]
mod program;
#[path = "../process/served.rs"]
mod served;
mod shares;
mod sockets;
mod strangers;
mod streams;
#[path = "../it/support/mod.rs"]
mod support;
