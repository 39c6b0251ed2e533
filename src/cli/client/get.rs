//! `stacktoken get`: shows one token, without its secret.

use std::process::ExitCode;

use clap::Args;

use super::{OnStack, format::Format, session::Session, target::Which, text};
use crate::grpc::pb::v1::{self, token_service_client::TokenServiceClient};

#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    which: Which,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    on: OnStack,
}

pub async fn get(command: Get) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(&command.on.connect)?;
    let token_uid = command.which.uid(&mut session, &command.on).await?;
    let answer = call(&mut session, &command.on, &token_uid).await?;
    let name = "stacktoken.v1.GetResponse";
    command.output.print(name, &answer, |answer| {
        text::token(&answer.token.clone().unwrap_or_default())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a token of the stack.
pub async fn token(
    session: &mut Session<'_>,
    on: &OnStack,
    token_uid: &str,
) -> anyhow::Result<v1::Token> {
    let answer = call(session, on, token_uid).await?;
    Ok(answer.token.unwrap_or_default())
}

async fn call(
    session: &mut Session<'_>,
    on: &OnStack,
    token_uid: &str,
) -> anyhow::Result<v1::GetResponse> {
    let request = v1::GetRequest {
        stack_api_key: on.key.clone(),
        token_uid: token_uid.to_owned(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.get(request).await
    };
    session.call(request, rpc).await
}
