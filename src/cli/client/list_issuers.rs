//! `stacktoken list-issuers`: lists the issuers that federated tokens of a stack can trust.

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;

use super::{OnStack, federation, format::Format, session::Session, text};
use crate::grpc::pb::v1::{self, token_service_client::TokenServiceClient};

#[derive(Args)]
pub struct ListIssuers {
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    on: OnStack,
}

pub async fn list_issuers(command: ListIssuers) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(&command.on.connect)?;
    let request = v1::ListFederationIssuersRequest {
        stack_api_key: command.on.key.clone(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.list_federation_issuers(request).await
    };
    let answer = session.call(request, rpc).await?;
    let name = "stacktoken.v1.ListFederationIssuersResponse";
    command.output.print(name, &answer, |answer| {
        let issuers: Vec<_> = answer.issuers.iter().map(issuer).collect();
        if issuers.is_empty() {
            return "no issuer of workloads is configured for this stack".to_owned();
        }
        issuers.join("\n")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn issuer(issuer: &v1::FederationIssuer) -> String {
    let replay = if issuer.single_use {
        "once"
    } else {
        "again and again"
    };
    let (name, provider, audience) = (&issuer.name, &issuer.provider, &issuer.audience);
    let head = format!("{name}: {provider}, audience {audience}, a JWT can be exchanged {replay}");
    let mut out = text::printable(&head);
    for required in &issuer.required_claims {
        // Writing to a String does not fail.
        let _ = write!(out, "\n  requires {}", text::printable(required));
    }
    if let Some(example) = &issuer.example {
        let example = text::printable(&federation::described(example));
        let _ = write!(out, "\n  example: {example}");
    }
    out
}
