//! `stacktoken end-sessions`: ends the live sessions of a federated token at once.

use std::process::ExitCode;

use clap::Args;

use super::{OnStack, format::Format, session::Session, target::Which};
use crate::grpc::pb::v1::{self, token_service_client::TokenServiceClient};

#[derive(Args)]
pub struct EndSessions {
    #[command(flatten)]
    which: Which,
    /// End only the sessions of this workload, as the audit and `introspect` name it
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Only check the change and show its result. Nothing is ended
    #[arg(long)]
    validate_only: bool,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    on: OnStack,
}

pub async fn end_sessions(command: EndSessions) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(&command.on.connect)?;
    let token_uid = command.which.uid(&mut session, &command.on).await?;
    let request = v1::EndSessionsRequest {
        stack_api_key: command.on.key.clone(),
        token_uid: token_uid.clone(),
        subject: command.subject.clone().unwrap_or_default(),
        validate_only: command.validate_only,
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.end_sessions(request).await
    };
    let answer = session.change(&token_uid, request, rpc).await?;
    let name = "stacktoken.v1.EndSessionsResponse";
    command.output.print(name, &answer, |answer| {
        let ended = if command.validate_only {
            "would end"
        } else {
            "ended"
        };
        let sessions = if answer.count == 1 {
            "session"
        } else {
            "sessions"
        };
        format!("{ended} {} {sessions} of token {token_uid}", answer.count)
    })?;
    Ok(ExitCode::SUCCESS)
}
