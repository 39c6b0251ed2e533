//! Flags that select a token, and flags of commands that change a token.

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{OnStack, format::Format, session::Session, values};
use crate::{
    cli::exit::{ExitError, NOT_FOUND},
    domain::{id::TokenUid, text::TokenName},
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
};

/// A token, given either by its id or by its name.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Id of the token, which `issue` reported
    #[arg(long, value_parser = values::token_uid, value_name = "UID")]
    token: Option<TokenUid>,
    /// Name of the live token
    #[arg(long, value_parser = TokenName::parse, value_name = "NAME")]
    name: Option<TokenName>,
}

/// How a change is made.
#[derive(Args)]
pub struct ChangeFlags {
    /// Change the token only if it still has this etag, which `get` shows. Otherwise the change is
    /// refused with `ETAG_MISMATCH`
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "ETAG")]
    etag: Option<String>,
    /// Only check the change and show its result. Nothing is changed
    #[arg(long)]
    pub validate_only: bool,
}

impl ChangeFlags {
    /// Returns the etag to send; empty if the change is unconditional.
    pub fn etag(&self) -> String {
        self.etag.clone().unwrap_or_default()
    }
}

/// The options of a change that makes no secret.
#[derive(Args)]
pub struct ChangeOptions {
    #[command(flatten)]
    pub change: ChangeFlags,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub output: Format,
    #[command(flatten)]
    pub on: OnStack,
}

impl ChangeOptions {
    /// Creates a session, and returns it with the id of the token to change.
    ///
    /// # Errors
    /// Returns an error if the credential cannot be read or sent, or if the token is not found.
    pub async fn start(&self, which: &Which) -> anyhow::Result<(Session<'_>, String)> {
        let mut session = Session::new(&self.on.connect)?;
        let token_uid = which.uid(&mut session, &self.on).await?;
        Ok((session, token_uid))
    }
}

impl Which {
    /// Returns the id of the token. Looks up a name among the live tokens of the stack.
    ///
    /// # Errors
    /// Returns an error with the exit code for "not found" if no live token has the name.
    pub async fn uid(&self, session: &mut Session<'_>, on: &OnStack) -> anyhow::Result<String> {
        match (&self.token, &self.name) {
            (Some(uid), _) => Ok(uid.to_string()),
            (None, Some(name)) => find(session, on, name.as_str()).await,
            (None, None) => Err(ExitError::usage("--token or --name is required").into()),
        }
    }
}

/// Returns the id of the live token with this name. A stack has at most one such token.
async fn find(session: &mut Session<'_>, on: &OnStack, name: &str) -> anyhow::Result<String> {
    let request = v1::ListRequest {
        stack_api_key: on.key.clone(),
        states: vec![v1::TokenState::Active.into()],
        name: name.to_owned(),
        ..Default::default()
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.list(request).await
    };
    let page = session.call(request, rpc).await?;
    // The server has already filtered by name. The check is repeated here, because revoking the
    // wrong token could not be undone.
    let found = page.tokens.into_iter().find(|token| token.name == name);
    let message = || {
        format!(
            "--name {name:?}: the stack has no live token of this name; `list --name` shows revoked \
             and expired ones"
        )
    };
    found
        .map(|token| token.token_uid)
        .ok_or_else(|| ExitError::new(NOT_FOUND, message()).into())
}
