//! The modules that a token is granted. Grants of built-in modules are kept apart, so that the
//! verdict on a built-in action compares no text, and a token without other grants needs no memory
//! for them.

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
    /// Returns the access to a module. Returns `None` if the module is not granted.
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

    /// Returns the name of each granted module and the access to it. The order does not depend on
    /// that of the grants.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Access)> {
        let builtin = self.builtin.iter();
        let builtin = builtin.map(|(module, access)| (module.name(), *access));
        let own = self.own.iter();
        builtin.chain(own.map(|(module, access)| (module.name(), *access)))
    }
}
