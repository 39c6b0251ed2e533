//! The exit codes, which let a script distinguish an outage from a refusal. The README lists them.

use std::process::ExitCode;

/// The call could not be made, or failed in a way that a retry does not fix.
pub const FAILURE: u8 = 1;
/// A flag or the value of a flag is wrong.
pub const USAGE: u8 = 2;
/// The stack or the token does not exist.
pub const NOT_FOUND: u8 = 3;
/// The call was refused, the token is inactive, or the action is denied.
pub const REFUSED: u8 = 4;
/// The call was not decided, because the server is unreachable, does not answer, is overloaded or
/// cannot reach its store.
pub const UNAVAILABLE: u8 = 5;

/// An error that decides the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    code: u8,
    message: String,
}

impl Failed {
    /// Creates an error with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    /// Adds the request id, under which the call can be found in the server's log.
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.message = format!("{} [request id {id}]", self.message);
        self
    }

    /// Creates an error for a missing flag, or for flags that cannot be combined.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }
}

/// Returns the exit code for an error.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    let failed = error.downcast_ref::<Failed>();
    ExitCode::from(failed.map_or(FAILURE, |failed| failed.code))
}
