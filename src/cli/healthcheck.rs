//! `stacktoken healthcheck`: for probes that run a command.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::server::health;

#[derive(Args)]
pub struct Healthcheck {
    /// The server to ask
    #[arg(
        long,
        env = "STACKTOKEN_SERVER",
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    server: String,
    /// The service to ask about; without it, the server as a whole
    #[arg(long, default_value = "", value_name = "NAME")]
    service: String,
}

pub async fn run(command: Healthcheck) -> anyhow::Result<ExitCode> {
    let asked = health::ask(command.server.clone(), command.service).await;
    let serving = asked.with_context(|| format!("--server {}", command.server))?;
    println!("{}", if serving { "SERVING" } else { "NOT_SERVING" });
    Ok(if serving {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
