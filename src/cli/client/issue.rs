//! `stacktoken issue`: issues a token and writes only its secret to standard output.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{
    Connect,
    values::{self, Access, Expires},
};
use crate::{
    cli::output,
    domain::clock::{Clock as _, SystemClock},
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
pub struct Issue {
    #[command(flatten)]
    connect: Connect,
    /// The token's name, unique among the live tokens of the stack
    #[arg(long)]
    name: String,
    /// What the token is for
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// The most that the token may do
    #[arg(long, value_enum)]
    access: Access,
    /// When the token expires: never, a time from now such as 90d, a date such as 2027-01-31
    /// (00:00 UTC), or an RFC 3339 timestamp
    #[arg(long, value_parser = values::expires, value_name = "WHEN")]
    expires: Expires,
    /// Restrict the token to a module, as in `entry:read-write`; can be repeated
    #[arg(long = "module", value_parser = values::grant, value_name = "NAME:ACCESS")]
    modules: Vec<v1::ModuleGrant>,
    /// Restrict the token to a branch; can be repeated
    #[arg(long = "branch", value_name = "NAME")]
    branches: Vec<String>,
    /// Restrict the token to a branch alias; can be repeated
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
}

impl Issue {
    fn permissions(&self) -> v1::Permissions {
        let grants = self.modules.clone();
        let narrowed = !self.branches.is_empty() || !self.aliases.is_empty();
        v1::Permissions {
            access: self.access.to_message(),
            modules: (!grants.is_empty()).then_some(v1::ModuleGrants { grants }),
            branches: narrowed.then(|| v1::BranchGrants {
                branches: self.branches.clone(),
                aliases: self.aliases.clone(),
            }),
        }
    }
}

pub async fn issue(command: Issue) -> anyhow::Result<ExitCode> {
    let request = v1::IssueRequest {
        stack_api_key: command.connect.stack.clone(),
        permissions: Some(command.permissions()),
        name: command.name,
        description: command.description,
        request_id: String::new(),
        validate_only: false,
        expiry: Some(command.expires.to_message(SystemClock::new().now())),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.issue(request).await
    };
    let v1::IssueResponse { token, secret, .. } = command.connect.call(request, rpc).await?;
    let uid = token.map(|token| token.token_uid).unwrap_or_default();
    let secret = Zeroizing::new(secret + "\n");
    output::deliver(secret.as_bytes()).with_context(|| {
        format!("token {uid} is issued, but its secret could not be written: revoke it")
    })?;
    print_error(format!(
        "issued token {uid}; this is the only time its secret is shown"
    ));
    Ok(ExitCode::SUCCESS)
}
