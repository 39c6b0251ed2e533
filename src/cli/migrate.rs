//! `stacktoken migrate`: applies migrations, shows their status, or starts a new epoch.

use std::{process::ExitCode, sync::Arc};

use clap::{Args, Subcommand};

use super::{output, settings};
use crate::{
    config::DatabaseFlags,
    domain::{clock::SystemClock, entropy::OsEntropy},
    store::Store,
};

#[derive(Args)]
pub struct Migrate {
    #[command(subcommand)]
    step: Step,
    #[command(flatten)]
    database: DatabaseFlags,
}

#[derive(Subcommand)]
enum Step {
    /// Apply pending migrations
    Up,
    /// Show applied and pending migrations and missing tables and indexes; exit with code 1 if a
    /// migration is pending or unknown, or if something is missing
    Status,
    /// Start a new epoch of the change log, after the store was restored from a backup
    NewEpoch,
}

pub async fn run(command: Migrate) -> anyhow::Result<ExitCode> {
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let flags = &command.database;
    let store = match command.step {
        Step::Up => {
            let location = settings::location(flags)?;
            settings::open_or_create(flags, &location, (clock, entropy)).await?
        }
        Step::Status | Step::NewEpoch => settings::open(flags, clock, entropy).await?,
    };
    let code = match command.step {
        Step::Up => up(&store).await?,
        Step::Status => status(&store).await?,
        Step::NewEpoch => new_epoch(&store).await?,
    };
    store.close().await;
    Ok(code)
}

async fn up(store: &Store) -> anyhow::Result<ExitCode> {
    let before = store.migrate().await?;
    store.require_current_schema().await?;
    if before.pending.is_empty() {
        output::line("the schema is up to date")?;
    }
    for name in before.pending {
        output::line(&format!("applied {name}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(store: &Store) -> anyhow::Result<ExitCode> {
    let schema = store.schema().await?;
    let is_current =
        schema.pending.is_empty() && schema.unknown.is_empty() && schema.missing.is_empty();
    for (state, names) in [
        ("applied", schema.applied),
        ("pending", schema.pending),
        ("unknown", schema.unknown),
        ("missing", schema.missing),
    ] {
        for name in names {
            output::line(&format!("{state} {name}"))?;
        }
    }
    Ok(if is_current {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn new_epoch(store: &Store) -> anyhow::Result<ExitCode> {
    store.require_current_schema().await?;
    store.renew_epoch().await?;
    output::line(
        "a new epoch of the change log has started: earlier revisions are no longer valid",
    )?;
    Ok(ExitCode::SUCCESS)
}
