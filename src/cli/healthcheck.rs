//! `stacktoken healthcheck`: checks the health of a server, for probes that run a command.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use super::{client, connect::Server, output};
use crate::server::health;

#[derive(Args)]
pub struct Healthcheck {
    /// Name of the service to check. Default: the server as a whole
    #[arg(long, default_value = "", value_name = "NAME")]
    service: String,
    #[command(flatten)]
    server: Server,
}

pub async fn run(command: Healthcheck) -> anyhow::Result<ExitCode> {
    let Healthcheck { server, service } = command;
    let asking = async { health::ask(server.connect().await?, service).await };
    // A probe expects exit code 0 or 1, so every kind of failure results in exit code 1.
    let serving = server.in_time(asking).await;
    let serving = serving.unwrap_or_else(|| Err(server.no_answer().into()));
    let serving = serving.map_err(|error| anyhow!("{}", client::words_of_error(&error)))?;
    output::line(if serving { "SERVING" } else { "NOT_SERVING" })?;
    Ok(if serving {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
