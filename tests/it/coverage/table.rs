//! One row for every RPC: whom it is for, whether it changes anything, and a valid request.
//! Written from the contract, not from the policy, so that the one can be held to the other.

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::Message as _;
use stacktoken::grpc::pb::{
    admin::v1::{self as admin, Role},
    audit::v1 as audit,
    v1,
};

use crate::support::{
    TestServer,
    checks::Http,
    introspect_request, issue_request, now, person,
    raw::{Part, Sent},
    requests::{EVERY_TOKEN, batch_request, revoke_all_request},
};

/// Whom an RPC is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Governors,
    GovernorsAndOperators,
    Operators,
    Introspectors,
    OperatorsAndServices,
    Anyone,
}

pub struct Row {
    pub path: &'static str,
    pub whom: Whom,
    pub changes: bool,
    /// A request that the right caller is granted.
    pub request: fn(&World) -> Vec<u8>,
}

/// A stack of its own, with the usual people and one live token.
pub struct World {
    pub stack: String,
    pub token_uid: String,
    pub secret: String,
    /// Of all its live tokens.
    pub preview_hash: String,
}

impl World {
    pub async fn new(server: &TestServer) -> Self {
        let stack = server.register("A stack of its own").await;
        let mut owner = server.owner().await;
        let issued = owner.tokens.issue(issue_request(&stack, "first")).await;
        let issued = issued.unwrap().into_inner();
        let shown = revoke_all_request(&stack, &EVERY_TOKEN, None);
        let shown = owner.tokens.revoke_all(shown).await.unwrap();
        Self {
            preview_hash: shown.into_inner().preview_hash,
            stack,
            token_uid: issued.token.unwrap().token_uid,
            secret: issued.secret,
        }
    }
}

/// Somebody who may make this call.
pub fn right_caller(whom: Whom) -> Part {
    match whom {
        Whom::Governors | Whom::GovernorsAndOperators => Part::Owner,
        Whom::Operators | Whom::OperatorsAndServices | Whom::Anyone => Part::Operator,
        Whom::Introspectors => Part::Introspector,
    }
}

/// What somebody sends who plays this part.
pub fn as_part(server: &TestServer, part: Part) -> Sent {
    Sent::bearer(&part.jwt(server))
}

macro_rules! row {
    ($path:literal, $whom:ident, $changes:literal, |$world:pat_param| $request:expr) => {
        Row {
            path: $path,
            whom: Whom::$whom,
            changes: $changes,
            request: |$world| $request.encode_to_vec(),
        }
    };
}

#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row!("/stacktoken.v1.TokenService/Issue", Governors, true, |world| issue_request(&world.stack, "second")),
    row!("/stacktoken.v1.TokenService/Get", GovernorsAndOperators, false, |world| v1::GetRequest {
        stack_api_key: world.stack.clone(), token_uid: world.token_uid.clone() }),
    row!("/stacktoken.v1.TokenService/List", GovernorsAndOperators, false, |world| v1::ListRequest {
        stack_api_key: world.stack.clone(), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/Update", Governors, true, |world| v1::UpdateRequest {
        stack_api_key: world.stack.clone(),
        token: Some(v1::Token { token_uid: world.token_uid.clone(), name: "renamed".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/SetExpiry", GovernorsAndOperators, true, |world| v1::SetExpiryRequest {
        stack_api_key: world.stack.clone(), token_uid: world.token_uid.clone(), expiry: Some(now()), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/Rotate", Governors, true, |world| v1::RotateRequest {
        stack_api_key: world.stack.clone(), token_uid: world.token_uid.clone(), request_id: String::new(),
        overlap: Some(v1::rotate_request::Overlap::UntilFirstUse(true)), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/Revoke", GovernorsAndOperators, true, |world| v1::RevokeRequest {
        stack_api_key: world.stack.clone(), token_uid: world.token_uid.clone(), reason: "over".into(), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/RevokeAll", GovernorsAndOperators, true, |world|
        revoke_all_request(&world.stack, &EVERY_TOKEN, Some(&world.preview_hash))),
    row!("/stacktoken.v1.TokenService/ReportLeaked", OperatorsAndServices, true, |world| v1::ReportLeakedRequest {
        secret: world.secret.clone(), url: String::new() }),
    row!("/stacktoken.v1.IntrospectionService/Introspect", Introspectors, false, |world|
        introspect_request(&world.stack, &world.secret, &["entry.read"])),
    row!("/stacktoken.v1.IntrospectionService/BatchIntrospect", Introspectors, false, |world|
        batch_request(&world.stack, &[&world.secret])),
    row!("/stacktoken.v1.IntrospectionService/ListActions", Anyone, false, |_| v1::ListActionsRequest {}),
    row!("/stacktoken.v1.IntrospectionService/Watch", Introspectors, false, |_| v1::WatchRequest {
        from_revision: String::new(), ping: Some(v1::WatchPing { nonce: 7 }) }),
    row!("/envoy.service.auth.v3.Authorization/Check", Introspectors, false, |world| CheckRequest::from(
        Http::get("/v3/stacks").with("authorization", &world.secret).with("api_key", &world.stack))),
    row!("/stacktoken.admin.v1.StackService/Register", Operators, true, |_| admin::RegisterRequest {
        name: "New".into(), organization_uid: "org-1".into(), owner: Some(person("owner")), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Get", GovernorsAndOperators, false, |world| admin::GetRequest {
        stack_api_key: world.stack.clone() }),
    row!("/stacktoken.admin.v1.StackService/List", Operators, false, |_| admin::ListRequest::default()),
    row!("/stacktoken.admin.v1.StackService/SetMember", Operators, true, |world| admin::SetMemberRequest {
        stack_api_key: world.stack.clone(), member: Some(person("newcomer")), role: Role::Admin.into(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/RemoveMember", Operators, true, |world| admin::RemoveMemberRequest {
        stack_api_key: world.stack.clone(), member: Some(person("developer")), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/TransferOwnership", Operators, true, |world| admin::TransferOwnershipRequest {
        stack_api_key: world.stack.clone(), new_owner: Some(person("heir")), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/SetTokenLimit", Operators, true, |world| admin::SetTokenLimitRequest {
        stack_api_key: world.stack.clone(), max_tokens: Some(20), reason: "grows".into(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Suspend", Operators, true, |world| admin::SuspendRequest {
        stack_api_key: world.stack.clone(), reason: String::new(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Resume", Operators, true, |world| admin::ResumeRequest {
        stack_api_key: world.stack.clone(), reason: String::new(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Remove", Operators, true, |world| admin::RemoveRequest {
        stack_api_key: world.stack.clone(), reason: String::new(), ..Default::default() }),
    row!("/stacktoken.audit.v1.AuditService/List", GovernorsAndOperators, false, |world| audit::ListRequest {
        stack_api_key: world.stack.clone(), ..Default::default() }),
];
