//! Tests the table of fields and flags against the contract and the command line.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};
use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use tonic::Code;
use tonic_types::ErrorDetails;

use super::*;
use crate::{cli::Cli, grpc::DESCRIPTORS};

/// A command, the message that it sends, the message's fields with their flags, and the fields that
/// the command itself sets.
type Row = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const COMMANDS: [Row; 14] = [
    ("issue", "IssueRequest", v1::IssueRequest::FLAGS, &[]),
    (
        "introspect",
        "IntrospectRequest",
        v1::IntrospectRequest::FLAGS,
        &["min_revision"],
    ),
    ("list", "ListRequest", v1::ListRequest::FLAGS, &[]),
    ("get", "GetRequest", v1::GetRequest::FLAGS, &[]),
    (
        "exchange",
        "ExchangeRequest",
        v1::ExchangeRequest::FLAGS,
        &[],
    ),
    (
        "explain-exchange",
        "ExplainExchangeRequest",
        v1::ExplainExchangeRequest::FLAGS,
        &[],
    ),
    (
        "end-sessions",
        "EndSessionsRequest",
        v1::EndSessionsRequest::FLAGS,
        &[],
    ),
    (
        "list-issuers",
        "ListFederationIssuersRequest",
        v1::ListFederationIssuersRequest::FLAGS,
        &[],
    ),
    (
        "update",
        "UpdateRequest",
        v1::UpdateRequest::FLAGS,
        &["update_mask"],
    ),
    (
        "set-expiry",
        "SetExpiryRequest",
        v1::SetExpiryRequest::FLAGS,
        &[],
    ),
    ("rotate", "RotateRequest", v1::RotateRequest::FLAGS, &[]),
    (
        "end-overlap",
        "EndOverlapRequest",
        v1::EndOverlapRequest::FLAGS,
        &[],
    ),
    ("revoke", "RevokeRequest", v1::RevokeRequest::FLAGS, &[]),
    (
        "stacks list",
        "ListStacksRequest",
        v1::ListStacksRequest::FLAGS,
        &[],
    ),
];

/// Flags of these commands that set no field: the output format, `--all-stacks`, which omits the
/// stack, and the source of a workload's credential.
const NO_FIELD: [&str; 7] = [
    "--output",
    "--all-stacks",
    "--github",
    "--gitlab",
    "--kubernetes",
    "--jwt-file",
    "--audience",
];

/// Returns the subcommands of `command` that call the server with a credential, each with its name
/// and flags.
fn callers(command: &Command, above: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut found = Vec::new();
    for inner in command.get_subcommands() {
        let name = format!("{above} {}", inner.get_name()).trim().to_owned();
        if inner.has_subcommands() {
            found.extend(callers(inner, &name));
        } else if inner
            .get_arguments()
            .any(|arg| arg.get_long() == Some("jwt-file"))
        {
            let flags = inner
                .get_arguments()
                .filter(|arg| arg.get_help_heading() != Some("Connection") && !arg.is_hide_set());
            let flags = flags.filter_map(clap::Arg::get_long);
            found.push((name, flags.map(|flag| format!("--{flag}")).collect()));
        }
    }
    found
}

fn flags_in(words: &str) -> impl Iterator<Item = String> {
    let words = words.split([' ', ',']);
    words
        .filter(|word| word.starts_with("--"))
        .map(str::to_owned)
}

#[test]
fn every_flag_of_every_command_has_its_field() {
    let callers = callers(&Cli::command(), "");
    let names: BTreeSet<_> = callers.iter().map(|(name, _)| name.as_str()).collect();
    let listed: BTreeSet<_> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, listed);
    for (name, flags) in callers {
        let (.., rows, _) = COMMANDS.iter().find(|(row, ..)| *row == name).unwrap();
        let mut known: BTreeSet<_> = rows.iter().flat_map(|(_, flag)| flags_in(flag)).collect();
        let unknown: Vec<_> = known.difference(&flags).collect();
        assert!(unknown.is_empty(), "{name} has no {unknown:?}");
        known.extend(NO_FIELD.map(str::to_owned));
        if known.contains("--token") {
            // The command looks up the token by this name instead of sending the name.
            known.insert("--name".to_owned());
        }
        let missing: Vec<_> = flags.difference(&known).collect();
        assert!(missing.is_empty(), "{name}: no field for {missing:?}");
    }
}

