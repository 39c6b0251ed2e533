//! Converts permissions from and to their messages.

use crate::{
    domain::{
        field::{Problem, Violations},
        permissions::{Access, Draft, DraftBranches, DraftGrant, Permissions},
    },
    grpc::pb::v1,
};

/// Parses permissions. A missing message is a violation.
pub fn parse(message: Option<v1::Permissions>) -> Result<Permissions, Violations> {
    let mut faults = Violations::default();
    let Some(message) = message else {
        faults.add("", Problem::new("is required: at least `access`"));
        return faults.finish(None);
    };
    let ceiling = access(message.access());
    if ceiling.is_none() {
        let choices = Problem::new("is required: ACCESS_READ or ACCESS_READ_WRITE");
        faults.add("access", choices);
    }
    // If the access level is invalid, the grants are checked against the highest level, so that
    // only faults of the grants themselves are reported.
    let draft = Draft {
        access: ceiling.unwrap_or(Access::ReadWrite),
        modules: message
            .modules
            .map(|modules| modules.grants.into_iter().map(grant).collect()),
        branches: message.branches.map(|named| DraftBranches {
            branches: named.branches,
            aliases: named.aliases,
        }),
    };
    let permissions = faults.nest("", Permissions::try_from(draft));
    faults.finish(permissions)
}

fn grant(message: v1::ModuleGrant) -> DraftGrant {
    DraftGrant {
        access: access(message.access()),
        module: message.module,
    }
}

const fn access(message: v1::Access) -> Option<Access> {
    match message {
        v1::Access::Unspecified => None,
        v1::Access::Read => Some(Access::Read),
        v1::Access::ReadWrite => Some(Access::ReadWrite),
    }
}

fn access_message(access: Access) -> i32 {
    match access {
        Access::Read => v1::Access::Read.into(),
        Access::ReadWrite => v1::Access::ReadWrite.into(),
    }
}

/// Builds the message from permissions.
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
