//! `stacktoken doctor`: takes the settings of `serve`, and checks without serving whether `serve`
//! would start, become ready and keep its promises. Uses the checks of `serve` itself, one module
//! for each area, and changes nothing.

mod certificates;
mod clock;
mod codes;
mod database;
mod files;
mod finding;
mod guard;
mod issuers;
mod limits;
mod listeners;
mod postgres;
mod report;
mod rules;
mod schema;

use std::{process::ExitCode, sync::Arc};

use clap::Args;

use self::{codes::Code, finding::Findings, report::Form};
use super::{exit::ExitError, output, serve::Serve, settings};
use crate::{
    auth::{Authenticator, Entries},
    domain::clock::SystemClock,
    store::Location,
};

/// Shown after the help.
const EXAMPLE: &str = "\
Example, with the settings of `serve` in the environment:
  stacktoken doctor
  stacktoken doctor --output json | jq -r '.findings[] | select(.severity == \"error\") | .code'";

#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Doctor {
    #[command(flatten)]
    pub(super) serve: Serve,
    /// Form of the findings
    #[arg(long, default_value = "text")]
    output: Form,
}

pub async fn run(command: Doctor) -> anyhow::Result<ExitCode> {
    let Doctor { serve, output } = command;
    let mut findings = Findings::default();
    // Wrong flags are refused as by `serve`.
    let issuers = serve.issuers()?;
    let location = location(&serve, &mut findings)?;
    guard::check(&serve.guard, &mut findings)?;
    let clock = clock::start(&serve.tuning);
    rules::check(&serve.tuning.rules, &mut findings);
    let entries = issuers::entries(issuers, &mut findings);
    files::check(&serve, entries.as_ref(), location.as_ref(), &mut findings);
    let authenticator = authenticator(entries.clone().unwrap_or_default(), &serve, &clock);
    if let Some(entries) = &entries {
        issuers::check(entries, &authenticator, &mut findings).await;
    }
    certificates::check(&serve.tls, &authenticator, (clock.clone(), &mut findings)).await;
    listeners::check(&serve, &mut findings).await;
    limits::check(&serve, &mut findings);
    if let Some(location) = &location {
        database::check(location, &serve, (clock.clone(), &mut findings)).await;
    }
    clock::finish(clock.as_ref(), &mut findings);
    let failed = report::print(&findings.into_sorted(), output)?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns the location of the store. A file that cannot be read is a finding, and so are not
/// settings that `serve` refuses as wrong.
fn location(serve: &Serve, findings: &mut Findings) -> anyhow::Result<Option<Location>> {
    match settings::location(&serve.database) {
        Ok(location) => Ok(Some(location)),
        Err(error) if error.downcast_ref::<ExitError>().is_some() => Err(error),
        Err(error) => {
            let fix = "Correct the path, or let the user of `serve` read the file: \
                       `chmod 600 FILE && chown USER FILE`";
            findings.add(Code::DatabaseUrl, output::error_text(&error), fix);
            Ok(None)
        }
    }
}

fn authenticator(entries: Entries, serve: &Serve, clock: &Arc<SystemClock>) -> Authenticator {
    settings::authenticator_of(entries, &serve.tuning, clock.clone())
}
