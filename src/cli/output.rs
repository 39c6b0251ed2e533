//! Standard output, where a reader such as `head` may have left before the end.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// Writes a line.
///
/// # Errors
/// Any failure but that of a reader that has left: it wants no more.
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

/// Writes bytes that somebody must get.
///
/// # Errors
/// Any failure, also that of a reader that has left.
pub fn deliver(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()
}
