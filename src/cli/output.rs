//! Writes to standard output. Handles a reader such as `head`, which may close the pipe before
//! everything is written.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

/// Writes a line to standard output.
///
/// # Errors
/// Returns any failure except a closed pipe, because then the reader needs no more output.
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

/// Appends the causes of an error to its text. Skips causes that the text already contains, because
/// many libraries include the cause in the text of an error.
pub fn without_repetition(text: String, causes: impl Iterator<Item = String>) -> String {
    causes.fold(text, |text, cause| {
        if text.contains(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// Formats an error with its causes, each once.
pub fn error_text(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(ToString::to_string);
    without_repetition(error.to_string(), causes)
}
