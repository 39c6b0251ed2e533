//! `stacktoken restore`: shows what a restored database brings back, ends it again, or begins a new
//! guard.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::{exit::ExitError, output, settings};
use crate::{
    config::{DatabaseFlags, GuardPlace},
    domain::{caller::Mode, clock::SystemClock, entropy::OsEntropy},
    store::{GuardMode, JournalReport, RestorePlan, Restored, Store, Unknown},
};

/// Shown after the help.
const EXAMPLE: &str = "\
Example, after a backup was restored:
  stacktoken restore plan --guard /var/lib/stacktoken/guard
  stacktoken restore apply --guard /var/lib/stacktoken/guard";

#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Restore {
    #[command(subcommand)]
    step: Step,
    #[command(flatten)]
    database: DatabaseFlags,
}

#[derive(Subcommand)]
enum Step {
    /// Show what the restored database brings back, and change nothing; exit with code 1 if
    /// anything came back
    Plan(Decision),
    /// End again, in one transaction, everything that had ended, and accept the database
    Apply(Decision),
    /// Begin a new guard for the database as it is, because the former one is lost. What was revoked
    /// after the backup stays valid if the database was restored
    NewGuard(GuardPlace),
}

#[derive(Args)]
struct Decision {
    #[command(flatten)]
    place: GuardPlace,
    /// What to do about changes of which it is not known whether they were made. Required for
    /// `apply` if there are any
    #[arg(long, value_name = "DECISION")]
    unknown: Option<UnknownChanges>,
    /// Go on although a journal of the guard is damaged. The rest of the damaged file does not count
    #[arg(long)]
    accept_damage: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnknownChanges {
    /// End what they were about to end
    End,
    /// Suspend their stacks, until a person has looked
    Suspend,
    /// Do nothing about them
    Keep,
}

pub async fn run(command: Restore) -> anyhow::Result<ExitCode> {
    let place = match &command.step {
        Step::Plan(decision) | Step::Apply(decision) => &decision.place,
        Step::NewGuard(place) => place,
    };
    let store = open(&command.database, place).await?;
    let code = match &command.step {
        Step::Plan(decision) => plan(&store, decision).await,
        Step::Apply(decision) => apply(&store, decision).await,
        Step::NewGuard(_) => new_guard(&store).await,
    };
    store.close().await;
    code
}

async fn open(database: &DatabaseFlags, place: &GuardPlace) -> anyhow::Result<Store> {
    let required = || {
        ExitError::usage("--guard is required (or STACKTOKEN_GUARD): the directory of the guard")
    };
    let guard = settings::guard_place(place, GuardMode::Strict)?.ok_or_else(required)?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let guard = guard.open((clock.clone(), &OsEntropy)).context("--guard")?;
    let store = settings::open(database, clock, entropy).await?;
    store.require_current_schema().await?;
    Ok(store.guarded(guard))
}

async fn read(store: &Store, decision: &Decision, or: Unknown) -> anyhow::Result<RestorePlan> {
    let unknown = match decision.unknown {
        None => or,
        Some(UnknownChanges::End) => Unknown::End,
        Some(UnknownChanges::Suspend) => Unknown::Suspend,
        Some(UnknownChanges::Keep) => Unknown::Keep,
    };
    let plan = store.restore_plan(unknown).await.context("--guard")?;
    for place in &plan.report.damaged {
        output::line(&format!(
            "damaged {place}: the rest of this file does not count"
        ))?;
    }
    for (kind, stack, token) in &plan.report.unknown {
        let token = token.map(|token| format!(" token {token}"));
        let token = token.unwrap_or_default();
        output::line(&format!(
            "unknown {kind} stack {stack}{token}: perhaps never made"
        ))?;
    }
    Ok(plan)
}

async fn plan(store: &Store, decision: &Decision) -> anyhow::Result<ExitCode> {
    let plan = read(store, decision, Unknown::Keep).await?;
    let found = store.restore(&plan, Mode::Preview).await?;
    print(&found, "would be")?;
    let report = &plan.report;
    let is_clean = found.ended.is_empty() && report.unknown.is_empty() && report.damaged.is_empty();
    output::line(&format!(
        "{} would come back; the guard has {} lines; nothing was changed",
        found.ended.len(),
        report.lines
    ))?;
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn apply(store: &Store, decision: &Decision) -> anyhow::Result<ExitCode> {
    let plan = read(store, decision, Unknown::Keep).await?;
    require_decisions(&plan.report, decision)?;
    let done = store.restore(&plan, Mode::Apply).await?;
    print(&done, "is")?;
    output::line(&format!(
        "{} ended again; a new epoch of the change log has started: earlier revisions are no longer \
         valid",
        done.ended.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn require_decisions(report: &JournalReport, decision: &Decision) -> anyhow::Result<()> {
    if !report.unknown.is_empty() && decision.unknown.is_none() {
        bail!(
            "it is not known whether {} changes were made: add --unknown=end, --unknown=suspend or \
             --unknown=keep",
            report.unknown.len()
        );
    }
    if !report.damaged.is_empty() && !decision.accept_damage {
        bail!("a journal is damaged: restore it, or add --accept-damage");
    }
    Ok(())
}

fn print(found: &Restored, verb: &str) -> anyhow::Result<()> {
    for ended in &found.ended {
        let token = ended.token.map(|token| format!(" token {token}"));
        let token = token.unwrap_or_default();
        output::line(&format!(
            "stack {}{token} {verb} {}",
            ended.stack_key, ended.what
        ))?;
    }
    for stack in &found.members {
        output::line(&format!(
            "stack {stack}: its members were changed, perhaps after the backup: check them"
        ))?;
    }
    Ok(())
}

async fn new_guard(store: &Store) -> anyhow::Result<ExitCode> {
    store.begin_new_guard().await?;
    output::line("a new guard has begun: what the former one knew is not used any more")?;
    Ok(ExitCode::SUCCESS)
}
