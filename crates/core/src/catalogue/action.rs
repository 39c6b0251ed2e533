//! A row of the catalogue: an action, and the permission that it requires.

use std::{borrow::Cow, fmt};

use super::module::Module;

/// Whether an action reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionAccess {
    /// The action only reads. A READ grant is enough.
    Read,
    /// The action changes something. A `READ_WRITE` grant is needed.
    Write,
}

impl ActionAccess {
    /// Returns the name of the access in the contract, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
        }
    }
}

/// Whether and on what condition an action can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Can be granted, limited by access, module and branch.
    Grantable,
    /// Can never be granted to a token (R5).
    Never,
    /// Can be granted only if the caller states that this fact holds.
    Conditional(Fact),
}

impl Rule {
    /// Returns the name of the protobuf enum value (`ActionRule`), without its prefix.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Grantable => "GRANTABLE",
            Self::Never => "NEVER",
            Self::Conditional(_) => "CONDITIONAL",
        }
    }
}

/// A fact about a request. The caller states it, because this service cannot check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The name of the fact.
    pub name: Cow<'static, str>,
    /// The value that the fact must have for the action to be granted.
    pub value: bool,
}

/// An action of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The name, in the form `module.verb`.
    pub name: Cow<'static, str>,
    /// The module that a grant of the action names.
    pub module: Module,
    /// Whether the action reads or writes.
    pub access: ActionAccess,
    /// Whether the action can be granted.
    pub rule: Rule,
    /// Whether a token that is restricted to branches can use the action only on those branches.
    pub branch_bound: bool,
}

/// Formats the row with all its columns. The version of the catalogue is a hash of this text.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            module,
            access,
            rule,
            branch_bound,
        } = self;
        let (module, access) = (module.name(), access.name());
        write!(
            f,
            "{name} module={module} access={access} rule={}",
            rule.name()
        )?;
        if let Rule::Conditional(fact) = rule {
            write!(f, "({}={})", fact.name, fact.value)?;
        }
        write!(f, " branch_bound={branch_bound}")
    }
}
