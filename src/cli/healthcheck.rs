//! `stacktoken healthcheck`: for probes that run a command.

use std::process::ExitCode;

use clap::Args;

use super::connect::Server;
use crate::server::health;

#[derive(Args)]
pub struct Healthcheck {
    #[command(flatten)]
    server: Server,
    /// The service to ask about; without it, the server as a whole
    #[arg(long, default_value = "", value_name = "NAME")]
    service: String,
}

pub async fn run(command: Healthcheck) -> anyhow::Result<ExitCode> {
    let serving = health::ask(command.server.connect().await?, command.service).await?;
    println!("{}", if serving { "SERVING" } else { "NOT_SERVING" });
    Ok(if serving {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
