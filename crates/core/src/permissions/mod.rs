//! The permissions of a token. The maximum access can be narrowed to modules and to branches. An
//! empty list of modules or branches is rejected, so that it can never be taken to mean "all".

mod grants;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use self::grants::Grants;
use crate::{
    catalogue::{Catalogue, Module},
    field::{Problem, Violations},
    text,
};

/// The level of access: only reads, or changes as well (R4). `Read` is less than `ReadWrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Access {
    /// All read actions.
    Read,
    /// All read actions and all grantable changes.
    ReadWrite,
}

impl Access {
    /// Returns the name of the access in the contract, without the prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::ReadWrite => "READ_WRITE",
        }
    }
}

/// The maximum number of branches and aliases, counted together, to which a token can be narrowed.
const MAX_BRANCHES: usize = 100;

/// Permissions in serialized form, as in the store, in golden test data or in a client library.
/// They are not yet validated: [`Permissions::requested`] validates permissions that a caller
/// requests, and [`Permissions::try_from`] those that were accepted before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The maximum access. No grant may exceed it.
    pub access: Access,
    /// The granted modules. `None` if the token is not narrowed to modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Vec<DraftGrant>>,
    /// The granted branches. `None` if the token is not narrowed to branches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branches: Option<DraftBranches>,
}

/// A grant of access to one module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftGrant {
    /// The name of the module.
    pub module: String,
    /// The granted access. `None` if the caller did not state it, which is an error.
    pub access: Option<Access>,
}

/// Names of branches and of branch aliases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftBranches {
    /// The names of branches.
    #[serde(default)]
    pub branches: Vec<String>,
    /// The names of aliases. They are compared with the alias that the request uses.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// Validated permissions (R4). No grant exceeds the maximum access. If a module is removed from the
/// catalogue, its grants are kept, but match no action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    access: Access,
    modules: Option<Grants>,
    branches: Option<Branches>,
}

/// The branches and aliases to which a token is narrowed. There is at least one, unless
/// [`Permissions::cut_by`] has left none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branches {
    branches: BTreeSet<String>,
    aliases: BTreeSet<String>,
}

impl Permissions {
    /// Returns the maximum access, which no grant exceeds.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// Returns the access to a module, or `None` if the token is narrowed to other modules.
    #[must_use]
    pub fn access_to(&self, module: &Module) -> Option<Access> {
        match &self.modules {
            None => Some(self.access),
            Some(grants) => grants.get(module),
        }
    }

    /// Returns whether the permissions cover a request on this branch or with this alias. It is
    /// enough if one of the two is granted.
    #[must_use]
    pub fn covers_branch(&self, branch: Option<&str>, alias: Option<&str>) -> bool {
        self.branches.as_ref().is_none_or(|narrowed| {
            branch.is_some_and(|name| narrowed.branches.contains(name))
                || alias.is_some_and(|name| narrowed.aliases.contains(name))
        })
    }

    /// Returns the permissions in serialized form.
    #[must_use]
    pub fn draft(&self) -> Draft {
        let grant = |(module, access): (&str, Access)| DraftGrant {
            module: module.to_owned(),
            access: Some(access),
        };
        Draft {
            access: self.access,
            modules: self
                .modules
                .as_ref()
                .map(|grants| grants.iter().map(grant).collect()),
            branches: self.branches.as_ref().map(|narrowed| DraftBranches {
                branches: narrowed.branches.iter().cloned().collect(),
                aliases: narrowed.aliases.iter().cloned().collect(),
            }),
        }
    }
}

impl Permissions {
    /// Validates permissions that a caller requests. Besides what `try_from` rejects, rejects a
    /// grant of a module that is not in the catalogue, or in which no action can be granted (R5).
    ///
    /// # Errors
    /// Returns all faults.
    pub fn requested(draft: Draft, catalogue: &Catalogue) -> Result<Self, Violations> {
        Self::parse(draft, |name| catalogue.parse_grantable(name))
    }

    /// Restores permissions that [`Self::cut_by`] computed, which may permit nothing. A list of
    /// modules or branches that is present but empty permits nothing.
    ///
    /// # Errors
    /// Returns the faults for which `try_from` rejects the rest of the permissions.
    pub fn effective(mut draft: Draft) -> Result<Self, Violations> {
        let empty = |named: &DraftBranches| named.branches.is_empty() && named.aliases.is_empty();
        let no_module = draft.modules.take_if(|grants| grants.is_empty()).is_some();
        let no_branch = draft.branches.take_if(|named| empty(named)).is_some();
        let mut permissions = Self::try_from(draft)?;
        if no_module {
            permissions.modules = Some(Grants::default());
        }
        if no_branch {
            permissions.branches = Some(Branches::default());
        }
        Ok(permissions)
    }

