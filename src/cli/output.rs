//! Standard output, whose reader, such as `head`, may close the pipe before the end.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// Writes a line.
///
/// # Errors
/// Returns any failure except a closed pipe: its reader needs no more output.
pub fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes bytes as they are.
///
/// # Errors
/// As [`line`].
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    match deliver(bytes) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Writes bytes that must reach the reader.
///
/// # Errors
/// Returns any failure, including a closed pipe.
pub fn deliver(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}
