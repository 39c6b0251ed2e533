//! `stacktoken revoke`: permanently revokes a token, given by its id or by its name.

use std::process::ExitCode;

use clap::Args;

use super::{
    target::{ChangeOptions, Which},
    text,
};
use crate::grpc::pb::v1::{self, token_service_client::TokenServiceClient};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken revoke --stack blt00c0ffee00c0ffee \\\n    --jwt-file owner.jwt --name deploy --reason \"moved to another runner\""
)]
pub struct Revoke {
    #[command(flatten)]
    which: Which,
    /// Reason for the revocation, stored with the token and in the audit
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    options: ChangeOptions,
}

pub async fn revoke(command: Revoke) -> anyhow::Result<ExitCode> {
    let options = &command.options;
    let (mut session, token_uid) = options.start(&command.which).await?;
    let request = v1::RevokeRequest {
        stack_api_key: options.on.key.clone(),
        token_uid: token_uid.clone(),
        reason: command.reason,
        validate_only: options.change.validate_only,
        etag: options.change.etag(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.revoke(request).await
    };
    let answer = session.change(&token_uid, request, rpc).await?;
    let name = "stacktoken.v1.RevokeResponse";
    options.output.print(name, &answer, |answer| {
        if options.change.validate_only {
            let impact = text::impact(answer.impact.as_ref());
            format!("would revoke token {token_uid}\n{impact}")
        } else {
            format!("revoked token {token_uid}")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
