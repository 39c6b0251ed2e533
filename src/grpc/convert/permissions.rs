//! Converts permissions to domain values and back.

use crate::{
    domain::{
        catalogue::Catalogue,
        edit::{Part, PermissionsParts},
        field::{Problem, Violations},
        permissions::{Access, Draft, DraftBranches, DraftGrant, Permissions},
    },
    grpc::pb::v1,
};

/// Parses permissions. A missing message or a module that cannot be granted is a violation.
pub fn parse(
    message: Option<v1::Permissions>,
    catalogue: &Catalogue,
) -> Result<Permissions, Violations> {
    let mut faults = Violations::default();
    let Some(message) = message else {
        faults.add("", Problem::new("is required: at least `access`"));
        return faults.finish(None);
    };
    let ceiling = faults.keep("access", required_access(&message));
    // If the access level is invalid, the grants are checked against the highest level, so that
    // only faults of the grants themselves are reported.
    let draft = Draft {
        access: ceiling.unwrap_or(Access::ReadWrite),
        modules: message.modules.map(grants),
        branches: message.branches.map(branches),
    };
    let permissions = faults.nest("", Permissions::requested(draft, catalogue));
    faults.finish(permissions)
}

/// The paths of an update mask that select permissions or parts of them.
#[derive(Clone, Copy, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent paths, each named or not"
)]
pub struct Paths {
    /// Whether `permissions` is in the mask.
    pub whole: bool,
    /// Whether `permissions.access` is in the mask.
    pub access: bool,
    /// Whether `permissions.modules` is in the mask.
    pub modules: bool,
    /// Whether `permissions.branches` is in the mask.
    pub branches: bool,
}

/// Parses the parts of permissions that the mask selects. A selected part that is absent is
/// removed, except that an absent access is a violation.
pub fn parse_parts(
    paths: Paths,
    message: v1::Permissions,
    catalogue: &Catalogue,
) -> Result<PermissionsParts, Violations> {
    let mut faults = Violations::default();
    let access = paths.access.then(|| required_access(&message));
    let parts = PermissionsParts {
        access: access.and_then(|access| faults.keep("access", access)),
        modules: part(paths.modules, message.modules.map(grants)),
        branches: part(paths.branches, message.branches.map(branches)),
    };
    faults.nest("", parts.check(catalogue));
    faults.finish(Some(parts))
}

fn part<T>(named: bool, value: Option<T>) -> Part<T> {
    match (named, value) {
        (false, _) => Part::Keep,
        (true, None) => Part::Remove,
        (true, Some(value)) => Part::Set(value),
    }
}

fn required_access(message: &v1::Permissions) -> Result<Access, Problem> {
    let choices = || Problem::new("must be ACCESS_READ or ACCESS_READ_WRITE");
    access(message.access()).ok_or_else(choices)
}

fn grants(message: v1::ModuleGrants) -> Vec<DraftGrant> {
    message.grants.into_iter().map(grant).collect()
}

fn branches(message: v1::BranchGrants) -> DraftBranches {
    DraftBranches {
        branches: message.branches,
        aliases: message.aliases,
    }
}

fn grant(message: v1::ModuleGrant) -> DraftGrant {
    DraftGrant {
        access: access(message.access()),
        module: message.module,
    }
}

pub const fn access(message: v1::Access) -> Option<Access> {
    match message {
        v1::Access::Unspecified => None,
        v1::Access::Read => Some(Access::Read),
        v1::Access::ReadWrite => Some(Access::ReadWrite),
    }
}

/// Returns the protobuf enum value of an access level.
pub fn access_message(access: Access) -> i32 {
    match access {
        Access::Read => v1::Access::Read.into(),
        Access::ReadWrite => v1::Access::ReadWrite.into(),
    }
}

/// Builds the message for permissions.
pub fn message(permissions: &Permissions) -> v1::Permissions {
    let draft = permissions.draft();
    let grant = |grant: DraftGrant| v1::ModuleGrant {
        access: access_message(grant.access.unwrap_or(draft.access)),
        module: grant.module,
    };
    v1::Permissions {
        access: access_message(draft.access),
        modules: draft.modules.map(|grants| v1::ModuleGrants {
            grants: grants.into_iter().map(grant).collect(),
        }),
        branches: draft.branches.map(|named| v1::BranchGrants {
            branches: named.branches,
            aliases: named.aliases,
        }),
    }
}
