//! Prints an answer as text for people or as JSON for scripts.

use prost::Message;

use super::json;
use crate::cli::output;

/// The form of an answer on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text for people; its layout is not stable, so scripts should use `json`
    Text,
    /// The message in protobuf's JSON mapping
    Json,
}

impl Format {
    /// Prints an answer. `name` is the full name of its message type. `text` formats the answer for
    /// people.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub fn print<M: Message>(
        self,
        name: &str,
        answer: &M,
        text: impl FnOnce(&M) -> String,
    ) -> anyhow::Result<()> {
        match self {
            Self::Text => output::line(text(answer).trim_end()),
            Self::Json => output::line(&json::format(name, answer)?),
        }
    }
}
