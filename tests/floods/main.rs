//! Clients that mean harm, below the level of calls: the real program under floods of frames
//! and of sockets. It must stay alive, keep its memory, and go on answering everybody else.
#![allow(
    dead_code,
    missing_docs,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail loudly, and stands for the world outside"
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
mod streams;
#[path = "../it/support/mod.rs"]
mod support;
