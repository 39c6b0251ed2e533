//! Renders the catalogue of actions, one row per module.

use std::fmt::Write as _;

use stacktoken_core::catalogue::{ACTIONS, Action, ActionAccess, BuiltinModule, Module, Rule};

pub fn table() -> String {
    let mut out = "\n## The catalogue of actions\n\nThe built-in catalogue that `ListActions` returns. An action is `module.verb`. A READ token may do the \
        reads, a READ_WRITE token the reads and the writes, within its modules and branches (R4). No token may do the actions \
        under *never* (R5). *By branch*: a token that is limited to branches may do these actions on those branches only. An \
        action that is not listed is denied with `ACTION_UNKNOWN`. An operator can add modules and actions, and forbid \
        built-in ones: see [catalogue.md](catalogue.md).\n\n| module | read | write | with a fact | never | by branch |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for module in BuiltinModule::ALL {
        let of = Module::Builtin(*module);
        let verbs = |wanted: fn(&Action) -> bool| {
            let actions = ACTIONS
                .iter()
                .filter(|action| action.module == of && wanted(action));
            let verbs: Vec<_> = actions.map(verb).collect();
            verbs.join(", ")
        };
        let read =
            verbs(|action| action.rule == Rule::Grantable && action.access == ActionAccess::Read);
        let write =
            verbs(|action| action.rule == Rule::Grantable && action.access == ActionAccess::Write);
        let conditional = verbs(|action| matches!(action.rule, Rule::Conditional(_)));
        let never = verbs(|action| action.rule == Rule::Never);
        let bound = ACTIONS
            .iter()
            .any(|action| action.module == of && action.branch_bound);
        let _ = writeln!(
            out,
            "| `{}` | {read} | {write} | {conditional} | {never} | {} |",
            module.name(),
            if bound { "yes" } else { "" }
        );
    }
    out
}

/// Renders the verb of an action, and the fact that the action requires if there is one.
fn verb(action: &Action) -> String {
    let (_, verb) = action.name.split_once('.').unwrap();
    match &action.rule {
        Rule::Conditional(fact) => format!("`{verb}` with `{}={}`", fact.name, fact.value),
        Rule::Grantable | Rule::Never => format!("`{verb}`"),
    }
}

#[test]
fn every_action_is_in_the_table() {
    let table = table();
    for action in ACTIONS {
        let (module, verb) = action.name.split_once('.').unwrap();
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("| `{module}` |")));
        assert!(
            row.unwrap().contains(&format!("`{verb}`")),
            "{}",
            action.name
        );
    }
}
