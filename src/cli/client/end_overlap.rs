//! `stacktoken end-overlap`: ends the former secret of a rotated token at once.

use std::process::ExitCode;

use clap::Args;

use super::{
    format::Format,
    get,
    target::{ChangeOptions, Which},
    text,
};
use crate::grpc::pb::v1::{self, token_service_client::TokenServiceClient};

#[derive(Args)]
pub struct EndOverlap {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    options: ChangeOptions,
}

pub async fn end_overlap(command: EndOverlap) -> anyhow::Result<ExitCode> {
    let options = &command.options;
    let (mut session, token_uid) = options.start(&command.which).await?;
    // The response contains only the secret that stays valid. To show which secret would end, the
    // token is read first.
    let before = if options.change.validate_only && options.output == Format::Text {
        get::token(&mut session, &options.on, &token_uid).await?
    } else {
        v1::Token::default()
    };
    let request = v1::EndOverlapRequest {
        stack_api_key: options.on.key.clone(),
        token_uid: token_uid.clone(),
        validate_only: options.change.validate_only,
        etag: options.change.etag(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.end_overlap(request).await
    };
    let answer = session.change(&token_uid, request, rpc).await?;
    let name = "stacktoken.v1.EndOverlapResponse";
    options.output.print(name, &answer, |answer| {
        let stays = answer.token.as_ref().map(|token| &token.secrets[..]);
        let stays = stays.unwrap_or_default();
        let newest = text::secrets(stays);
        if !options.change.validate_only {
            return format!("token {token_uid} now has only its newest secret: {newest}");
        }
        let ends = before.secrets.iter();
        let ends = ends.filter(|secret| stays.iter().all(|s| s.generation != secret.generation));
        let ends: Vec<_> = ends.cloned().collect();
        let ended = if ends.is_empty() {
            "would end no secret".to_owned()
        } else {
            format!("would end the secret {}", text::secrets(&ends))
        };
        let impact = text::impact(answer.impact.as_ref());
        format!(
            "{ended}\nwould leave token {token_uid} with only its newest secret: {newest}\n{impact}"
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
