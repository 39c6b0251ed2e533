//! Resolves pairs of settings that exclude each other, such as `--stack` and `--all-stacks`. A flag
//! of such a pair overrides the environment variable of the other setting.

use clap::{ArgMatches, Command, parser::ValueSource};

/// Pairs of settings that exclude each other, by their ids in the command line's definition.
const ALTERNATIVES: [(&str, &str); 4] = [
    ("jwt", "jwt_file"),
    ("stack", "all_stacks"),
    ("database_url", "database_url_file"),
    ("database_direct_url", "database_direct_url_file"),
];

/// Returns the settings whose variable is ignored because a flag sets the alternative. If variables
/// set both settings or flags set both, neither is ignored, and the command refuses them.
pub fn overridden(matches: &ArgMatches) -> Vec<&'static str> {
    let pairs = ALTERNATIVES.into_iter();
    let pairs = pairs.flat_map(|(one, other)| [(one, other), (other, one)]);
    let found = pairs.filter(|(setting, alternative)| {
        source_of(matches, setting) == Some(ValueSource::EnvVariable)
            && source_of(matches, alternative) == Some(ValueSource::CommandLine)
    });
    let inner = matches.subcommand().map(|(_, inner)| overridden(inner));
    let found = found.map(|(setting, _)| setting);
    found.chain(inner.unwrap_or_default()).collect()
}

/// Returns the command without the variables of these settings.
pub fn without_variables(command: Command, settings: &[&str]) -> Command {
    let command = command.mut_args(|arg| {
        if settings.contains(&arg.get_id().as_str()) {
            arg.env(None::<&'static str>)
        } else {
            arg
        }
    });
    command.mut_subcommands(|inner| without_variables(inner, settings))
}

/// Returns where the value of a setting comes from. Returns `None` for a setting that this command
/// does not have, for which clap would panic.
fn source_of(matches: &ArgMatches, setting: &str) -> Option<ValueSource> {
    let is_set = matches.try_contains_id(setting).unwrap_or_default();
    is_set.then(|| matches.value_source(setting)).flatten()
}
