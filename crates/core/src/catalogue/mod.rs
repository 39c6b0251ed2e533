//! The catalogue of the content management API's actions. It states which permission each action
//! requires, and which actions no token may ever perform (R5). `ListActions` returns the catalogue.
//! An action that is not in the catalogue is denied.

mod action;
mod builtin;
mod extend;
mod module;

use std::{borrow::Cow, collections::HashMap, fmt::Write as _};

use aws_lc_rs::digest::{SHA256, digest};

use crate::field::Problem;

pub use self::{
    action::{Action, ActionAccess, Fact, Rule},
    builtin::ACTIONS,
    extend::RowError,
    module::{BuiltinModule, Module, OwnModule},
};

/// The maximum length of an action's name.
const MAX_NAME: usize = 64;
/// The maximum length of the list of modules in an error message, in bytes. All built-in modules
/// fit.
const LISTED: usize = 600;

/// The catalogue in effect: the built-in actions, and the actions that an operator adds.
#[derive(Clone, Debug)]
pub struct Catalogue {
    actions: Vec<Action>,
    /// The index of each action by its name.
    by_name: HashMap<Cow<'static, str>, usize>,
    version: String,
}

impl Catalogue {
    /// Returns the built-in catalogue.
    #[must_use]
    pub fn builtin() -> Self {
        Self::of(ACTIONS.to_vec())
    }

    fn of(actions: Vec<Action>) -> Self {
        let names = actions.iter().map(|action| action.name.clone());
        Self {
            by_name: names.zip(0..).collect(),
            version: version_of(&actions),
            actions,
        }
    }

    /// Returns the catalogue with the rows that another process listed. Returns `None` if the hash
    /// of these rows is not `version`, for example because this process does not know a column.
    #[must_use]
    pub fn of_version(actions: Vec<Action>, version: &str) -> Option<Self> {
        Some(Self::of(actions)).filter(|catalogue| catalogue.version == version)
    }

    /// Returns all actions, with the built-in actions first.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// Returns the version of the catalogue, which is a hash of all its rows. It changes whenever a
    /// row changes, so that a client that evaluates actions itself can detect the change.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the action with this name, or `None` if there is no such action. An unknown action
    /// is denied with `ACTION_UNKNOWN`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Action> {
        self.actions.get(*self.by_name.get(name)?)
    }

    /// Parses the name of a module in a new grant.
    ///
    /// # Errors
    /// Returns a problem for a module that is not in the catalogue, or in which no action can be
    /// granted (R5). The problem lists the modules that can be granted.
    pub fn parse_grantable(&self, name: &str) -> Result<Module, Problem> {
        let mut actions = self.actions_of(name).peekable();
        let Some(first) = actions.peek() else {
            let problem = format!("is not a known module: {}", self.use_one_of());
            return Err(Problem::new(problem));
        };
        let module = first.module.clone();
        if actions.any(|action| action.rule != Rule::Never) {
            return Ok(module);
        }
        Err(Problem::new(format!(
            "is {name}, in which no token may ever do anything, so a grant of it would grant nothing: {}",
            self.use_one_of()
        )))
    }

    fn actions_of(&self, module: &str) -> impl Iterator<Item = &Action> {
        let actions = self.actions.iter();
        actions.filter(move |action| action.module.name() == module)
    }

    /// Returns the part of an error message that lists the modules that can be granted, as far as
    /// they fit.
    fn use_one_of(&self) -> String {
        let mut names = self.grantable_modules();
        let ends = names.iter().scan(0, |end, name| {
            *end += name.len() + 2;
            Some(*end)
        });
        let listed = ends.take_while(|end| *end <= LISTED).count();
        let others = names.split_off(listed).len();
        let names = names.join(", ");
        if others == 0 {
            return format!("use one of {names}");
        }
        format!("use one of {names}, or of {others} others, which ListActions has")
    }

    /// Returns the names of the modules in which any action can be granted.
    fn grantable_modules(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for action in self
            .actions
            .iter()
            .filter(|action| action.rule != Rule::Never)
        {
            if !names.contains(&action.module.name()) {
                names.push(action.module.name());
            }
        }
        names
    }
}

/// Returns the first 16 hexadecimal digits of the SHA-256 of all rows, one per line.
fn version_of(actions: &[Action]) -> String {
    let mut rows = String::new();
    for action in actions {
        // Writing to a `String` cannot fail.
        let _ = writeln!(rows, "{action}");
    }
    let hash = digest(&SHA256, rows.as_bytes());
    let mut version = String::new();
    for byte in hash.as_ref().iter().take(8) {
        let _ = write!(version, "{byte:02x}");
    }
    version
}

/// Checks that a name has the form `module.verb`, whether or not the action exists. Both parts are
/// words of lower-case letters, digits and `_`, and the whole name has at most 64 characters.
///
/// # Errors
/// Returns a problem for any other name.
pub fn check_shape(name: &str) -> Result<(), Problem> {
    let words = name.split_once('.');
    let shaped = words.is_some_and(|(module, verb)| is_word(module) && is_word(verb));
    if shaped && name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err(Problem::new(
            "must be `module.verb`, such as `entry.update`; ListActions has the names",
        ))
    }
}

/// Returns whether a string is a word of lower-case letters, digits and `_` that begins with a
/// letter.
fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests;
