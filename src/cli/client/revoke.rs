//! `stacktoken revoke`: permanently revokes a token, which is given by its id or by its name.

use std::process::ExitCode;

use clap::Args;

use super::{Connect, values};
use crate::{
    cli::{
        exit::{Failed, NOT_FOUND},
        output,
    },
    domain::id::TokenUid,
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
};

#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    which: Which,
    /// Reason for the revocation, stored with the token and in the audit
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Identifies the token either by its id or by its name.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Id of the token, as `issue` reported it
    #[arg(long, value_parser = values::token_uid, value_name = "UID")]
    token: Option<TokenUid>,
    /// Name of the live token
    #[arg(long)]
    name: Option<String>,
}

pub async fn revoke(command: Revoke) -> anyhow::Result<ExitCode> {
    let Revoke {
        connect,
        which,
        reason,
    } = command;
    let token_uid = match which.token {
        Some(uid) => uid.to_string(),
        None => find(&connect, &which.name.unwrap_or_default()).await?,
    };
    let request = v1::RevokeRequest {
        stack_api_key: connect.stack.clone(),
        token_uid: token_uid.clone(),
        reason,
        validate_only: false,
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.revoke(request).await
    };
    connect.call(request, rpc).await?;
    output::line(&format!("revoked token {token_uid}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the id of the live token with this name. A stack has at most one such token.
async fn find(connect: &Connect, name: &str) -> anyhow::Result<String> {
    let mut page_token = String::new();
    loop {
        let request = v1::ListRequest {
            stack_api_key: connect.stack.clone(),
            page_size: 100,
            page_token,
            states: vec![v1::TokenState::Active.into()],
            name_contains: name.to_owned(),
            ..Default::default()
        };
        let rpc = |channel, request| async {
            let mut tokens = TokenServiceClient::new(channel);
            tokens.list(request).await
        };
        let page = connect.call(request, rpc).await?;
        if let Some(token) = page.tokens.into_iter().find(|token| token.name == name) {
            return Ok(token.token_uid);
        }
        if page.next_page_token.is_empty() {
            let message = format!("--name {name:?}: the stack has no live token of this name");
            return Err(Failed::new(NOT_FOUND, message).into());
        }
        page_token = page.next_page_token;
    }
}
