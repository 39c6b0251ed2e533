//! Converts between permissions and `scope` of the CMS's JSON. Each entry of a scope has a module
//! and the access to it. `$all` means all modules. The branches and aliases of a token are listed
//! in the entries `branch` and `branch_alias`, or in `$all`. If the token has no access to the
//! module `branch` or `branch_alias` itself, the entry denies access and only lists the names.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{CmsError, input::printable};
use crate::grpc::pb::v1::{Access, BranchGrants, ModuleGrant, ModuleGrants, Permissions};

const ALL: &str = "$all";
const BRANCH: &str = "branch";
const ALIAS: &str = "branch_alias";
/// Maximum number of entries, which is more than the number of modules.
const MAX_ENTRIES: usize = 200;

/// An entry of a scope.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    module: String,
    acl: Acl,
    branches: Option<Vec<String>>,
    branch_aliases: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acl {
    read: Option<bool>,
    write: Option<bool>,
}

impl Acl {
    /// Returns the access; `None` if the entry permits nothing, or writing without reading.
    const fn access(&self) -> Option<Access> {
        match (self.read, self.write) {
            (Some(true) | None, Some(true)) => Some(Access::ReadWrite),
            (Some(true), Some(false) | None) => Some(Access::Read),
            _ => None,
        }
    }

    /// Returns whether the entry explicitly denies all access.
    const fn denies(&self) -> bool {
        matches!((self.read, self.write), (Some(false), Some(false) | None))
    }
}

impl Entry {
    /// Returns whether the entry grants nothing and only lists branches or aliases.
    fn has_only_names(&self) -> bool {
        let names = match self.module.as_str() {
            BRANCH => &self.branches,
            ALIAS => &self.branch_aliases,
            _ => return false,
        };
        names.is_some() && self.acl.denies()
    }
}

/// Parses a scope. The RPC checks the names of modules, branches and aliases.
///
/// # Errors
/// Returns an error that states which part is wrong.
pub(super) fn parse(scope: &Value) -> Result<Permissions, CmsError> {
    let entries = scope.as_array().filter(|entries| !entries.is_empty());
    let entries = entries.filter(|entries| entries.len() <= MAX_ENTRIES).ok_or_else(|| {
        wrong("is required: a list with at least one entry such as {\"module\": \"$all\", \"acl\": {\"read\": true}}")
    })?;
    let mut all = None;
    let mut ceiling = Access::Read;
    let mut grants = Vec::new();
    let mut narrowed = BranchGrants::default();
    for (index, value) in entries.iter().enumerate() {
        let (entry, access) = entry(index, value)?;
        collect_branches(index, &entry, &mut narrowed)?;
        let Some(access) = access else {
            continue;
        };
        if access == Access::ReadWrite {
            ceiling = access;
        }
        if entry.module == ALL {
            if all.replace(access).is_some() {
                return Err(wrong("has two entries for $all: send one"));
            }
        } else {
            grants.push(ModuleGrant {
                module: entry.module,
                access: access.into(),
            });
        }
    }
    let is_narrowed = !narrowed.branches.is_empty() || !narrowed.aliases.is_empty();
    Ok(Permissions {
        access: all.unwrap_or(ceiling).into(),
        modules: modules(all, grants)?,
        branches: is_narrowed.then_some(narrowed),
    })
}

/// Parses an entry. The access is `None` if the entry only lists branches or aliases.
fn entry(index: usize, value: &Value) -> Result<(Entry, Option<Access>), CmsError> {
    let entry = Entry::deserialize(value).map_err(|problem| {
        let problem = printable(&problem.to_string());
        wrong(&format!(
            "[{index}] is not an entry such as {{\"module\": \"entry\", \"acl\": {{\"read\": true}}}}: {problem}"
        ))
    })?;
    let access = entry.acl.access();
    if access.is_none() && !entry.has_only_names() {
        return Err(wrong(&format!(
            "[{index}].acl permits nothing, or writing without reading: leave the module out, or permit reading too"
        )));
    }
    Ok((entry, access))
}

