//! Makes calls that create a secret safe to repeat if the response is lost. Such a call has an
//! idempotency key.

use clap::Args;

use crate::{
    cli::{exit::ExitError, settings},
    domain::{entropy::OsEntropy, text},
};

/// The idempotency key of a call.
#[derive(Args)]
pub struct RepeatFlags {
    /// Idempotency key, for repeating the call if its response was lost: the same call with the
    /// same id within 10 minutes changes the same token and prints a new secret. Default: a random
    /// id, which is reported if the outcome is unknown
    #[arg(long, value_parser = text::parse_slug, value_name = "ID")]
    request_id: Option<String>,
}

impl RepeatFlags {
    /// Returns the id to send.
    ///
    /// # Errors
    /// Returns an error if the system's source of randomness fails.
    pub fn request_id(&self) -> anyhow::Result<String> {
        match &self.request_id {
            Some(id) => Ok(id.clone()),
            None => settings::random_id(&OsEntropy),
        }
    }
}

/// If the outcome of the call is unknown, adds a hint on how to repeat the call to the error.
pub fn with_repeat_hint(error: anyhow::Error, request_id: &str) -> anyhow::Error {
    let advice = format!("within 10 minutes, repeat the command with --request-id {request_id}");
    or_if_unknown(error, &advice)
}

/// If the outcome of a change without an idempotency key is unknown, adds a hint on how to check it
/// to the error.
pub fn with_lookup_hint(error: anyhow::Error, token_uid: &str) -> anyhow::Error {
    or_if_unknown(error, &format!("look with get --token {token_uid}"))
}

fn or_if_unknown(error: anyhow::Error, advice: &str) -> anyhow::Error {
    match error.downcast::<ExitError>() {
        Ok(failed) => failed.or_if_unknown(advice).into(),
        Err(error) => error,
    }
}
