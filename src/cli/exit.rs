//! Exit codes, so that a script can tell an outage from a refusal; the README lists them.

use std::process::ExitCode;

/// The call could not be made, or failed in a way that a retry does not fix.
pub const FAILURE: u8 = 1;
/// A wrong flag, or a wrong value for one.
pub const USAGE: u8 = 2;
/// There is no such stack or token.
pub const NOT_FOUND: u8 = 3;
/// Refused; or the token is inactive, or the action denied.
pub const REFUSED: u8 = 4;
/// Nothing was decided: the server is unreachable, silent, overloaded or without its store.
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

    /// Adds the id under which the server's log has the call.
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.message = format!("{} [request id {id}]", self.message);
        self
    }

    /// Creates an error for flags that are wrong together, or for one that is missing.
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