/// Returns the grants. If there is an entry `$all`, the only other entries may be `branch` and
/// `branch_alias`.
fn modules(
    all: Option<Access>,
    grants: Vec<ModuleGrant>,
) -> Result<Option<ModuleGrants>, CmsError> {
    if all.is_none() && grants.is_empty() {
        return Err(wrong(
            "permits nothing: add an entry of a module that may be read",
        ));
    }
    if all.is_none() {
        return Ok(Some(ModuleGrants { grants }));
    }
    let of_branches = |grant: &ModuleGrant| [BRANCH, ALIAS].contains(&grant.module.as_str());
    if grants.iter().all(of_branches) {
        Ok(None)
    } else {
        Err(wrong(
            "names $all and other modules: name either all modules or each of them",
        ))
    }
}

fn collect_branches(
    index: usize,
    entry: &Entry,
    narrowed: &mut BranchGrants,
) -> Result<(), CmsError> {
    for (field, sent, of, names) in [
        ("branches", &entry.branches, BRANCH, &mut narrowed.branches),
        (
            "branch_aliases",
            &entry.branch_aliases,
            ALIAS,
            &mut narrowed.aliases,
        ),
    ] {
        let Some(sent) = sent else {
            continue;
        };
        if entry.module != of && entry.module != ALL {
            return Err(wrong(&format!(
                "[{index}].{field} is not accepted for this module: the branches of a token apply to all of its modules, so send them in the entry of the module {of}"
            )));
        }
        if sent.is_empty() {
            return Err(wrong(&format!(
                "[{index}].{field} is empty: name at least one, or leave the field out"
            )));
        }
        names.extend(sent.iter().cloned());
    }
    Ok(())
}

fn wrong(problem: &str) -> CmsError {
    CmsError::field("scope", problem)
}

/// Converts permissions to a scope.
pub(super) fn shown(permissions: Option<&Permissions>) -> Vec<Value> {
    let Some(permissions) = permissions else {
        return Vec::new();
    };
    let mut entries = match &permissions.modules {
        None => vec![json!({ "module": ALL, "acl": acl(permissions.access) })],
        Some(modules) => modules
            .grants
            .iter()
            .map(|grant| json!({ "module": grant.module, "acl": acl(grant.access) }))
            .collect(),
    };
    if let Some(narrowed) = &permissions.branches {
        // With `$all`, the token may read these modules too. Otherwise, their entries must not
        // permit reading: the token has no such grant, and a client that sends the scope back would
        // add it.
        let of_all = permissions.modules.is_none();
        for (module, field, names) in [
            (BRANCH, "branches", &narrowed.branches),
            (ALIAS, "branch_aliases", &narrowed.aliases),
        ] {
            add_names(&mut entries, (module, of_all), (field, names));
        }
    }
    entries
}

/// Adds branches or aliases to the entry of their module. If there is no such entry, adds one,
/// which permits reading only if `may_read`.
fn add_names(
    entries: &mut Vec<Value>,
    (module, may_read): (&str, bool),
    (field, names): (&str, &[String]),
) {
    if names.is_empty() {
        return;
    }
    let own = entries.iter_mut().find(|entry| entry["module"] == module);
    if let Some(entry) = own {
        entry[field] = json!(names);
    } else {
        let acl = json!({ "read": may_read, "write": false });
        entries.push(json!({ "module": module, "acl": acl, field: names }));
    }
}

fn acl(access: i32) -> Value {
    let writes = Access::try_from(access) == Ok(Access::ReadWrite);
    json!({ "read": true, "write": writes })
}

/// Returns whether two scopes mean the same permissions.
pub(super) fn means_the_same(one: &Permissions, other: &Permissions) -> bool {
    let sorted = |scope: &Permissions| -> BTreeSet<String> {
        let entries = shown(Some(scope)).into_iter();
        entries.map(|entry| normal(entry).to_string()).collect()
    };
    sorted(one) == sorted(other)
}

/// Returns an entry with its branches and aliases sorted.
fn normal(mut entry: Value) -> Value {
    for field in ["branches", "branch_aliases"] {
        if let Some(names) = entry.get_mut(field).and_then(Value::as_array_mut) {
            names.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
    }
    entry
}
