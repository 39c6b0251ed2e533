//! `stacktoken catalogue`: checks a catalogue file, and prints the catalogue in effect in the
//! format of that file, as a starting point for an operator's own file.

use std::process::ExitCode;

use clap::Args;

use super::{output, settings};
use crate::{config::CatalogueFlag, domain::catalogue_file};

#[derive(Args)]
pub struct Catalogue {
    #[command(flatten)]
    catalogue: CatalogueFlag,
}

pub fn run(command: &Catalogue) -> anyhow::Result<ExitCode> {
    let catalogue = settings::catalogue(&command.catalogue)?;
    output::bytes(catalogue_file::to_toml(&catalogue).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
