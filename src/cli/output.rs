//! Writes to standard output. A reader such as `head` may close the pipe before everything is
//! written.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// Writes a line to standard output.
///
/// # Errors
/// Returns any failure except a closed pipe, because a reader that closed it needs no more output.
pub fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output without adding a line break.
///
/// # Errors
/// Returns the same errors as [`line`] does.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    match deliver(bytes) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Writes bytes that must not be lost, such as the secret of a new token.
///
/// # Errors
/// Returns any failure, including a closed pipe.
pub fn deliver(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}
