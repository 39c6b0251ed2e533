//! The catalogue of the content management API's actions. It states what permission each action
//! requires, and which actions no token may ever perform (R5). `ListActions` returns the catalogue.
//! An action that is not in the catalogue is denied.

use std::{collections::HashMap, sync::LazyLock};

use crate::field::Problem;

/// The version of this catalogue, which is the date of its last change.
pub const VERSION: &str = "2026-11-24";

macro_rules! modules {
    ($($module:ident $name:literal,)+) => {
        /// A module of the CMS.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum Module { $($module,)+ }

        impl Module {
            /// All modules, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$module,)+];

            /// Returns the name of the module in grants and in action names.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$module => $name,)+ }
            }
        }
    };
}

modules! {
    Entry "entry", Asset "asset", ContentType "content_type", GlobalField "global_field", Label "label",
    Extension "extension", Release "release", Environment "environment", Locale "locale", Webhook "webhook",
    Role "role", StackUser "stack_user", Workflow "workflow", PublishRule "publish_rule",
    PublishRequest "publish_request", PublishQueue "publish_queue", AuditLog "audit_log", Branch "branch",
    BranchAlias "branch_alias", Token "token", Stack "stack", Organization "organization",
    UserSession "user_session", App "app",
}

impl Module {
    /// Parses the name of a module.
    ///
    /// # Errors
    /// Returns a problem that lists the known modules if no module has this name.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        Self::ALL
            .iter()
            .copied()
            .find(|module| module.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = Self::ALL.iter().map(|module| module.name()).collect();
                Problem::new(format!(
                    "is not a known module: use one of {}",
                    known.join(", ")
                ))
            })
    }
}

/// Whether an action reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionAccess {
    /// The action only reads. A READ grant is enough.
    Read,
    /// The action changes something. A `READ_WRITE` grant is needed.
    Write,
}

/// Whether and under which condition an action can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Can be granted, limited by access, module and branch.
    Grantable,
    /// Can never be granted to a token (R5).
    Never,
    /// Can be granted only if the caller states that this fact holds.
    Conditional(Fact),
}

/// A fact about the request that the caller states, because this service cannot check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The name of the fact.
    pub name: &'static str,
    /// The value under which the action can be granted.
    pub value: bool,
}

/// An action of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// The name, in the form `module.verb`.
    pub name: &'static str,
    /// The module that a grant must name.
    pub module: Module,
    /// Whether the action reads or writes.
    pub access: ActionAccess,
    /// Whether the action can be granted.
    pub rule: Rule,
    /// Whether a token that is restricted to branches may use the action only on those branches.
    pub branch_bound: bool,
}

use ActionAccess::{Read, Write};
use Rule::{Conditional, Grantable, Never};

const NO_APPROVERS: Rule = Conditional(Fact {
    name: "has_approvers",
    value: false,
});
const BRANCH_BOUND: &[Module] = &[
    Module::Entry,
    Module::Asset,
    Module::ContentType,
    Module::GlobalField,
    Module::Label,
    Module::Extension,
];

macro_rules! actions {
    ($($module:ident $($name:literal $access:ident $rule:ident),+;)+) => {
        &[$($(Action {
            name: $name, module: Module::$module, access: $access, rule: $rule, branch_bound: is_branch_bound(Module::$module),
        },)+)+]
    };
}

