//! The modules that are granted to a token. Grants of built-in modules are stored separately, so
//! that the verdict on a built-in action compares no text, and a token without other grants needs
//! no memory for them.

use std::collections::BTreeMap;

use super::Access;
use crate::catalogue::{BuiltinModule, Module, OwnModule};

/// The access to each granted module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    builtin: BTreeMap<BuiltinModule, Access>,
    own: BTreeMap<OwnModule, Access>,
}

impl Grants {
    /// Returns the access to a module, or `None` if the module is not granted.
    pub fn get(&self, module: &Module) -> Option<Access> {
        match module {
            Module::Builtin(module) => self.builtin.get(module).copied(),
            Module::Own(module) => self.own.get(module).copied(),
        }
    }

    /// Grants access to a module. Returns whether the module was not granted before.
    pub fn insert(&mut self, module: Module, access: Access) -> bool {
        let before = match module {
            Module::Builtin(module) => self.builtin.insert(module, access),
            Module::Own(module) => self.own.insert(module, access),
        };
        before.is_none()
    }

    /// Returns whether no module is granted.
    pub fn is_empty(&self) -> bool {
        self.builtin.is_empty() && self.own.is_empty()
    }

    /// Returns the grants, with the access to each module limited to `access`.
    pub fn capped(&self, access: Access) -> Self {
        Self {
            builtin: capped(&self.builtin, access),
            own: capped(&self.own, access),
        }
    }

    /// Returns the modules that both sets grant, each with the lower access of the two.
    pub fn common(&self, other: &Self) -> Self {
        Self {
            builtin: common(&self.builtin, &other.builtin),
            own: common(&self.own, &other.own),
        }
    }

    /// Returns the name of each granted module and the access to it. The order does not depend on
    /// the order in which the grants were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Access)> {
        let builtin = self.builtin.iter();
        let builtin = builtin.map(|(module, access)| (module.name(), *access));
        let own = self.own.iter();
        builtin.chain(own.map(|(module, access)| (module.name(), *access)))
    }
}

fn capped<M: Clone + Ord>(grants: &BTreeMap<M, Access>, access: Access) -> BTreeMap<M, Access> {
    let capped = grants.iter();
    let capped = capped.map(|(module, granted)| (module.clone(), access.min(*granted)));
    capped.collect()
}

fn common<M: Clone + Ord>(
    ours: &BTreeMap<M, Access>,
    theirs: &BTreeMap<M, Access>,
) -> BTreeMap<M, Access> {
    let both = ours.iter().filter_map(|(module, access)| {
        let other = theirs.get(module)?;
        Some((module.clone(), *access.min(other)))
    });
    both.collect()
}
