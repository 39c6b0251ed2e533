//! Tests that the catalogue equals an independently written copy.

use super::{
    ActionAccess::{Read, Write},
    Rule::{Conditional, Grantable, Never},
    builtin::NO_APPROVERS,
    *,
};

/// The catalogue that the API contract promises. Each row consists of the name, the access, the
/// rule, and whether the action is bound to branches.
const PROMISED: &str = "
entry.read             READ  GRANTABLE           branch-bound
entry.create           WRITE GRANTABLE           branch-bound
entry.update           WRITE GRANTABLE           branch-bound
entry.delete           WRITE GRANTABLE           branch-bound
entry.publish          WRITE GRANTABLE           branch-bound
entry.unpublish        WRITE GRANTABLE           branch-bound
asset.read             READ  GRANTABLE           branch-bound
asset.create           WRITE GRANTABLE           branch-bound
asset.update           WRITE GRANTABLE           branch-bound
asset.delete           WRITE GRANTABLE           branch-bound
asset.publish          WRITE GRANTABLE           branch-bound
asset.unpublish        WRITE GRANTABLE           branch-bound
content_type.read      READ  GRANTABLE           branch-bound
content_type.create    WRITE GRANTABLE           branch-bound
content_type.update    WRITE GRANTABLE           branch-bound
content_type.delete    WRITE GRANTABLE           branch-bound
global_field.read      READ  GRANTABLE           branch-bound
global_field.create    WRITE GRANTABLE           branch-bound
global_field.update    WRITE GRANTABLE           branch-bound
global_field.delete    WRITE GRANTABLE           branch-bound
label.read             READ  GRANTABLE           branch-bound
label.create           WRITE GRANTABLE           branch-bound
label.update           WRITE GRANTABLE           branch-bound
label.delete           WRITE GRANTABLE           branch-bound
extension.read         READ  GRANTABLE           branch-bound
extension.create       WRITE GRANTABLE           branch-bound
extension.update       WRITE GRANTABLE           branch-bound
extension.delete       WRITE GRANTABLE           branch-bound
taxonomy.read          READ  GRANTABLE           -
taxonomy.create        WRITE GRANTABLE           -
taxonomy.update        WRITE GRANTABLE           -
taxonomy.delete        WRITE GRANTABLE           -
taxonomy.publish       WRITE GRANTABLE           -
taxonomy.unpublish     WRITE GRANTABLE           -
variant.read           READ  GRANTABLE           -
variant.create         WRITE GRANTABLE           -
variant.update         WRITE GRANTABLE           -
variant.delete         WRITE GRANTABLE           -
release.read           READ  GRANTABLE           -
release.create         WRITE GRANTABLE           -
release.update         WRITE GRANTABLE           -
release.delete         WRITE GRANTABLE           -
release.deploy         WRITE GRANTABLE           -
environment.read       READ  GRANTABLE           -
environment.create     WRITE GRANTABLE           -
environment.update     WRITE GRANTABLE           -
environment.delete     WRITE GRANTABLE           -
locale.read            READ  GRANTABLE           -
locale.create          WRITE GRANTABLE           -
locale.update          WRITE GRANTABLE           -
locale.delete          WRITE GRANTABLE           -
webhook.read           READ  GRANTABLE           -
webhook.create         WRITE GRANTABLE           -
webhook.update         WRITE GRANTABLE           -
webhook.delete         WRITE GRANTABLE           -
role.read              READ  GRANTABLE           -
role.create            WRITE GRANTABLE           -
role.update            WRITE GRANTABLE           -
role.delete            WRITE GRANTABLE           -
stack_user.read        READ  GRANTABLE           -
stack_user.invite      WRITE NEVER               -
stack_user.remove      WRITE NEVER               -
workflow.read          READ  GRANTABLE           -
workflow.create        WRITE GRANTABLE           -
workflow.update        WRITE GRANTABLE           -
workflow.delete        WRITE GRANTABLE           -
workflow.change_stage  WRITE NEVER               -
publish_rule.read      READ  GRANTABLE           -
publish_rule.create    WRITE has_approvers=false -
publish_rule.update    WRITE has_approvers=false -
publish_rule.delete    WRITE GRANTABLE           -
publish_request.read   READ  GRANTABLE           -
publish_request.accept WRITE NEVER               -
publish_request.reject WRITE NEVER               -
publish_queue.read     READ  GRANTABLE           -
publish_queue.unschedule WRITE GRANTABLE         -
audit_log.read         READ  GRANTABLE           -
branch.read            READ  GRANTABLE           -
branch.create          WRITE NEVER               -
branch.update          WRITE NEVER               -
branch.delete          WRITE NEVER               -
branch_alias.read      READ  GRANTABLE           -
branch_alias.create    WRITE NEVER               -
branch_alias.update    WRITE NEVER               -
branch_alias.delete    WRITE NEVER               -
token.read             READ  NEVER               -
token.create           WRITE NEVER               -
token.update           WRITE NEVER               -
token.delete           WRITE NEVER               -
stack.read             READ  GRANTABLE           -
stack.read_credentials READ  NEVER               -
stack.update           WRITE NEVER               -
stack.delete           WRITE NEVER               -
stack.transfer         WRITE NEVER               -
organization.read      READ  NEVER               -
organization.update    WRITE NEVER               -
user_session.create    WRITE NEVER               -
user_session.delete    WRITE NEVER               -
app.read               READ  GRANTABLE           -
app.install            WRITE NEVER               -
";

