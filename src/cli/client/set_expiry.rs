//! `stacktoken set-expiry`: changes when a token expires.

use std::process::ExitCode;

use clap::Args;

use super::{
    target::{ChangeOptions, Which},
    text,
    values::{self, Expires},
};
use crate::{
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken set-expiry --stack blt00c0ffee00c0ffee \\\n    --jwt-file owner.jwt --name deploy --expires 2027-01-31"
)]
pub struct SetExpiry {
    #[command(flatten)]
    which: Which,
    /// When the token expires: never, a duration from now such as 90d or 12h (units: s, m for
    /// minutes, h, d, w), a date such as 2027-01-31 (00:00 UTC), an RFC 3339 timestamp, or now,
    /// which ends the token permanently
    #[arg(long, value_parser = values::changed_expires, value_name = "WHEN")]
    expires: Expires,
    #[command(flatten)]
    options: ChangeOptions,
}

pub async fn set_expiry(command: SetExpiry) -> anyhow::Result<ExitCode> {
    if !command.options.change.validate_only {
        command.expires.require_future(SystemClock::new().now())?;
    }
    let options = &command.options;
    let (mut session, token_uid) = options.start(&command.which).await?;
    let request = v1::SetExpiryRequest {
        stack_api_key: options.on.key.clone(),
        token_uid: token_uid.clone(),
        expiry: Some(command.expires.to_message()),
        validate_only: options.change.validate_only,
        etag: options.change.etag(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.set_expiry(request).await
    };
    let answer = session.change(&token_uid, request, rpc).await?;
    let name = "stacktoken.v1.SetExpiryResponse";
    options.output.print(name, &answer, |answer| {
        let token = answer.token.clone().unwrap_or_default();
        let expiry = text::expiry(&token);
        if options.change.validate_only {
            let impact = text::impact(answer.impact.as_ref());
            format!("token {} would be: {expiry}\n{impact}", token.token_uid)
        } else {
            format!("token {}: {expiry}", token.token_uid)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