    /// Returns the permissions that both `self` and `narrow` contain. If they have nothing in
    /// common, the result is narrowed to no module or to no branch, and permits nothing.
    #[must_use]
    pub fn cut_by(&self, narrow: &Self) -> Self {
        let access = self.access.min(narrow.access);
        let modules = match (&self.modules, &narrow.modules) {
            (None, None) => None,
            (Some(grants), None) | (None, Some(grants)) => Some(grants.capped(access)),
            (Some(ours), Some(theirs)) => Some(ours.common(theirs).capped(access)),
        };
        let branches = match (&self.branches, &narrow.branches) {
            (None, None) => None,
            (Some(named), None) | (None, Some(named)) => Some(named.clone()),
            (Some(ours), Some(theirs)) => Some(Branches {
                branches: &ours.branches & &theirs.branches,
                aliases: &ours.aliases & &theirs.aliases,
            }),
        };
        Self {
            access,
            modules,
            branches,
        }
    }

    /// Returns whether these permissions permit nothing, because [`Self::cut_by`] has left no
    /// module or no branch.
    #[must_use]
    pub fn permits_nothing(&self) -> bool {
        let no_module = self.modules.as_ref().is_some_and(Grants::is_empty);
        let no_branch = |named: &Branches| named.branches.is_empty() && named.aliases.is_empty();
        no_module || self.branches.as_ref().is_some_and(no_branch)
    }

    fn parse(
        draft: Draft,
        module: impl Fn(&str) -> Result<Module, Problem>,
    ) -> Result<Self, Violations> {
        let mut faults = Violations::default();
        let modules = draft
            .modules
            .map(|grants| faults.nest("modules", check_grants(&grants, draft.access, module)));
        let branches = draft
            .branches
            .map(|named| faults.nest("branches", check_branches(named)));
        // If a part could not be parsed, its faults were added, so `finish` returns an error.
        faults.finish(Some(Self {
            access: draft.access,
            modules: modules.flatten(),
            branches: branches.flatten(),
        }))
    }
}

/// Validates permissions that were accepted before, such as those in the store. Their modules do
/// not have to be in the catalogue in effect.
impl TryFrom<Draft> for Permissions {
    type Error = Violations;

    fn try_from(draft: Draft) -> Result<Self, Violations> {
        Self::parse(draft, Module::named)
    }
}

fn check_grants(
    grants: &[DraftGrant],
    ceiling: Access,
    module: impl Fn(&str) -> Result<Module, Problem>,
) -> Result<Grants, Violations> {
    let mut faults = Violations::default();
    let mut checked = Grants::default();
    if grants.is_empty() {
        faults.add(
            "grants",
            Problem::new(
                "is empty, which never means all: name at least one module, or leave `modules` out",
            ),
        );
    }
    for (at, grant) in grants.iter().enumerate() {
        let module = faults.keep(format!("grants[{at}].module"), module(&grant.module));
        let access = faults.keep(
            format!("grants[{at}].access"),
            check_access(grant.access, ceiling),
        );
        let (Some(module), Some(access)) = (module, access) else {
            continue;
        };
        if !checked.insert(module, access) {
            faults.add(
                format!("grants[{at}].module"),
                Problem::new(format!(
                    "names {} a second time: keep one grant of it",
                    grant.module
                )),
            );
        }
    }
    faults.finish(Some(checked))
}

fn check_access(access: Option<Access>, ceiling: Access) -> Result<Access, Problem> {
    let access = access.ok_or_else(|| Problem::new("must be ACCESS_READ or ACCESS_READ_WRITE"))?;
    if access > ceiling {
        return Err(Problem::new(format!(
            "is above the token's own access {}: raise `permissions.access` or lower this",
            ceiling.name()
        )));
    }
    Ok(access)
}

fn check_branches(named: DraftBranches) -> Result<Branches, Violations> {
    let mut faults = Violations::default();
    let count = named.branches.len() + named.aliases.len();
    if count == 0 {
        faults.add("", Problem::new("is empty, which never means all: name at least one branch or alias, or leave `branches` out"));
    }
    if count > MAX_BRANCHES {
        faults.add(
            "",
            Problem::new(format!("has {count} names: keep to {MAX_BRANCHES}")),
        );
        return faults.finish(None);
    }
    let branches = check_names("branches", named.branches, &mut faults);
    let aliases = check_names("aliases", named.aliases, &mut faults);
    faults.finish(Some(Branches { branches, aliases }))
}

fn check_names(field: &str, names: Vec<String>, faults: &mut Violations) -> BTreeSet<String> {
    let mut checked = BTreeSet::new();
    for (at, name) in names.into_iter().enumerate() {
        let path = format!("{field}[{at}]");
        let Some(name) = faults.keep(path.as_str(), text::parse_slug(&name)) else {
            continue;
        };
        if !checked.insert(name) {
            faults.add(path, Problem::new("is named a second time: keep it once"));
        }
    }
    checked
}

#[cfg(test)]
mod tests;
