//! The command line. If a setting is wrong, one line of output names the setting. The line omits
//! the value if it could be a secret.

#![warn(
    clippy::print_stdout,
    reason = "a closed pipe is no panic: see cli::output"
)]

mod catalogue;
mod client;
mod connect;
mod credentials;
mod database;
mod dev;
mod doctor;
mod exit;
mod healthcheck;
mod migrate;
mod otel;
mod output;
mod parse;
mod precedence;
mod restore;
mod routes;
mod serve;
mod settings;

use std::{env, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

pub use self::{exit::code_of, parse::parse};
use crate::{
    config::{self, Log},
    domain::entropy::OsEntropy,
    telemetry::{self, logs, sampling, traces},
};

/// Management tokens for the stacks of a headless CMS
#[derive(Parser)]
#[command(name = "stacktoken", version)]
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
    #[command(after_help = serve::EXAMPLE)]
    Serve(Box<serve::Serve>),
    /// Check the settings of `serve`, the database, the certificates and the issuers without serving.
    /// Changes nothing; exits with code 1 if something must be corrected
    Doctor(Box<doctor::Doctor>),
    /// Migrate the store's schema, or show its status
    Migrate(migrate::Migrate),
    /// After the database was restored: show or end again what its backup brings back
    Restore(restore::Restore),
    /// Check whether a running server is SERVING; exit with code 0 if it is, with 1 otherwise
    Healthcheck(healthcheck::Healthcheck),
    /// Issue a token, and print only its secret to standard output
    Issue(client::Issue),
    /// Introspect the token whose secret is read from standard input
    Introspect(client::Introspect),
    /// List the tokens of a stack
    List(client::List),
    /// Show one token, without its secret
    Get(client::Get),
    /// Change the name, description, permissions or labels of a token
    Update(client::Update),
    /// Change when a token expires
    SetExpiry(client::SetExpiry),
    /// Give a token a new secret, and print only that secret to standard output
    Rotate(client::Rotate),
    /// End the former secret of a rotated token at once
    EndOverlap(client::EndOverlap),
    /// Revoke a token permanently
    Revoke(client::Revoke),
    /// List the caller's own stacks
    Stacks(client::Stacks),
    /// Exchange the JWT of a workload for a secret, and print only the secret to standard output
    Exchange(client::Exchange),
    /// Show whether a workload could exchange its JWT, rule by rule
    ExplainExchange(client::ExplainExchange),
    /// End the live sessions of a federated token at once
    EndSessions(client::EndSessions),
    /// List the issuers of workloads that federated tokens of a stack can name
    ListIssuers(client::ListIssuers),
    /// Print the complete action catalogue, with the additions from --catalogue, in the format that
    /// --catalogue reads. Contacts no server; ListActions returns the catalogue of a server
    Catalogue(catalogue::Catalogue),
    /// Print the complete route table, with the additions from --authz-routes, in the format that
    /// --authz-routes reads. Contacts no server
    Routes(routes::Routes),
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_name = "bash|elvish|fish|powershell|zsh")]
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Returns the trace settings of `dev` or `serve`; `None` for other commands.
    fn traces(&self) -> Option<&config::Traces> {
        match self {
            Self::Dev(dev) => Some(&dev.tuning.traces),
            Self::Serve(serve) => Some(&serve.tuning.traces),
            _ => None,
        }
    }

    fn traces_mut(&mut self) -> Option<&mut config::Traces> {
        match self {
            Self::Dev(dev) => Some(&mut dev.tuning.traces),
            Self::Serve(serve) => Some(&mut serve.tuning.traces),
            Self::Doctor(doctor) => Some(&mut doctor.serve.tuning.traces),
            _ => None,
        }
    }
}

/// Runs the command that was given on the command line.
///
/// # Errors
/// Returns the error because of which the command fails.
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
            Some(settings) => {
                let identity = traces::Identity {
                    service: otel::read("OTEL_SERVICE_NAME"),
                    instance: settings::random_id(&OsEntropy)?,
                };
                traces::begin(settings, identity).map_err(exit::ExitError::wrong_setting)?
            }
            None => None,
        }
    };
    let logging = logs::begin(&cli.log, fallback, exporting.as_ref());
    let logging = logging.map_err(exit::ExitError::wrong_setting)?;
    let code = runtime.block_on(dispatch(cli.command));
    if let Some(exporting) = exporting {
        exporting.finish();
    }
    sampling::end_minute();
    logging.finish();
    // Does not wait for tasks that hang, such as a read from a client that is gone.
    runtime.shutdown_background();
    code
}

/// Prints in one line why a command failed.
pub fn report(error: &anyhow::Error) {
    let line = credentials::redact(&output::error_text(error));
    telemetry::output::print_error(format!("stacktoken: {line}"));
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
        Command::Dev(command) => Box::pin(dev::run(*command)).await,
        Command::Serve(command) => Box::pin(serve::run(*command)).await,
        Command::Doctor(command) => Box::pin(doctor::run(*command)).await,
        Command::Migrate(command) => migrate::run(command).await,
        Command::Restore(command) => restore::run(command).await,
        Command::Healthcheck(command) => healthcheck::run(command).await,
        Command::Issue(command) => client::issue(command).await,
        Command::Introspect(command) => client::introspect(command).await,
        Command::List(command) => client::list(command).await,
        Command::Get(command) => client::get(command).await,
        Command::Update(command) => client::update(command).await,
        Command::SetExpiry(command) => client::set_expiry(command).await,
        Command::Rotate(command) => client::rotate(command).await,
        Command::EndOverlap(command) => client::end_overlap(command).await,
        Command::Revoke(command) => client::revoke(command).await,
        Command::Stacks(command) => client::stacks(command).await,
        Command::Exchange(command) => client::exchange(command).await,
        Command::ExplainExchange(command) => client::explain_exchange(command).await,
        Command::EndSessions(command) => client::end_sessions(command).await,
        Command::ListIssuers(command) => client::list_issuers(command).await,
        Command::Catalogue(command) => catalogue::run(&command),
        Command::Routes(command) => routes::run(&command),
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
