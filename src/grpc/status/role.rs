//! Builds the error for a caller whose kind or role is not sufficient.

use tonic::Code;

use super::ErrorParts;
use crate::{
    domain::{
        refusal::{CallerRequired, RoleRequired},
        stack::Role,
    },
    grpc::pb::v1::ErrorReason,
};

/// Builds an error that lists the roles and caller kinds that may make the call, both in the
/// message and in the metadata.
pub(super) fn error_parts(required: &RoleRequired) -> ErrorParts {
    let roles: Vec<_> = required.roles.iter().map(|role| role.name()).collect();
    let callers: Vec<_> = required
        .callers
        .iter()
        .map(|caller| caller.name())
        .collect();
    let mut ways = Vec::new();
    if !roles.is_empty() {
        ways.push("owner or admin of the stack");
    }
    ways.extend(required.callers.iter().map(|caller| match caller {
        CallerRequired::User => "user",
        CallerRequired::Operator => "operator",
        CallerRequired::Introspector => "service with the introspect role",
        CallerRequired::Service => "service",
        CallerRequired::Workload => "workload",
    }));
    let ways = ways.join(", or ");
    let message = format!("this caller may not make the call: it requires one of: {ways}");
    let parts = ErrorParts::new(Code::PermissionDenied, ErrorReason::RoleRequired, message);
    let named = [
        ("required_roles", roles.join(",")),
        ("required_callers", callers.join(",")),
        ("role", required.role.map_or("", Role::name).to_owned()),
    ];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty());
    named.fold(parts, |parts, (name, value)| parts.with(name, &value))
}
