//! Converts the request of `Update` to domain values.

use super::{federation, permissions, tokens};
use crate::{
    domain::{
        caller::Call,
        catalogue::Catalogue,
        edit::{Edit, PermissionsEdit},
        etag::Target,
        federation::FederationIssuers,
        field::{Problem, Violations},
        id,
        labels::Labels,
        stack::StackKey,
        text::{Description, TokenName},
    },
    grpc::pb::v1,
};

/// The paths that `update_mask` may contain.
const PATHS: &str = "name, description, labels, federation, permissions, permissions.access, \
    permissions.modules, permissions.branches";

pub fn update(
    message: v1::UpdateRequest,
    _: &Call,
    known: (&Catalogue, &FederationIssuers),
) -> Result<(Target, Edit), Violations> {
    let mut faults = Violations::default();
    let stack_key = faults.keep("stack_api_key", StackKey::parse(&message.stack_api_key));
    let paths = message.update_mask.unwrap_or_default().paths;
    let required = || Problem::new("is required: its token_uid, and the fields to change");
    let token = faults.keep("token", message.token.ok_or_else(required));
    let uid = token
        .as_ref()
        .and_then(|token| faults.keep("token.token_uid", id::parse(&token.token_uid)));
    if paths.is_empty() {
        let choices = format!("is required: one or more of {PATHS}");
        faults.add("update_mask", Problem::new(choices));
    }
    let edit = token.map(|token| edit(&mut faults, &paths, (token, stack_key.as_ref()), known));
    let target = tokens::target(&mut faults, stack_key.zip(uid), &message.etag);
    faults.finish(target.zip(edit))
}

fn edit(
    faults: &mut Violations,
    paths: &[String],
    (token, stack): (v1::Token, Option<&StackKey>),
    (catalogue, issuers): (&Catalogue, &FederationIssuers),
) -> Edit {
    let names = |path: &str| paths.iter().any(|named| named == path);
    let mut edit = Edit::default();
    if names("name") {
        edit.name = faults.keep("token.name", TokenName::parse(&token.name));
    }
    if names("description") {
        let parsed = Description::parse(&token.description);
        edit.description = faults.keep("token.description", parsed);
    }
    if names("labels") {
        edit.labels = faults.nest("token.labels", Labels::parse(token.labels));
    }
    if names("federation") {
        let removed = || {
            let mut faults = Violations::default();
            let problem = "cannot be removed from a token: set it, or revoke the token";
            faults.add("", Problem::new(problem));
            faults
        };
        let parsed = token.federation.ok_or_else(removed);
        let parsed = parsed.and_then(|message| federation::parse(message, stack, issuers));
        edit.federation = faults.nest("token.federation", parsed);
    }
    let parts = permissions::Paths {
        whole: names("permissions"),
        access: names("permissions.access"),
        modules: names("permissions.modules"),
        branches: names("permissions.branches"),
    };
    let parsed = parts.parse(token.permissions, catalogue);
    edit.permissions = faults.nest("token.permissions", parsed).flatten();
    for (index, path) in paths.iter().enumerate() {
        if !PATHS.split(", ").any(|known| known == path) {
            let choices = format!("cannot be updated: use {PATHS}; SetExpiry changes the expiry");
            faults.add(format!("update_mask.paths[{index}]"), Problem::new(choices));
        }
    }
    edit
}

impl permissions::Paths {
    /// Parses the change of the permissions that the mask selects. Returns `None` if it selects no
    /// part of them. If the mask contains `permissions`, paths of its parts have no effect.
    fn parse(
        self,
        message: Option<v1::Permissions>,
        catalogue: &Catalogue,
    ) -> Result<Option<PermissionsEdit>, Violations> {
        if self.whole {
            let whole = permissions::parse(message, catalogue)?;
            return Ok(Some(PermissionsEdit::Whole(whole)));
        }
        if !(self.access || self.modules || self.branches) {
            return Ok(None);
        }
        let parts = permissions::parse_parts(self, message.unwrap_or_default(), catalogue)?;
        Ok(Some(PermissionsEdit::Parts(parts)))
    }
}
