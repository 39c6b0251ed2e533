//! `stacktoken rotate`: gives a token a new secret, and writes only that secret to standard output.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use zeroize::Zeroizing;

use super::{
    OnStack,
    format::Format,
    json, repeat,
    session::Session,
    target::{ChangeFlags, Which},
    text, values,
};
use crate::{
    cli::output,
    grpc::pb::v1::{self, overlap::Ends, token_service_client::TokenServiceClient},
    telemetry::output::print_error,
};

#[derive(Args)]
#[command(
    after_help = "Example:\n  stacktoken rotate --stack blt00c0ffee00c0ffee \\\n    --jwt-file owner.jwt --name deploy --until-first-use --at-most 7d > secret"
)]
pub struct Rotate {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    overlap: OverlapFlags,
    /// With --until-first-use: the former secret ends after this time at the latest, even if the
    /// new one is still unused. At most 30d, which is the default
    #[arg(long, value_parser = values::overlap, conflicts_with = "overlap", value_name = "TIME")]
    at_most: Option<Duration>,
    #[command(flatten)]
    change: ChangeFlags,
    #[command(flatten)]
    repeat: repeat::RepeatFlags,
    /// What to print to standard output: the new secret alone, or the whole answer, which contains
    /// the secret
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    on: OnStack,
}

/// How long the former secret works in addition to the new one. There is no default.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct OverlapFlags {
    /// How long the former secret still works, such as 7d; at most 30d. With 0s, it ends at once. A
    /// token has at most two live secrets: during an overlap, a rotation ends one of them
    #[arg(long, value_parser = values::overlap, value_name = "TIME")]
    overlap: Option<Duration>,
    /// The former secret works until the new one is used for the first time
    #[arg(long)]
    until_first_use: bool,
}

impl Rotate {
    fn overlap(&self) -> v1::Overlap {
        let ends = match self.overlap.overlap {
            Some(length) => Ends::OverlapFor(values::length(length)),
            None => Ends::UntilFirstUse(true),
        };
        v1::Overlap {
            ends: Some(ends),
            at_most: self.at_most.map(values::length),
        }
    }
}

pub async fn rotate(command: Rotate) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(&command.on.connect)?;
    session.connect().await?;
    let request_id = command.repeat.request_id()?;
    let request = v1::RotateRequest {
        stack_api_key: command.on.key.clone(),
        token_uid: command.which.uid(&mut session, &command.on).await?,
        overlap: Some(command.overlap()),
        request_id: request_id.clone(),
        validate_only: command.change.validate_only,
        etag: command.change.etag(),
    };
    let rpc = |channel, request| async {
        let mut tokens = TokenServiceClient::new(channel);
        tokens.rotate(request).await
    };
    let called = session.call(request, rpc).await;
    let answer = called.map_err(|error| repeat::with_repeat_hint(error, &request_id))?;
    report(&command, answer)?;
    Ok(ExitCode::SUCCESS)
}

fn report(command: &Rotate, mut answer: v1::RotateResponse) -> anyhow::Result<()> {
    let name = "stacktoken.v1.RotateResponse";
    let token = answer.token.clone().unwrap_or_default();
    let (uid, generation) = (&token.token_uid, token.generation);
    let former = former(command, &answer);
    if command.change.validate_only {
        return command.output.print(name, &answer, |_| {
            format!("would rotate token {uid} to generation {generation}; {former}")
        });
    }
    let secret = match command.output {
        Format::Text => std::mem::take(&mut answer.secret),
        Format::Json => json::format(name, &answer)?,
    };
    let secret = Zeroizing::new(secret + "\n");
    output::deliver(secret.as_bytes()).with_context(|| {
        format!("token {uid} is rotated, but its new secret could not be written: rotate it again")
    })?;
    print_error(format!(
        "rotated token {uid} to generation {generation}; this is the only time its secret is \
         shown; {former}; live secrets: {}",
        text::hints(&token.secrets)
    ));
    Ok(())
}

/// Describes how long the former secret still works.
fn former(command: &Rotate, answer: &v1::RotateResponse) -> String {
    let ends_at = text::instant(answer.overlap_ends_at.as_ref(), "the end of the token");
    if command
        .overlap
        .overlap
        .is_some_and(|length| length.is_zero())
    {
        "the former secret no longer works".to_owned()
    } else if command.overlap.until_first_use {
        format!("the former secret works until the new one is used, and until {ends_at} at most")
    } else {
        format!("the former secret works until {ends_at}")
    }
}