/// Collects the paths of all fields of a message and of its nested messages.
fn paths(message: &MessageDescriptor, above: &str, found: &mut Vec<String>) {
    for field in message.fields() {
        let path = format!("{above}{}", field.name());
        match field.kind() {
            Kind::Message(inner)
                if inner.full_name().starts_with("stacktoken.") && !field.is_map() =>
            {
                paths(&inner, &format!("{path}."), found);
            }
            _ => {}
        }
        found.push(path);
    }
}

#[test]
fn every_field_that_a_command_can_send_has_its_flag() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    for (command, message, rows, unset) in COMMANDS {
        let message = format!("stacktoken.v1.{message}");
        let message = pool.get_message_by_name(&message).unwrap();
        let mut all = Vec::new();
        paths(&message, "", &mut all);
        for (field, _) in rows {
            assert!(all.iter().any(|path| path == field), "{command}: {field}");
        }
        for path in all {
            let first = path.split('.').next().unwrap();
            let has_row = rows.iter().any(|(field, _)| *field == first);
            assert!(has_row != unset.contains(&first), "{command}: {path}");
        }
    }
}

#[test]
fn the_flag_of_a_field_is_that_of_the_nearest_row() {
    for (path, expected) in [
        ("expiry.on_date", "--expires"),
        ("permissions", "--access"),
        (
            "permissions.modules.grants[1].module",
            "--module (number 2)",
        ),
        ("permissions.branches.aliases[0]", "--alias (number 1)"),
        ("labels[\"a]\"]", "--label a]"),
        ("labels", "--label"),
        ("labels[\"\"]", "--label"),
        ("names", "names"),
        ("labels[x", "labels[x"),
    ] {
        assert_eq!(flag_of::<v1::IssueRequest>(path), expected, "{path}");
    }
    for (path, expected) in [
        ("actions[0].branch", "--branch"),
        ("actions[1].name", "--action (number 2)"),
        ("actions[0].facts[\"x y\"]", "--fact x y"),
    ] {
        assert_eq!(flag_of::<v1::IntrospectRequest>(path), expected, "{path}");
    }
}

#[test]
fn an_error_speaks_of_flags() {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("issued_before", "must be after issued_from: as it is.");
    details.add_bad_request_violation("page_token", "has no next_page_token");
    details.add_bad_request_violation("later_field", "is wrong");
    let status = Status::with_error_details(Code::InvalidArgument, "words", details);
    assert_eq!(
        message_of::<v1::ListRequest>(&status),
        "--issued-before must be after --issued-from: as it is.; \
         --page-token has no next_page_token; later_field is wrong"
    );
    let words = |text| Status::with_error_details(Code::AlreadyExists, text, ErrorDetails::new());
    assert_eq!(
        message_of::<v1::IssueRequest>(&words("see `request_id`, or the token_uid of a name.")),
        "see `--request-id`, or the token_uid of a name."
    );
    let too_low = "name permissions.modules in update_mask too, below permissions.access.";
    assert_eq!(
        message_of::<v1::UpdateRequest>(&words(too_low)),
        "give --module or --all-modules too, below --access."
    );
}

#[test]
fn a_fault_of_each_action_is_told_once() {
    let mut details = ErrorDetails::new();
    for index in 0..3 {
        details.add_bad_request_violation(format!("actions[{index}].branch"), "is wrong");
    }
    let status = Status::with_error_details(Code::InvalidArgument, "words", details);
    assert_eq!(
        message_of::<v1::IntrospectRequest>(&status),
        "--branch is wrong"
    );
}