/// Formats an action like a row of `PROMISED`.
fn written(action: &Action) -> String {
    let access = match action.access {
        Read => "READ",
        Write => "WRITE",
    };
    let rule = match &action.rule {
        Grantable => "GRANTABLE".to_owned(),
        Never => "NEVER".to_owned(),
        Conditional(fact) => format!("{}={}", fact.name, fact.value),
    };
    let bound = if action.branch_bound {
        "branch-bound"
    } else {
        "-"
    };
    [&*action.name, access, &rule, bound].join(" ")
}

#[test]
fn catalogue_is_what_the_contract_promises() {
    let promised: Vec<_> = PROMISED
        .trim()
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let actual: Vec<_> = ACTIONS.iter().map(written).collect();
    assert_eq!(actual, promised);
}

#[test]
fn every_action_is_found_by_its_name_and_nothing_else_is() {
    let catalogue = Catalogue::builtin();
    for action in ACTIONS {
        assert_eq!(catalogue.find(&action.name), Some(action));
    }
    for unknown in [
        "",
        "entry",
        "entry.",
        "entry.read ",
        "Entry.read",
        "entry.*",
    ] {
        assert_eq!(catalogue.find(unknown), None, "{unknown:?}");
    }
}

#[test]
fn every_row_is_named_after_its_module_and_only_once() {
    let mut seen = std::collections::HashSet::new();
    for action in ACTIONS {
        assert!(
            action
                .name
                .starts_with(&format!("{}.", action.module.name())),
            "{}",
            action.name
        );
        assert!(check_shape(&action.name).is_ok(), "{}", action.name);
        assert!(seen.insert(&action.name), "{}", action.name);
    }
    for module in BuiltinModule::ALL {
        let of = Module::Builtin(*module);
        assert!(ACTIONS.iter().any(|action| action.module == of), "{of:?}");
        assert_eq!(Module::named(module.name()), Ok(of));
    }
}

#[test]
fn names_that_begin_with_x_are_left_to_operators() {
    for action in ACTIONS {
        let (module, verb) = action.name.split_once('.').unwrap();
        let reserved = [module, verb].iter().any(|word| word.starts_with("x_"));
        assert!(!reserved, "{}", action.name);
    }
    let own = Module::named("x_experiment").unwrap();
    assert!(matches!(own, Module::Own(_)), "{own:?}");
}

const AUDIT_LOG: Module = Module::Builtin(BuiltinModule::AuditLog);

#[test]
fn what_only_reads_has_no_write() {
    let mut rows = ACTIONS.iter();
    assert!(rows.all(|action| action.module != AUDIT_LOG || action.access == Read));
}

#[test]
fn a_module_in_which_all_is_never_cannot_be_granted() {
    let catalogue = Catalogue::builtin();
    let refused: Vec<_> = BuiltinModule::ALL
        .iter()
        .map(|module| module.name())
        .filter(|name| catalogue.parse_grantable(name).is_err())
        .collect();
    assert_eq!(refused, ["token", "organization", "user_session"]);
    let problem = catalogue.parse_grantable("token").unwrap_err().to_string();
    assert!(
        problem.starts_with("is token, in which no token may ever do anything"),
        "{problem}"
    );
    for (module, listed) in [("entry", true), ("stack", true), ("organization", false)] {
        assert_eq!(problem.contains(&format!(" {module},")), listed, "{module}");
    }
    assert!(catalogue.parse_grantable("entries").is_err());
}

#[test]
fn the_version_changes_whenever_a_row_does() {
    let version = version_of(ACTIONS);
    assert_eq!(version, Catalogue::builtin().version());
    assert_eq!(version.len(), 16);
    let mut versions = std::collections::HashSet::from([version]);
    let changes: [fn(&mut Action); 7] = [
        |action| action.name = "entry.red".into(),
        |action| action.module = Module::Builtin(BuiltinModule::Asset),
        |action| action.access = Write,
        |action| action.rule = Never,
        |action| action.rule = NO_APPROVERS,
        |action| {
            action.rule = Conditional(Fact {
                name: "has_approvers".into(),
                value: true,
            });
        },
        |action| action.branch_bound = false,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut actions = ACTIONS.to_vec();
        change(&mut actions[0]);
        assert!(versions.insert(version_of(&actions)), "change {index}");
    }
    assert!(versions.insert(version_of(&ACTIONS[1..])), "a row removed");
    let mut swapped = ACTIONS.to_vec();
    swapped.swap(0, 1);
    assert!(versions.insert(version_of(&swapped)), "two rows swapped");
}

#[test]
fn malformed_tokens_are_distinguished_from_typos() {
    for bad in [
        "",
        "entry",
        "entry.",
        ".read",
        "entry.read.all",
        "Entry.read",
        "entry.re ad",
        "entry.réad",
        "1.read",
    ] {
        assert!(check_shape(bad).is_err(), "{bad}");
    }
    assert!(check_shape("entry.frobnicate").is_ok());
}
