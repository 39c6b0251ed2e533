//! `stacktoken exchange`: exchanges the JWT of a workload for a secret, and writes only the secret
//! to standard output.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{
    assertion::AssertionFlags,
    federation,
    format::Format,
    json,
    session::Session,
    stack_key, text,
    values::{self, Access},
};
use crate::{
    cli::{connect::Server, output},
    domain::id::TokenUid,
    grpc::pb::v1::{self, exchange_service_client::ExchangeServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
#[command(
    after_help = "Example, in a job of GitHub Actions:\n  stacktoken exchange --server https://tokens.example.com --stack blt00c0ffee00c0ffee --github > secret"
)]
pub struct Exchange {
    /// API key of the stack
    #[arg(
        long,
        env = "STACKTOKEN_STACK",
        value_parser = stack_key,
        value_name = "KEY"
    )]
    stack: String,
    /// Id of the federated token. Default: the only one of the stack whose rules match
    #[arg(long, value_parser = values::token_uid, value_name = "UID")]
    token: Option<TokenUid>,
    /// How long the secret lives, from 1m to 1h, and never longer than the token permits
    #[arg(long, value_parser = federation::session_for, value_name = "TIME")]
    session_for: Option<Duration>,
    #[command(flatten)]
    narrow: Narrow,
    #[command(flatten)]
    assertion: AssertionFlags,
    /// What to print to standard output: the secret alone, or the whole answer, which contains the
    /// secret
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    server: Server,
}

/// What the secret may do at most. It can only be less than what the token may do.
#[derive(Args)]
#[command(next_help_heading = "Narrowing")]
struct Narrow {
    /// Maximum access of the secret
    #[arg(long, value_enum)]
    access: Option<Access>,
    /// Restrict the secret to a module, as in `entry:read`; can be repeated
    #[arg(
        long = "module",
        value_parser = values::grant,
        value_name = "NAME:ACCESS",
        requires = "access"
    )]
    modules: Vec<v1::ModuleGrant>,
    /// Restrict the secret to a branch; can be repeated
    #[arg(long = "branch", value_name = "NAME", requires = "access")]
    branches: Vec<String>,
    /// Restrict the secret to a branch alias; can be repeated
    #[arg(long = "alias", value_name = "NAME", requires = "access")]
    aliases: Vec<String>,
}

impl Narrow {
    fn to_message(&self) -> Option<v1::Permissions> {
        let access = self.access?;
        let branches = [&self.branches, &self.aliases].map(Clone::clone);
        Some(values::permissions(access, self.modules.clone(), branches))
    }
}

pub async fn exchange(command: Exchange) -> anyhow::Result<ExitCode> {
    let jwt = command.assertion.obtain().await?;
    let token = command.token.as_ref();
    let request = v1::ExchangeRequest {
        stack_api_key: command.stack.clone(),
        token_uid: token.map(ToString::to_string).unwrap_or_default(),
        session_for: command.session_for.map(values::length),
        narrow: command.narrow.to_message(),
    };
    let mut session = Session::with_jwt(&command.server, &jwt)?;
    let rpc = |channel, request| async {
        let mut exchanges = ExchangeServiceClient::new(channel);
        exchanges.exchange(request).await
    };
    let answer = session.call(request, rpc).await?;
    deliver(&command, answer)
}

/// Writes the secret. In a job of GitHub Actions, first instructs the log to mask it.
fn deliver(command: &Exchange, mut answer: v1::ExchangeResponse) -> anyhow::Result<ExitCode> {
    if command.assertion.is_github() {
        print_error(format!("::add-mask::{}", answer.secret));
    }
    let until = text::instant(answer.expires_at.as_ref(), "");
    let uid = text::printable(&answer.token_uid);
    let secret = match command.output {
        Format::Text => std::mem::take(&mut answer.secret),
        Format::Json => json::format("stacktoken.v1.ExchangeResponse", &answer)?,
    };
    let secret = Zeroizing::new(secret + "\n");
    let undelivered = "the secret could not be written; it ends by itself";
    output::deliver(secret.as_bytes()).context(undelivered)?;
    print_error(format!("the secret of token {uid} lives until {until}"));
    Ok(ExitCode::SUCCESS)
}
