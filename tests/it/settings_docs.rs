//! Checks that the table of settings in docs/operations.md matches the flags.
//! `STACKTOKEN_WRITE_DOCS=1 cargo test --test it settings_docs` regenerates the table.

use std::{fs, path::Path};

use clap::{Arg, CommandFactory as _};
use stacktoken::cli::Cli;

const BEGIN: &str = "<!-- settings: written by a test, from the flags -->\n";
const END: &str = "<!-- end of settings -->\n";

fn row(arg: &Arg) -> String {
    let flag = arg.get_long().unwrap();
    let variable = arg.get_env().unwrap().to_string_lossy().into_owned();
    let defaults: Vec<_> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let help = arg.get_help().unwrap().to_string().replace('|', "\\|");
    format!(
        "| `--{flag}` | `{variable}` | {} | {help} |\n",
        defaults.join(", ")
    )
}

fn table() -> String {
    let mut cli = Cli::command();
    cli.build();
    let serve = cli.find_subcommand("serve").unwrap();
    let mut args: Vec<_> = serve
        .get_arguments()
        .filter(|arg| arg.get_long().is_some() && arg.get_env().is_some())
        .collect();
    args.sort_by_key(|arg| arg.get_long());
    let rows: String = args.into_iter().map(row).collect();
    format!("\n| flag | variable | default | what it sets |\n|---|---|---|---|\n{rows}\n")
}

#[test]
fn table_of_settings_is_what_the_flags_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find(BEGIN).expect("the mark before the table") + BEGIN.len();
    let end = text.find(END).expect("the mark after the table");
    let expected = table();
    if std::env::var_os("STACKTOKEN_WRITE_DOCS").is_some() {
        fs::write(
            &path,
            format!("{}{expected}{}", &text[..begin], &text[end..]),
        )
        .unwrap();
    } else {
        assert!(
            text[begin..end] == expected,
            "docs/operations.md does not match the flags; run STACKTOKEN_WRITE_DOCS=1 cargo test --test it settings_docs"
        );
    }
}

#[test]
fn every_setting_has_a_variable_named_after_it() {
    let mut cli = Cli::command();
    cli.build();
    let serve = cli.find_subcommand("serve").unwrap();
    let args = serve
        .get_arguments()
        .filter_map(|arg| Some((arg.get_long()?, arg)));
    for (flag, arg) in args.filter(|(flag, _)| !["help", "version"].contains(flag)) {
        let expected = format!("STACKTOKEN_{}", flag.to_uppercase().replace('-', "_"));
        let variable = arg
            .get_env()
            .map(|name| name.to_string_lossy().into_owned());
        assert_eq!(variable, Some(expected));
    }
}

/// `tests/architecture` checks that the tests that the table names exist.
#[test]
fn every_setting_names_the_tests_that_would_miss_it() {
    let mut cli = Cli::command();
    cli.build();
    let serve = cli.find_subcommand("serve").unwrap();
    let flags = serve.get_arguments().filter_map(Arg::get_long);
    let mut flags: Vec<_> = flags
        .filter(|flag| !["help", "version"].contains(flag))
        .collect();
    flags.sort_unstable();
    let text = include_str!("../../docs/promises.md");
    let (_, table) = text.split_once("| setting | tests |").unwrap();
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `--")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), flags, "docs/promises.md");
}