/// All actions of the catalogue.
pub const ACTIONS: &[Action] = actions! {
    Entry "entry.read" Read Grantable, "entry.create" Write Grantable, "entry.update" Write Grantable, "entry.delete" Write Grantable,
        "entry.publish" Write Grantable, "entry.unpublish" Write Grantable;
    Asset "asset.read" Read Grantable, "asset.create" Write Grantable, "asset.update" Write Grantable, "asset.delete" Write Grantable,
        "asset.publish" Write Grantable, "asset.unpublish" Write Grantable;
    ContentType "content_type.read" Read Grantable, "content_type.create" Write Grantable, "content_type.update" Write Grantable, "content_type.delete" Write Grantable;
    GlobalField "global_field.read" Read Grantable, "global_field.create" Write Grantable, "global_field.update" Write Grantable, "global_field.delete" Write Grantable;
    Label "label.read" Read Grantable, "label.create" Write Grantable, "label.update" Write Grantable, "label.delete" Write Grantable;
    Extension "extension.read" Read Grantable, "extension.create" Write Grantable, "extension.update" Write Grantable, "extension.delete" Write Grantable;
    Release "release.read" Read Grantable, "release.create" Write Grantable, "release.update" Write Grantable, "release.delete" Write Grantable,
        "release.deploy" Write Grantable;
    Environment "environment.read" Read Grantable, "environment.create" Write Grantable, "environment.update" Write Grantable, "environment.delete" Write Grantable;
    Locale "locale.read" Read Grantable, "locale.create" Write Grantable, "locale.update" Write Grantable, "locale.delete" Write Grantable;
    Webhook "webhook.read" Read Grantable, "webhook.create" Write Grantable, "webhook.update" Write Grantable, "webhook.delete" Write Grantable;
    Role "role.read" Read Grantable, "role.create" Write Grantable, "role.update" Write Grantable, "role.delete" Write Grantable;
    StackUser "stack_user.read" Read Grantable, "stack_user.invite" Write Never, "stack_user.remove" Write Never;
    Workflow "workflow.read" Read Grantable, "workflow.create" Write Grantable, "workflow.update" Write Grantable, "workflow.delete" Write Grantable,
        "workflow.change_stage" Write Never;
    PublishRule "publish_rule.read" Read Grantable, "publish_rule.create" Write NO_APPROVERS, "publish_rule.update" Write NO_APPROVERS, "publish_rule.delete" Write Grantable;
    PublishRequest "publish_request.read" Read Grantable, "publish_request.accept" Write Never, "publish_request.reject" Write Never;
    PublishQueue "publish_queue.read" Read Grantable;
    AuditLog "audit_log.read" Read Grantable;
    Branch "branch.read" Read Grantable, "branch.create" Write Never, "branch.update" Write Never, "branch.delete" Write Never;
    BranchAlias "branch_alias.read" Read Grantable, "branch_alias.create" Write Never, "branch_alias.update" Write Never, "branch_alias.delete" Write Never;
    Token "token.read" Read Never, "token.create" Write Never, "token.update" Write Never, "token.delete" Write Never;
    Stack "stack.read" Read Grantable, "stack.update" Write Never, "stack.delete" Write Never, "stack.transfer" Write Never;
    Organization "organization.read" Read Never, "organization.update" Write Never;
    UserSession "user_session.create" Write Never, "user_session.delete" Write Never;
    App "app.read" Read Grantable, "app.install" Write Never;
};

const fn is_branch_bound(module: Module) -> bool {
    let mut at = 0;
    while at < BRANCH_BOUND.len() {
        if BRANCH_BOUND[at] as u8 == module as u8 {
            return true;
        }
        at += 1;
    }
    false
}

static BY_NAME: LazyLock<HashMap<&str, &Action>> =
    LazyLock::new(|| ACTIONS.iter().map(|action| (action.name, action)).collect());

/// Returns the action with this name. Returns `None` if there is no such action; it is then denied
/// with `ACTION_UNKNOWN`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Action> {
    BY_NAME.get(name).copied()
}

/// Checks that a name has the form `module.verb`, whether or not the action exists. Both parts are
/// words of lower-case letters, digits and `_`, and the whole name has at most 64 characters.
///
/// # Errors
/// Returns a problem for any other name.
pub fn check_shape(name: &str) -> Result<(), Problem> {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let shaped = name.len() <= 64
        && name
            .split_once('.')
            .is_some_and(|(module, verb)| word(module) && word(verb));
    if shaped {
        Ok(())
    } else {
        Err(Problem::new(
            "must be `module.verb`, such as `entry.update`; ListActions has the names",
        ))
    }
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
