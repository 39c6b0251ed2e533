//! The modules of the CMS: built-in modules, and modules that an operator's catalogue adds.

use std::{borrow::Cow, sync::Arc};

use super::is_word;
use crate::field::Problem;

/// The maximum length of a module's name. It leaves space for the shortest action name, `module.v`.
const MAX_NAME: usize = super::MAX_NAME - 2;

macro_rules! modules {
    ($($module:ident $name:literal,)+) => {
        /// A built-in module of the CMS.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the names say it")]
        pub enum BuiltinModule { $($module,)+ }

        impl BuiltinModule {
            /// All built-in modules, in the order of the catalogue.
            pub const ALL: &[Self] = &[$(Self::$module,)+];

            /// Returns the name of the module in grants and in action names.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$module => $name,)+ }
            }

            /// Returns the built-in module with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$module),)+ _ => None }
            }
        }
    };
}

modules! {
    Entry "entry", Asset "asset", ContentType "content_type", GlobalField "global_field", Label "label",
    Extension "extension", Taxonomy "taxonomy", Variant "variant", Release "release", Environment "environment",
    Locale "locale", Webhook "webhook", Role "role", StackUser "stack_user", Workflow "workflow", PublishRule "publish_rule",
    PublishRequest "publish_request", PublishQueue "publish_queue", AuditLog "audit_log", Branch "branch",
    BranchAlias "branch_alias", Token "token", Stack "stack", Organization "organization",
    UserSession "user_session", App "app",
}

/// A module of the CMS. Built-in modules sort before others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// A built-in module.
    Builtin(BuiltinModule),
    /// A module that is not built in. The current catalogue may or may not contain it.
    Own(OwnModule),
}

/// The name of a module that is not built in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnModule(Arc<str>);

impl OwnModule {
    /// Returns the name of the module in grants and in action names.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Module {
    /// Parses the name of a module. The module need not be in any catalogue.
    ///
    /// # Errors
    /// Returns a problem for a string that cannot be the name of a module. A name is a word of
    /// lower-case letters, digits and `_`, with at most 62 characters.
    pub fn named(name: &str) -> Result<Self, Problem> {
        if let Some(module) = BuiltinModule::from_name(name) {
            return Ok(Self::Builtin(module));
        }
        if is_word(name) && name.len() <= MAX_NAME {
            return Ok(Self::Own(OwnModule(name.into())));
        }
        Err(Problem::new(format!(
            "must be a word of at most {MAX_NAME} lower-case letters, digits and `_`, the first a letter"
        )))
    }

    /// Returns the name of the module in grants and in action names.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin(module) => module.name(),
            Self::Own(module) => module.name(),
        }
    }

    /// Returns the name without borrowing from the module. Allocates only if the module is not
    /// built in.
    #[must_use]
    pub fn to_name(&self) -> Cow<'static, str> {
        match self {
            Self::Builtin(module) => Cow::Borrowed(module.name()),
            Self::Own(module) => Cow::Owned(module.name().to_owned()),
        }
    }
}
