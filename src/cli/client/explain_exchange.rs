//! `stacktoken explain-exchange`: shows whether a workload could exchange its JWT, rule by rule.

use std::{fmt::Write as _, fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{
    OnStack, checked_jwt, federation, format::Format, session::Session, target::Which, text,
};
use crate::{
    cli::exit,
    grpc::pb::v1::{self, token_service_client::TokenServiceClient},
};

#[derive(Args)]
pub struct ExplainExchange {
    #[command(flatten)]
    which: Which,
    /// File that contains the JWT of the workload, which is verified but not used up
    #[arg(long, value_name = "FILE")]
    subject_token_file: PathBuf,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    on: OnStack,
}

pub async fn explain_exchange(command: ExplainExchange) -> anyhow::Result<ExitCode> {
    let file = command.subject_token_file.display();
    let read = fs::read_to_string(&command.subject_token_file);
    let jwt = read.with_context(|| format!("--subject-token-file: cannot read {file}"))?;
    let subject_token = checked_jwt(&format!("--subject-token-file {file}"), &jwt)?;
    let mut session = Session::new(&command.on.connect)?;
    let token_uid = command.which.uid(&mut session, &command.on).await?;
    let request = v1::ExplainExchangeRequest {
        stack_api_key: command.on.key.clone(),
        token_uid,
        subject_token,
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.explain_exchange(request).await
    };
    let answer = session.call(request, rpc).await?;
    let name = "stacktoken.v1.ExplainExchangeResponse";
    command.output.print(name, &answer, explanation)?;
    Ok(if answer.would_exchange {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::REFUSED)
    })
}

fn explanation(answer: &v1::ExplainExchangeResponse) -> String {
    let length = answer.session_for.as_ref().map(federation::shown_length);
    let mut out = match (answer.would_exchange, length) {
        (true, Some(length)) => format!("would be exchanged, for {length}\n"),
        (true, None) => "would be exchanged\n".to_owned(),
        (false, _) => "would be refused\n".to_owned(),
    };
    if !answer.subject.is_empty() {
        // Writing to a String does not fail.
        let _ = writeln!(out, "workload: {}", text::printable(&answer.subject));
    }
    for obstacle in answer.obstacles() {
        let word = text::enum_word(obstacle.as_str_name(), "EXCHANGE_OBSTACLE_");
        let _ = writeln!(out, "because: {word}");
    }
    for result in &answer.rules {
        let verdict = if result.matched { "matches" } else { "differs" };
        let rule = result
            .rule
            .as_ref()
            .map(federation::rule)
            .unwrap_or_default();
        let presented = result.presented.as_deref().unwrap_or("(absent)");
        let line = format!("{verdict}: {rule}, presented {presented}");
        let _ = writeln!(out, "{}", text::printable(&line));
    }
    out
}
