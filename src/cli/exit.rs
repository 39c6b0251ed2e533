//! The exit codes, by which a script can distinguish an outage from a refusal. The README lists the
//! codes.

use std::process::ExitCode;

use super::output;

/// The call could not be made, or failed in a way that a retry does not fix.
pub const FAILURE: u8 = 1;
/// A flag or the value of a flag is wrong.
pub const USAGE: u8 = 2;
/// The stack or the token does not exist.
pub const NOT_FOUND: u8 = 3;
/// The call was refused, the token is inactive, or the action is denied.
pub const REFUSED: u8 = 4;
/// The call was not decided, because the server is unreachable, does not answer, is overloaded, or
/// cannot reach its store.
pub const UNAVAILABLE: u8 = 5;

/// An error that determines the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    code: u8,
    message: String,
    /// Whether a change may have been made although the call failed.
    outcome_unknown: bool,
}

impl ExitError {
    /// Creates an error with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            outcome_unknown: false,
        }
    }

    /// Marks this as the error of a call whose outcome is unknown.
    pub const fn with_unknown_outcome(mut self) -> Self {
        self.outcome_unknown = true;
        self
    }

    /// Converts this to an error with the exit code [`FAILURE`], because a retry does not help.
    pub fn into_failure(self) -> Self {
        Self::new(FAILURE, self.message)
    }

    /// Adds the request id, under which the call can be found in the server's log.
    pub fn with_request_id(mut self, id: &str) -> Self {
        self.message = format!("{} [request id {id}]", self.message);
        self
    }

    /// Converts an error about a wrong setting to a usage error.
    #[expect(clippy::needless_pass_by_value, reason = "passed to map_err")]
    pub fn wrong_setting(error: anyhow::Error) -> Self {
        Self::usage(output::error_text(&error))
    }

    /// Appends `advice` if the outcome of the change is unknown.
    pub fn or_if_unknown(self, advice: &str) -> Self {
        if self.outcome_unknown {
            return self.with_hint(&format!("the outcome is unknown: {advice}"));
        }
        self
    }

    /// Adds a hint to the message.
    pub fn with_hint(mut self, hint: &str) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }

    /// Returns whether a flag or its value is wrong.
    pub const fn is_usage(&self) -> bool {
        self.code == USAGE
    }

    /// Creates an error for a missing flag, or for flags that cannot be combined.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, message)
    }
}

/// Returns the exit code for an error.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    let failed = error.downcast_ref::<ExitError>();
    ExitCode::from(failed.map_or(FAILURE, |failed| failed.code))
}
