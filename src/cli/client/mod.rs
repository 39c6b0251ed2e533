//! The client commands, with which a new user needs no other tool. Secrets are read from standard
//! input and written to standard output. They are never passed as arguments.

mod assertion;
mod end_overlap;
mod end_sessions;
mod exchange;
mod explain_exchange;
mod federation;
mod fields;
mod filter;
mod format;
mod get;
mod introspect;
mod issue;
mod json;
mod list;
mod list_issuers;
mod outcome;
mod repeat;
mod revoke;
mod rotate;
mod session;
mod set_expiry;
mod stacks;
mod target;
mod text;
mod update;
mod values;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

pub use self::{
    end_overlap::{EndOverlap, end_overlap},
    end_sessions::{EndSessions, end_sessions},
    exchange::{Exchange, exchange},
    explain_exchange::{ExplainExchange, explain_exchange},
    get::{Get, get},
    introspect::{Introspect, introspect},
    issue::{Issue, issue},
    list::{List, list},
    list_issuers::{ListIssuers, list_issuers},
    outcome::words_of_error,
    revoke::{Revoke, revoke},
    rotate::{Rotate, rotate},
    set_expiry::{SetExpiry, set_expiry},
    stacks::{Stacks, stacks},
    update::{Update, update},
};
use super::{connect::Server, exit::ExitError};
use crate::domain::{field::Problem, secret, stack::StackKey};

/// The server to call, and the caller's credential.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
struct Connect {
    #[command(flatten)]
    server: Server,
    /// The caller's JWT
    #[arg(long, env = "STACKTOKEN_JWT", hide_env_values = true, hide = true)]
    jwt: Option<String>,
    /// File that contains the caller's JWT. Alternatively, set STACKTOKEN_JWT to the JWT itself
    #[arg(long, env = "STACKTOKEN_JWT_FILE", value_name = "FILE")]
    jwt_file: Option<PathBuf>,
}

/// The stack whose tokens a command reads or changes.
#[derive(Args)]
struct OnStack {
    /// API key of the stack
    #[arg(
        long = "stack",
        env = "STACKTOKEN_STACK",
        value_parser = stack_key,
        value_name = "KEY"
    )]
    key: String,
    #[command(flatten)]
    connect: Connect,
}

/// Checks the key of a stack, so that a mistyped key is not reported as a missing stack.
fn stack_key(text: &str) -> Result<String, Problem> {
    StackKey::parse(text).map(|_| text.to_owned())
}

/// Refuses a text that is not a JWT before it is sent. Most importantly, the secret of a token must
/// not be sent as a credential.
fn checked_jwt(source: &str, text: &str) -> anyhow::Result<String> {
    let jwt = text.trim();
    let problem = if jwt.is_empty() {
        "is empty"
    } else if secret::is_within(jwt) {
        "contains the secret of a management token, not a JWT; nothing was sent"
    } else if jwt.starts_with("Bearer ") {
        "begins with the word Bearer: leave that out"
    } else if jwt.split_whitespace().nth(1).is_some() || jwt.split('.').count() != 3 {
        "contains no JWT, which has three parts separated by dots"
    } else {
        return Ok(jwt.to_owned());
    };
    Err(ExitError::usage(format!("{source} {problem}")).into())
}

impl Connect {
    /// Returns the caller's JWT. Returns `None` if a client certificate identifies the caller.
    fn credential(&self) -> anyhow::Result<Option<String>> {
        match (&self.jwt, &self.jwt_file) {
            (Some(_), Some(_)) => {
                let message = "--jwt-file and STACKTOKEN_JWT are both set: keep one";
                Err(ExitError::usage(message).into())
            }
            (Some(jwt), None) => checked_jwt("STACKTOKEN_JWT", jwt).map(Some),
            (None, Some(file)) => {
                let read = fs::read_to_string(file);
                let jwt =
                    read.with_context(|| format!("--jwt-file: cannot read {}", file.display()))?;
                checked_jwt(&format!("--jwt-file {}", file.display()), &jwt).map(Some)
            }
            (None, None) if self.server.has_certificate() => Ok(None),
            (None, None) => {
                let message = "no credential: give --jwt-file FILE (or set STACKTOKEN_JWT_FILE), \
                               or set STACKTOKEN_JWT to the JWT itself";
                Err(ExitError::usage(message).into())
            }
        }
    }
}
