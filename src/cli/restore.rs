//! `stacktoken restore`: shows what a restored database brings back, ends it again, or begins a new
//! guard.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::{exit::ExitError, output, settings};
use crate::{
    config::{DatabaseFlags, GuardPlace},
    domain::{clock::SystemClock, entropy::OsEntropy},
    store::{Ended, GuardMode, Restored, Store, Unknown},
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
    Plan(GuardPlace),
    /// End again, in one transaction, everything that had ended, and accept the database
    Apply(Apply),
    /// Begin a new guard for the database as it is, because the former one is lost. What was revoked
    /// after the backup stays valid if the database was restored
    NewGuard(GuardPlace),
}

#[derive(Args)]
struct Apply {
    #[command(flatten)]
    place: GuardPlace,
    /// What to do about changes of which it is not known whether they were made. Required if `plan`
    /// lists any
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
        Step::Apply(apply) => &apply.place,
        Step::Plan(place) | Step::NewGuard(place) => place,
    };
    let store = open(&command.database, place).await?;
    let code = match &command.step {
        Step::Plan(_) => plan(&store).await,
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
    // The lines of all that is ended again are written at the end, however long that takes.
    let guard = settings::guard_place(place, GuardMode::Background)?.ok_or_else(required)?;
    let (clock, entropy) = (Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let guard = guard.open((clock.clone(), &OsEntropy)).context("--guard")?;
    let store = settings::open(database, clock, entropy).await?;
    store.require_current_schema().await?;
    Ok(store.guarded(guard))
}

async fn plan(store: &Store) -> anyhow::Result<ExitCode> {
    let plan = store.restore_plan().await.context("--guard")?;
    let preview = store.preview_restore(&plan).await?;
    let (known, damaged) = (&preview.known, &plan.report.damaged);
    print(&known.ended, "would be")?;
    print(&preview.unknown, "perhaps would be")?;
    print_members(known)?;
    for place in damaged {
        output::line(&format!(
            "damaged {place}: the rest of this file does not count"
        ))?;
    }
    let (ended, unknown, lines) = (known.ended.len(), preview.unknown.len(), plan.report.lines);
    output::line(&format!(
        "{ended} would come back, and perhaps {unknown} more; the guard has {lines} lines; nothing \
         was changed"
    ))?;
    let is_clean = ended == 0 && unknown == 0 && damaged.is_empty();
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn apply(store: &Store, decision: &Apply) -> anyhow::Result<ExitCode> {
    let plan = store.restore_plan().await.context("--guard")?;
    if !plan.report.damaged.is_empty() && !decision.accept_damage {
        let places = plan.report.damaged.join(", ");
        bail!("a journal is damaged at {places}: restore the file, or add --accept-damage");
    }
    let unknown = match decision.unknown {
        Some(UnknownChanges::End) => Unknown::End,
        Some(UnknownChanges::Suspend) => Unknown::Suspend,
        Some(UnknownChanges::Keep) => Unknown::Keep,
        None => {
            let undecided = store.preview_restore(&plan).await?.unknown.len();
            if undecided > 0 {
                bail!(
                    "it is not known whether {undecided} changes were made, which `plan` lists: add \
                     --unknown=end, --unknown=suspend or --unknown=keep"
                );
            }
            Unknown::Keep
        }
    };
    let done = store.restore(&plan, unknown).await?;
    print(&done.ended, "is")?;
    print_members(&done)?;
    output::line(&format!(
        "{} ended again; a new epoch of the change log has started: earlier revisions are no longer \
         valid",
        done.ended.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn print(all: &[Ended], verb: &str) -> anyhow::Result<()> {
    for ended in all {
        let token = ended.token.map(|token| format!(" token {token}"));
        let (token, key) = (token.unwrap_or_default(), &ended.stack_key);
        output::line(&format!("stack {key}{token} {verb} {}", ended.what))?;
    }
    Ok(())
}

fn print_members(found: &Restored) -> anyhow::Result<()> {
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
