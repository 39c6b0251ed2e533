//! The command line. If a setting is wrong, one line of output names it. The line leaves out the
//! value if the value could be a secret.

#![warn(
    clippy::print_stdout,
    reason = "a closed pipe is no panic: see cli::output"
)]

mod client;
mod connect;
mod database;
mod dev;
mod exit;
mod healthcheck;
mod migrate;
mod output;
mod serve;
mod settings;

use std::{env, fmt::Write as _, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand, error::ContextKind};

pub use self::exit::code_of;
use crate::{
    config::{self, Log},
    domain::{entropy::OsEntropy, secret},
    telemetry::{self, logs, sampling, traces},
};

/// Management tokens for the stacks of a headless CMS
#[derive(Parser)]
#[command(name = "stacktoken", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    log: Log,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a local server without configuration, with its own store, issuer and two stacks
    Dev(Box<dev::Dev>),
    /// Run the server
    Serve(Box<serve::Serve>),
    /// Migrate the store's schema, or show its status
    Migrate(migrate::Migrate),
    /// Check whether a running server is SERVING; exit with code 0 if it is, with 1 otherwise
    Healthcheck(healthcheck::Healthcheck),
    /// Issue a token, and print only its secret to standard output
    Issue(client::Issue),
    /// Introspect the token whose secret is read from standard input
    Introspect(client::Introspect),
    /// Revoke a token permanently
    Revoke(client::Revoke),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Returns the trace settings of a command that serves.
    fn traces(&self) -> Option<&config::Traces> {
        match self {
            Self::Dev(dev) => Some(&dev.tuning.traces),
            Self::Serve(serve) => Some(&serve.tuning.traces),
            _ => None,
        }
    }
}

/// Parses the command line.
///
/// # Errors
/// Returns the exit code if the command line asks for help or is wrong. The help text or the error
/// is already printed by then.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        if error.use_stderr() {
            telemetry::output::print_error(format!("stacktoken: {}", in_one_line(&error)));
            return ExitCode::from(exit::USAGE);
        }
        // The user asked for help or the version. It is not an error if the reader has closed the
        // pipe.
        let _ = error.print();
        ExitCode::SUCCESS
    })
}

/// Describes a wrong command line in one line. Names the setting and its environment variable.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let told: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("For more"))
        .collect();
    let mut line = told.join(" ").trim_start_matches("error: ").to_owned();
    let flag = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    if let Some(variable) = flag.as_deref().and_then(variable_of) {
        // Writing to a String does not fail.
        let _ = write!(line, " (also set by {variable})");
    }
    without_secrets(&line)
}

/// Returns the line without any secret that was given in the wrong argument (R9).
fn without_secrets(line: &str) -> String {
    let mut parts = line.split(secret::PREFIX);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown.push_str("(a secret, which belongs on standard input)");
        shown.push_str(part.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric()));
    }
    shown
}

/// Returns the environment variable that corresponds to a flag, if the flag has one.
fn variable_of(flag: &str) -> Option<String> {
    let flag = flag.split_whitespace().next()?.strip_prefix("--")?;
    let command = Cli::command();
    let commands = command.get_subcommands().chain(std::iter::once(&command));
    let mut flags = commands.flat_map(clap::Command::get_arguments);
    let found = flags.find(|known| known.get_long() == Some(flag))?;
    Some(found.get_env()?.to_string_lossy().into_owned())
}
/// Runs the command that was given on the command line.
///
/// # Errors
/// Returns the error that makes the command fail; its text is one line.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Completions { shell } = cli.command {
        return completions(shell);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the one variable that is not ours"
    )]
    let fallback = env::var("RUST_LOG").ok();
    // Two libraries use rustls, and both must use the same crypto provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let exporting = {
        let _runtime = runtime.enter();
        match cli.command.traces() {
            Some(settings) => traces::begin(settings, settings::random_id(&OsEntropy)?)?,
            None => None,
        }
    };
    let logging = logs::begin(&cli.log, fallback, exporting.as_ref())?;
    let code = runtime.block_on(dispatch(cli.command));
    if let Some(exporting) = exporting {
        exporting.finish();
    }
    sampling::end_minute();
    logging.finish();
    // Does not wait for tasks that hang, such as a read from a client that has gone.
    runtime.shutdown_background();
    code
}

/// Prints why a command failed, in one line.
pub fn report(error: &anyhow::Error) {
    telemetry::output::print_error(format!("stacktoken: {error:#}"));
}

/// Prints the completion script of a shell. The script is first generated in memory, because clap's
/// generator panics if a write fails.
fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stacktoken", &mut script);
    output::bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(command) => dev::run(*command).await,
        Command::Serve(command) => Box::pin(serve::run(*command)).await,
        Command::Migrate(command) => migrate::run(command).await,
        Command::Healthcheck(command) => healthcheck::run(command).await,
        Command::Issue(command) => client::issue(command).await,
        Command::Introspect(command) => client::introspect(command).await,
        Command::Revoke(command) => client::revoke(command).await,
        Command::Completions { .. } => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        super::Cli::command().debug_assert();
    }
}
