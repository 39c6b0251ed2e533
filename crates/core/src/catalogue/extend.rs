//! Adds an operator's own rows to the built-in catalogue. No row can make a built-in action
//! grantable to more tokens than before (R5).

use super::{
    Catalogue,
    action::{Action, ActionAccess, Rule},
    builtin::is_branch_bound,
    module::{BuiltinModule, Module},
};
use crate::field::Problem;

/// Why a row cannot be added to the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The index of the row.
    pub row: usize,
    /// The column that is wrong: `name`, `access`, `rule`, `fact` or `branch_bound`.
    pub column: &'static str,
    /// What is wrong with the column, and what to do.
    pub problem: Problem,
}

/// The column that is wrong, and its problem.
type Fault = (&'static str, Problem);

impl Catalogue {
    /// Returns the built-in catalogue with an operator's rows. A row for a built-in action repeats
    /// that action, or forbids it with [`Rule::Never`]. Any other row is a new action. New actions
    /// follow the built-in ones, sorted by name, so that the version does not depend on the order
    /// of the rows.
    ///
    /// # Errors
    /// Returns an error for the first row that would redefine an action, or that would make
    /// something grantable that no token may do (R5).
    pub fn extended(rows: Vec<Action>) -> Result<Self, RowError> {
        let mut actions = Self::builtin().actions;
        let builtin = actions.len();
        for (row, action) in rows.into_iter().enumerate() {
            let fault = |(column, problem)| RowError {
                row,
                column,
                problem,
            };
            let known = actions.iter_mut().find(|known| known.name == action.name);
            if let Some(known) = known {
                check_repeated(known, &action).map_err(fault)?;
                known.rule = action.rule;
            } else {
                check_new(&action).map_err(fault)?;
                actions.push(action);
            }
        }
        actions[builtin..].sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self::of(actions))
    }
}

/// Checks a row for an action that the catalogue already contains.
fn check_repeated(known: &Action, row: &Action) -> Result<(), Fault> {
    let other = |column, own: &str, built_in: &str| {
        let problem = format!(
            "is {own}, but the action is built in with {built_in}: repeat that, or set `rule` to NEVER and leave the rest out"
        );
        Err((column, Problem::new(problem)))
    };
    if row.access != known.access {
        return other("access", row.access.name(), known.access.name());
    }
    if row.branch_bound != known.branch_bound {
        let [own, built_in] = [row, known].map(|action| action.branch_bound.to_string());
        return other("branch_bound", &own, &built_in);
    }
    match (&row.rule, &known.rule) {
        (Rule::Never, _) => Ok(()),
        (own, built_in) if own == built_in => Ok(()),
        (Rule::Conditional(own), Rule::Conditional(built_in)) => {
            let [own, built_in] =
                [own, built_in].map(|fact| format!("{}={}", fact.name, fact.value));
            other("fact", &own, &built_in)
        }
        (own, built_in) => other("rule", own.name(), built_in.name()),
    }
}

/// Checks a row for a new action. In a built-in module, it must not permit more than the built-in
/// actions.
fn check_new(row: &Action) -> Result<(), Fault> {
    let Module::Builtin(module) = row.module else {
        return Ok(());
    };
    if is_branch_bound(module) && !row.branch_bound {
        let problem = format!(
            "is false, but branches bind every action of the built-in module {}: write true, or declare a module of your own",
            module.name()
        );
        return Err(("branch_bound", Problem::new(problem)));
    }
    if row.rule == Rule::Never || may_be_granted(module, row.access) {
        return Ok(());
    }
    let verb = match row.access {
        ActionAccess::Read => "read",
        ActionAccess::Write => "write",
    };
    let problem = format!(
        "is {}, but no token may ever {verb} in the built-in module {} (R5): write NEVER, or declare a module of your own",
        row.rule.name(),
        module.name()
    );
    Err(("rule", Problem::new(problem)))
}

/// Returns whether any built-in action of the module with this access can be granted.
fn may_be_granted(module: BuiltinModule, access: ActionAccess) -> bool {
    let of = Module::Builtin(module);
    let mut alike = super::ACTIONS.iter();
    alike.any(|action| action.module == of && action.access == access && action.rule != Rule::Never)
}

#[cfg(test)]
#[path = "extend_tests.rs"]
mod tests;
