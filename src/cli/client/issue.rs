//! `stacktoken issue`: issues a token and writes only its secret to standard output.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{
    OnStack,
    federation::FederationFlags,
    format::Format,
    json, repeat,
    session::Session,
    text,
    values::{self, Access, Expires},
};
use crate::{
    cli::{
        exit::{ExitError, FAILURE},
        output,
    },
    domain::text::TokenName,
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken issue --stack blt00c0ffee00c0ffee \\\n    --jwt-file owner.jwt --name deploy --access read-write --expires 90d > secret"
)]
pub struct Issue {
    /// The token's name, unique among the live tokens of the stack
    #[arg(long, value_parser = TokenName::parse, value_name = "NAME")]
    name: TokenName,
    /// What the token is for
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Maximum access of the token
    #[arg(long, value_enum)]
    access: Access,
    /// When the token expires: never, a duration from now such as 90d or 12h (units: s, m for
    /// minutes, h, d, w), a date such as 2027-01-31 (00:00 UTC), or an RFC 3339 timestamp
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
    /// Label for finding the token later; can be repeated
    #[arg(long = "label", value_parser = values::label, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    federation: FederationFlags,
    /// Only check the request and show the token. Nothing is issued
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    repeat: repeat::RepeatFlags,
    /// What to print to standard output: the secret alone, or the whole answer, which contains the
    /// secret
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    on: OnStack,
}

impl Issue {
    fn permissions(&self) -> v1::Permissions {
        let branches = [&self.branches, &self.aliases].map(Clone::clone);
        values::permissions(self.access, self.modules.clone(), branches)
    }
}

/// Returns the error for a server of an earlier version, which does not know federated tokens and
/// has therefore issued an ordinary token.
fn not_federated(token: &v1::Token, validate_only: bool) -> String {
    if validate_only {
        let message = "the server knows no federated tokens: upgrade every replica of it first";
        return message.to_owned();
    }
    format!(
        "the server knows no federated tokens and issued an ordinary token, {uid}, whose secret is \
         not shown: revoke it (stacktoken revoke --stack {key} --token {uid}), upgrade every replica of \
         the server, and try again",
        uid = token.token_uid,
        key = token.stack_api_key,
    )
}

pub async fn issue(command: Issue) -> anyhow::Result<ExitCode> {
    let request_id = command.repeat.request_id()?;
    let federation = command.federation.to_message();
    let wants_federation = federation.is_some();
    let request = v1::IssueRequest {
        stack_api_key: command.on.key.clone(),
        permissions: Some(command.permissions()),
        name: command.name.as_str().to_owned(),
        description: command.description,
        request_id: request_id.clone(),
        validate_only: command.validate_only,
        labels: values::distinct_labels(&command.labels)?,
        expiry: Some(command.expires.to_message()),
        federation,
    };
    let mut session = Session::new(&command.on.connect)?;
    session.connect().await?;
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.issue(request).await
    };
    let called = session.call(request, rpc).await;
    let mut answer = called.map_err(|error| repeat::with_repeat_hint(error, &request_id))?;
    let token = answer.token.clone().unwrap_or_default();
    let is_federated = token.federation.is_some();
    if wants_federation && !is_federated {
        // The secret must not be used, so it is wiped instead of printed.
        drop(Zeroizing::new(std::mem::take(&mut answer.secret)));
        return Err(ExitError::new(FAILURE, not_federated(&token, command.validate_only)).into());
    }
    if command.validate_only {
        let name = "stacktoken.v1.IssueResponse";
        command.output.print(name, &answer, |_| {
            format!("the token can be issued\n{}", text::token(&token))
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let expiry = text::expiry(&token);
    let uid = token.token_uid.clone();
    let secret = match command.output {
        // A federated token has no secret, and `exchange` needs its id.
        Format::Text if is_federated => uid.clone(),
        Format::Text => std::mem::take(&mut answer.secret),
        Format::Json => json::format("stacktoken.v1.IssueResponse", &answer)?,
    };
    let secret = Zeroizing::new(secret + "\n");
    output::deliver(secret.as_bytes()).with_context(|| {
        format!("token {uid} is issued, but its secret could not be written: revoke it")
    })?;
    if is_federated {
        print_error(format!(
            "issued federated token {uid}, which has no secret: its workloads use exchange; it {expiry}"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    print_error(format!(
        "issued token {uid}; this is the only time its secret is shown; it {expiry}"
    ));
    Ok(ExitCode::SUCCESS)
}
