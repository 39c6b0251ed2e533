//! Parses the command line. If it is wrong, prints one line with the setting, what is wrong with
//! it, and the environment variable that also sets it.

use std::{env, ffi::OsString, fmt::Write as _, process::ExitCode};

use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{Cli, Command, credentials, exit, otel, precedence};
use crate::telemetry::output::print_error;

/// Parses the command line. Trace settings that are not set otherwise come from the variables of
/// OpenTelemetry.
///
/// # Errors
/// Returns the exit code if the command line asks for help or is wrong, after printing the help
/// text or the error.
pub fn parse() -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = env::args_os().collect();
    if let Some(refusal) = credentials::refusal(&arguments) {
        return Err(wrong(&refusal));
    }
    let matches = matches(&arguments).map_err(|error| stop(&error))?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| stop(&error))?;
    if let (Command::Dev(dev), Some((_, matches))) = (&mut cli.command, matches.subcommand()) {
        dev.note_given(matches);
    }
    if let (Some(traces), Some((_, matches))) = (cli.command.traces_mut(), matches.subcommand()) {
        otel::fill(traces, matches, otel::read).map_err(|problem| wrong(&problem))?;
    }
    Ok(cli)
}

/// Parses the arguments, and the environment variables that a flag does not override.
fn matches(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let command = Cli::command();
    let matches = command.clone().try_get_matches_from(arguments)?;
    let overridden = precedence::overridden(&matches);
    if overridden.is_empty() {
        return Ok(matches);
    }
    precedence::without_variables(command, &overridden).try_get_matches_from(arguments)
}

/// Prints what is wrong, and returns the exit code for a usage error.
fn wrong(problem: &str) -> ExitCode {
    print_error(format!("stacktoken: {problem}"));
    ExitCode::from(exit::USAGE)
}

/// Prints the requested help, or why the command line is wrong. Returns the exit code.
fn stop(error: &clap::Error) -> ExitCode {
    match error.kind() {
        // The subcommand is missing. The help lists the subcommands.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print_error(error.to_string().trim_end().to_owned());
            ExitCode::from(exit::USAGE)
        }
        _ if error.use_stderr() => wrong(&in_one_line(error)),
        _ => {
            // The user asked for the help or the version. A reader that has closed the pipe is not
            // an error.
            let _ = error.print();
            ExitCode::SUCCESS
        }
    }
}

/// Describes a wrong command line in one line. Names the setting and its environment variable.
fn in_one_line(error: &clap::Error) -> String {
    let text = without_passwords(error);
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let parts: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("For more"))
        .collect();
    let mut line = parts.join(" ").trim_start_matches("error: ").to_owned();
    let is_unknown = matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
    );
    if is_unknown && !line.contains(" tip: ") {
        line.push_str("; --help lists what there is");
    }
    let variables: Vec<_> = flags_of(error)
        .iter()
        .filter_map(|flag| variable_of(flag))
        .collect();
    if !variables.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(line, " (also set by {})", variables.join(", "));
    }
    let printed = |letter: char| if letter.is_control() { ' ' } else { letter };
    let line: String = line.chars().map(printed).collect();
    credentials::redact_urls(&credentials::redact(&line))
}

/// Returns the text of an error. Omits an argument that may contain a password, even if the
/// password contains spaces.
fn without_passwords(error: &clap::Error) -> String {
    let text = error.to_string();
    let quoted = [
        ContextKind::InvalidValue,
        ContextKind::InvalidArg,
        ContextKind::InvalidSubcommand,
    ];
    let quoted = quoted.into_iter().filter_map(|kind| error.get(kind));
    quoted.fold(text, |text, value| match value {
        ContextValue::String(value) if credentials::may_hold_password(value) => {
            text.replace(value.as_str(), "(a value that may contain a password)")
        }
        _ => text,
    })
}

/// Returns the flags that the error concerns.
fn flags_of(error: &clap::Error) -> Vec<String> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => vec![flag.clone()],
        Some(ContextValue::Strings(flags)) => flags.clone(),
        _ => Vec::new(),
    }
}

/// Returns the environment variable that sets the same value as a flag, if there is one.
fn variable_of(flag: &str) -> Option<String> {
    let flag = flag.split_whitespace().next()?.strip_prefix("--")?;
    let command = Cli::command();
    let mut commands = vec![&command];
    let mut variable = None;
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands());
        let mut flags = command.get_arguments();
        let known = flags.find(|known| known.get_long() == Some(flag));
        variable = variable.or_else(|| known.and_then(clap::Arg::get_env));
    }
    Some(variable?.to_string_lossy().into_owned())
}
