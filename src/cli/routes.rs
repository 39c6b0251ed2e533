//! `stacktoken routes`: prints the route table in effect in the format of a routes file, as a
//! starting point for an operator's own file.

use std::process::ExitCode;

use clap::Args;

use super::{output, settings};
use crate::config;

#[derive(Args)]
pub struct Routes {
    #[command(flatten)]
    rules: config::Rules,
}

pub fn run(command: &Routes) -> anyhow::Result<ExitCode> {
    let rules = settings::rules(&command.rules)?;
    output::bytes(rules.routes.to_toml().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
