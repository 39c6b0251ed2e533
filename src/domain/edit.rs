//! Applies the fields of an update to a token. Permissions can be replaced as a whole or in parts.
//! New parts are validated together with the unchanged parts, because the parts depend on each
//! other.

use super::{
    catalogue::Catalogue,
    federation::Federation,
    field::{Problem, Violations},
    labels::Labels,
    permissions::{Access, Draft, DraftBranches, DraftGrant, Permissions},
    text::{Description, TokenName},
};

/// The path of the permissions in the request.
const FIELD: &str = "token.permissions";

/// The fields to change in an update. `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The new name.
    pub name: Option<TokenName>,
    /// The new description.
    pub description: Option<Description>,
    /// The change of the permissions.
    pub permissions: Option<PermissionsEdit>,
    /// The new labels, which replace all former ones.
    pub labels: Option<Labels>,
    /// The new federation, which replaces the former one. Only a federated token can get one.
    pub federation: Option<Federation>,
}

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PermissionsEdit {
    /// Replaces all of them.
    Whole(Permissions),
    /// Replaces parts of them.
    Parts(PermissionsParts),
}

/// The parts of permissions to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionsParts {
    /// The new access. `None` leaves the access as it is.
    pub access: Option<Access>,
    /// The new modules.
    pub modules: Part<Vec<DraftGrant>>,
    /// The new branches.
    pub branches: Part<DraftBranches>,
}

/// The change of an optional part of the permissions, such as the modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part<T> {
    /// Leaves the part as it is.
    #[default]
    Keep,
    /// Removes the part, so that it no longer narrows the permissions.
    Remove,
    /// Replaces or adds the part.
    Set(T),
}

impl<T> Part<T> {
    fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Self::Keep => current,
            Self::Remove => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl PermissionsEdit {
    /// Returns the permissions after the change.
    ///
    /// # Errors
    /// Returns the violations of the request if the resulting permissions are not valid.
    pub fn apply(self, current: &Permissions) -> Result<Permissions, Violations> {
        match self {
            Self::Whole(permissions) => Ok(permissions),
            Self::Parts(parts) => parts.apply(current.draft()),
        }
    }
}

impl PermissionsParts {
    /// Checks everything about the parts that does not depend on the current permissions. Only the
    /// modules in the request must be in the catalogue. The token can keep a module that has been
    /// removed from the catalogue, so that its other parts can still be changed.
    ///
    /// # Errors
    /// Returns the violations. Their paths begin at the permissions.
    pub fn check(&self, catalogue: &Catalogue) -> Result<(), Violations> {
        let nothing = Draft {
            access: Access::ReadWrite,
            modules: None,
            branches: None,
        };
        Permissions::requested(self.clone().over(nothing), catalogue).map(drop)
    }

    fn over(self, current: Draft) -> Draft {
        Draft {
            access: self.access.unwrap_or(current.access),
            modules: self.modules.apply(current.modules),
            branches: self.branches.apply(current.branches),
        }
    }

    fn apply(self, current: Draft) -> Result<Permissions, Violations> {
        let keeps_modules = self.modules == Part::Keep;
        let after = self.over(current);
        let mut faults = Violations::default();
        // The update keeps the existing grants, which are not in the request. So the violation is
        // reported for `access` and not for a grant.
        if keeps_modules && let Some(problem) = too_low(&after) {
            faults.add(format!("{FIELD}.access"), problem);
            return faults.finish(None);
        }
        let permissions = faults.nest(FIELD, Permissions::try_from(after));
        faults.finish(permissions)
    }
}

/// Returns a problem if the access is lower than the access of a grant.
fn too_low(draft: &Draft) -> Option<Problem> {
    let grants = draft.modules.iter().flatten();
    let above = grants.filter(|grant| grant.access > Some(draft.access));
    let modules: Vec<_> = above.map(|grant| grant.module.as_str()).collect();
    let problem = || {
        format!(
            "is below what the token is granted on {}: name permissions.modules in update_mask too, and grant at most {} there",
            modules.join(", "),
            draft.access.name()
        )
    };
    (!modules.is_empty()).then(|| Problem::new(problem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(json: &str) -> Permissions {
        let draft: Draft = serde_json::from_str(json).unwrap();
        draft.try_into().unwrap()
    }

    fn grants(access: Access) -> Part<Vec<DraftGrant>> {
        Part::Set(vec![DraftGrant {
            module: "asset".into(),
            access: Some(access),
        }])
    }

    const NARROWED: &str = r#"{"access":"READ_WRITE","modules":[{"module":"entry","access":"READ_WRITE"}],"branches":{"branches":["main"]}}"#;

    fn apply(parts: PermissionsParts) -> Result<Permissions, Vec<String>> {
        let done = PermissionsEdit::Parts(parts).apply(&permissions(NARROWED));
        done.map_err(|faults| {
            let faults = faults.as_slice().iter();
            faults.map(|fault| fault.field.clone()).collect()
        })
    }

    #[test]
    fn a_part_is_changed_and_the_others_stay() {
        let removed = apply(PermissionsParts {
            modules: Part::Remove,
            ..PermissionsParts::default()
        });
        let expected = r#"{"access":"READ_WRITE","branches":{"branches":["main"]}}"#;
        assert_eq!(removed.unwrap(), permissions(expected));
        let other = apply(PermissionsParts {
            modules: grants(Access::Read),
            branches: Part::Remove,
            ..PermissionsParts::default()
        });
        let expected = r#"{"access":"READ_WRITE","modules":[{"module":"asset","access":"READ"}]}"#;
        assert_eq!(other.unwrap(), permissions(expected));
        let nothing = apply(PermissionsParts::default());
        assert_eq!(nothing.unwrap(), permissions(NARROWED));
    }

    #[test]
    fn what_comes_of_it_is_checked_as_a_whole() {
        let read = PermissionsParts {
            access: Some(Access::Read),
            ..PermissionsParts::default()
        };
        let too_low = ["token.permissions.access".to_owned()];
        assert_eq!(apply(read.clone()).unwrap_err(), too_low);
        let both = PermissionsParts {
            modules: grants(Access::Read),
            ..read.clone()
        };
        assert_eq!(apply(both).unwrap().access(), Access::Read);
        let above = PermissionsParts {
            modules: grants(Access::ReadWrite),
            ..read
        };
        assert!(
            above.check(&Catalogue::builtin()).is_err(),
            "both are in the request"
        );
        let grant = ["token.permissions.modules.grants[0].access".to_owned()];
        assert_eq!(apply(above).unwrap_err(), grant);
    }
}
