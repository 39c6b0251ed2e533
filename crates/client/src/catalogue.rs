//! Converts the catalogue with which a server evaluates actions. This is the built-in catalogue, or
//! one that the operator extended or restricted.

use crate::pb::v1;
use stacktoken_core::catalogue::{Action, ActionAccess, Catalogue, Fact, Module, Rule};

/// Returns the catalogue that a server lists. Returns `None` if this client cannot evaluate actions
/// with the catalogue, because it contains something that this version of the client does not know.
pub(super) fn listed(message: v1::ListActionsResponse) -> Option<Catalogue> {
    let builtin = Catalogue::builtin();
    if builtin.version() == message.version {
        return Some(builtin);
    }
    let rows = message.actions.into_iter().map(action);
    Catalogue::of_version(rows.collect::<Option<_>>()?, &message.version)
}

fn action(row: v1::Action) -> Option<Action> {
    let access = match row.access() {
        v1::ActionAccess::Unspecified => return None,
        v1::ActionAccess::Read => ActionAccess::Read,
        v1::ActionAccess::Write => ActionAccess::Write,
    };
    let rule = match row.rule() {
        v1::ActionRule::Unspecified => return None,
        v1::ActionRule::Grantable => Rule::Grantable,
        v1::ActionRule::Never => Rule::Never,
        v1::ActionRule::Conditional => {
            let fact = row.fact?;
            Rule::Conditional(Fact {
                name: fact.name.into(),
                value: fact.value,
            })
        }
    };
    Some(Action {
        module: Module::named(&row.module).ok()?,
        name: row.name.into(),
        access,
        rule,
        branch_bound: row.branch_bound,
    })
}
