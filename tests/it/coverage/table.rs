//! One row for each RPC: who may call it, whether it changes state, and a valid request. The table
//! is written from the contract, not from the policy, so that the policy can be checked against it.

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::Message as _;
use serde_json::json;
use stacktoken::grpc::pb::{
    admin::v1 as admin,
    audit::v1 as audit,
    v1::{self, Role},
};

use crate::support::{
    TestServer,
    checks::Http,
    federated::{exchange_request, federated_request, job},
    introspect_request, issue_request, now, person,
    raw::{Metadata, TestCaller},
    requests::{
        EVERY_TOKEN, UNTIL_FIRST_USE, batch_request, end_overlap_request, overlap_for,
        revoke_all_request, rotate_request,
    },
};

/// The callers that may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Users,
    Governors,
    GovernorsAndOperators,
    Operators,
    Introspectors,
    OperatorsAndServices,
    Workloads,
    Anyone,
    /// Everybody; a credential is not read.
    Holders,
}

pub struct Row {
    pub path: &'static str,
    pub whom: Audience,
    pub changes: bool,
    /// Returns a request that succeeds for a permitted caller.
    pub request: fn(&Fixture) -> Vec<u8>,
}

/// A stack with its members and one live token that was used and is being rotated.
pub struct Fixture {
    pub stack: String,
    pub token_uid: String,
    /// The previous secret, which is still live.
    pub secret: String,
    /// The hash of the set of all live tokens, from a preview of `RevokeAll`.
    pub preview_hash: String,
    /// A federated token with a live session.
    pub federated_uid: String,
    /// The secret of the session.
    pub session: String,
    /// An assertion that the federated token accepts.
    pub assertion: String,
}

impl Fixture {
    pub async fn new(server: &TestServer) -> Self {
        let stack = server.register("A stack of its own").await;
        let mut owner = server.owner().await;
        let issued = owner.tokens.issue(issue_request(&stack, "first")).await;
        let issued = issued.unwrap().into_inner();
        // Some RPCs return the last use, so the token is used once.
        let use_it = introspect_request(&stack, &issued.secret, &[]);
        let mut service = server.service().await;
        service.introspection.introspect(use_it).await.unwrap();
        let uid = issued.token.unwrap().token_uid;
        let federated = owner.tokens.issue(federated_request(&stack, "ci")).await;
        let federated = federated.unwrap().into_inner().token.unwrap().token_uid;
        let mut workload = server
            .workload(&job(server.clock.seconds(), json!({})))
            .await;
        let session = exchange_request(&stack, &federated);
        let session = workload.exchange.exchange(session).await.unwrap();
        let rotate = rotate_request(&stack, &uid, overlap_for(3600));
        owner.tokens.rotate(rotate).await.unwrap();
        let shown = revoke_all_request(&stack, &EVERY_TOKEN, None);
        let shown = owner.tokens.revoke_all(shown).await.unwrap();
        Self {
            preview_hash: shown.into_inner().preview_hash,
            stack,
            federated_uid: federated,
            session: session.into_inner().secret,
            assertion: server.issuer.job(server.clock.seconds()),
            token_uid: uid,
            secret: issued.secret,
        }
    }
}

/// Returns a caller that may call the RPC.
pub fn right_caller(whom: Audience) -> TestCaller {
    match whom {
        Audience::Users | Audience::Governors | Audience::GovernorsAndOperators => {
            TestCaller::Owner
        }
        Audience::Operators | Audience::OperatorsAndServices | Audience::Anyone => {
            TestCaller::Operator
        }
        Audience::Introspectors => TestCaller::Introspector,
        Audience::Workloads => TestCaller::Workload,
        Audience::Holders => TestCaller::Stranger,
    }
}

/// Returns the metadata that a caller of this kind sends.
pub fn metadata_of(server: &TestServer, part: TestCaller) -> Metadata {
    Metadata::bearer(&part.jwt(server))
}

macro_rules! row {
    ($path:literal, $whom:ident, $changes:literal, |$fixture:pat_param| $request:expr) => {
        Row {
            path: $path,
            whom: Audience::$whom,
            changes: $changes,
            request: |$fixture| $request.encode_to_vec(),
        }
    };
}

#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row!("/stacktoken.v1.TokenService/Issue", Governors, true, |fixture| issue_request(&fixture.stack, "second")),
    row!("/stacktoken.v1.TokenService/Get", GovernorsAndOperators, false, |fixture| v1::GetRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.token_uid.clone() }),
    row!("/stacktoken.v1.TokenService/GetUsage", GovernorsAndOperators, false, |fixture| v1::GetUsageRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.token_uid.clone() }),
    row!("/stacktoken.v1.TokenService/ListStacks", Users, false, |_| v1::ListStacksRequest::default()),
    row!("/stacktoken.v1.TokenService/List", GovernorsAndOperators, false, |fixture| v1::ListRequest {
        stack_api_key: fixture.stack.clone(), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/Update", Governors, true, |fixture| v1::UpdateRequest {
        stack_api_key: fixture.stack.clone(),
        token: Some(v1::Token { token_uid: fixture.token_uid.clone(), name: "renamed".into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/SetExpiry", GovernorsAndOperators, true, |fixture| v1::SetExpiryRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.token_uid.clone(), expiry: Some(now()), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/Rotate", Governors, true, |fixture| v1::RotateRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.token_uid.clone(), request_id: String::new(),
        overlap: Some(UNTIL_FIRST_USE), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/EndOverlap", Governors, true, |fixture| end_overlap_request(&fixture.stack, &fixture.token_uid)),
    row!("/stacktoken.v1.TokenService/Revoke", GovernorsAndOperators, true, |fixture| v1::RevokeRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.token_uid.clone(), reason: "over".into(), ..Default::default() }),
    row!("/stacktoken.v1.TokenService/RevokeAll", GovernorsAndOperators, true, |fixture|
        revoke_all_request(&fixture.stack, &EVERY_TOKEN, Some(&fixture.preview_hash))),
    row!("/stacktoken.v1.TokenService/ExplainExchange", Governors, false, |fixture| v1::ExplainExchangeRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.federated_uid.clone(), subject_token: fixture.assertion.clone() }),
    row!("/stacktoken.v1.TokenService/ListFederationIssuers", Governors, false, |fixture| v1::ListFederationIssuersRequest {
        stack_api_key: fixture.stack.clone() }),
    row!("/stacktoken.v1.TokenService/EndSessions", Governors, true, |fixture| v1::EndSessionsRequest {
        stack_api_key: fixture.stack.clone(), token_uid: fixture.federated_uid.clone(), ..Default::default() }),
    row!("/stacktoken.v1.ExchangeService/Exchange", Workloads, true, |fixture| exchange_request(&fixture.stack, "")),
    row!("/stacktoken.v1.ExchangeService/EndSession", Holders, true, |fixture| v1::EndSessionRequest {
        secret: fixture.session.clone() }),
    row!("/stacktoken.v1.LeakService/ReportLeaked", OperatorsAndServices, true, |fixture| v1::ReportLeakedRequest {
        secret: fixture.secret.clone(), url: String::new() }),
    row!("/stacktoken.v1.IntrospectionService/Introspect", Introspectors, false, |fixture|
        introspect_request(&fixture.stack, &fixture.secret, &["entry.read"])),
    row!("/stacktoken.v1.IntrospectionService/BatchIntrospect", Introspectors, false, |fixture|
        batch_request(&fixture.stack, &[&fixture.secret])),
    row!("/stacktoken.v1.ActionService/ListActions", Anyone, false, |_| v1::ListActionsRequest {}),
    row!("/stacktoken.v1.IntrospectionService/Watch", Introspectors, false, |_| v1::WatchRequest {
        from_revision: String::new(), ping: Some(v1::WatchPing { nonce: 7 }) }),
    row!("/envoy.service.auth.v3.Authorization/Check", Introspectors, false, |fixture| CheckRequest::from(
        Http::get("/v3/stacks").with("authorization", &fixture.secret).with("api_key", &fixture.stack))),
    row!("/stacktoken.admin.v1.StackService/Register", Operators, true, |_| admin::RegisterRequest {
        name: "New".into(), organization_uid: "org-1".into(), owner: Some(person("owner")), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Get", GovernorsAndOperators, false, |fixture| admin::GetRequest {
        stack_api_key: fixture.stack.clone() }),
    row!("/stacktoken.admin.v1.StackService/ListMembers", GovernorsAndOperators, false, |fixture| admin::ListMembersRequest {
        stack_api_key: fixture.stack.clone(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/List", Operators, false, |_| admin::ListRequest::default()),
    row!("/stacktoken.admin.v1.StackService/SetMember", Operators, true, |fixture| admin::SetMemberRequest {
        stack_api_key: fixture.stack.clone(), member: Some(person("newcomer")), role: Role::Admin.into(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/RemoveMember", Operators, true, |fixture| admin::RemoveMemberRequest {
        stack_api_key: fixture.stack.clone(), member: Some(person("developer")), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/TransferOwnership", Operators, true, |fixture| admin::TransferOwnershipRequest {
        stack_api_key: fixture.stack.clone(), new_owner: Some(person("heir")), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/SetTokenLimit", Operators, true, |fixture| admin::SetTokenLimitRequest {
        stack_api_key: fixture.stack.clone(), max_tokens: Some(20), reason: "grows".into(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Suspend", Operators, true, |fixture| admin::SuspendRequest {
        stack_api_key: fixture.stack.clone(), reason: String::new(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Resume", Operators, true, |fixture| admin::ResumeRequest {
        stack_api_key: fixture.stack.clone(), reason: String::new(), ..Default::default() }),
    row!("/stacktoken.admin.v1.StackService/Remove", Operators, true, |fixture| admin::RemoveRequest {
        stack_api_key: fixture.stack.clone(), reason: String::new(), ..Default::default() }),
    row!("/stacktoken.audit.v1.AuditService/List", GovernorsAndOperators, false, |fixture| audit::ListRequest {
        stack_api_key: fixture.stack.clone(), ..Default::default() }),
];
