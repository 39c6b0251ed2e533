//! Tests `StackService`. Each RPC has its own file.

mod get;
mod list;
mod list_members;
mod register;
mod remove;
mod remove_member;
mod resume;
mod set_member;
mod set_token_limit;
mod suspend;
mod transfer_ownership;

use stacktoken::grpc::pb::{
    admin::v1::{
        GetRequest, GetResponse, ListMembersRequest, Member, Person, RegisterRequest,
        RemoveRequest, SetMemberRequest, Stack, SuspendRequest,
    },
    audit::v1::{AuditEvent, AuditOutcome, AuditState, audit_state::State},
    v1::{Role, SetExpiryRequest, UpdateRequest},
};
use tonic::{Code, Status};

use crate::support::{TestServer, person, raw::outcome};

/// The outcome of a successful call.
const DONE: (Code, &str) = (Code::Ok, "");
const NOT_FOUND: (Code, &str) = (Code::NotFound, "STACK_NOT_FOUND");
const WRONG_ROLE: (Code, &str) = (Code::PermissionDenied, "ROLE_REQUIRED");
const SUSPENDED: (Code, &str) = (Code::FailedPrecondition, "STACK_SUSPENDED");
const OWNER_REQUIRED: (Code, &str) = (Code::FailedPrecondition, "OWNER_REQUIRED");

/// Asserts that a call ended with this code and reason.
#[track_caller]
fn ended<T>(answered: &Result<T, Status>, (code, reason): (Code, &str)) {
    assert_eq!(outcome(answered), (code, reason.to_owned()));
}

/// A stack API key that is not registered.
const UNKNOWN: &str = "blt00c0ffee00c0ffee";

/// Returns the stack as an operator sees it.
async fn seen(server: &TestServer, key: &str) -> GetResponse {
    let request = GetRequest {
        stack_api_key: key.into(),
    };
    let mut operator = server.operator().await;
    operator.stacks.get(request).await.unwrap().into_inner()
}

async fn stack(server: &TestServer) -> Stack {
    seen(server, &server.stack).await.stack.unwrap()
}

/// Returns the members of the stack, in the order they were added.
async fn members(server: &TestServer) -> Vec<Member> {
    let request = ListMembersRequest {
        stack_api_key: server.stack.clone(),
        page_size: 100,
        page_token: String::new(),
    };
    let mut operator = server.operator().await;
    let page = operator.stacks.list_members(request).await.unwrap();
    page.into_inner().members
}

/// Returns the subjects and roles of the members, in the order they were added.
async fn people(server: &TestServer) -> Vec<(String, Role)> {
    let told = members(server).await.into_iter().map(|member| {
        let role = member.role();
        (member.person.unwrap().subject, role)
    });
    told.collect()
}

/// Returns the latest audit event of this method in the test stack. Asserts that this call
/// succeeded.
async fn latest(server: &TestServer, method: &str) -> AuditEvent {
    let event = server
        .audit()
        .await
        .into_iter()
        .find(|event| event.method == method);
    let event = event.unwrap_or_else(|| panic!("no {method} in the audit"));
    assert_eq!(event.outcome(), AuditOutcome::Done);
    event
}

/// Returns the stack in a snapshot.
fn stack_in(state: Option<&AuditState>) -> &Stack {
    match state.and_then(|state| state.state.as_ref()) {
        Some(State::Stack(stack)) => stack,
        other => panic!("not a stack: {other:?}"),
    }
}

/// Returns the person and the role of the member in a snapshot.
fn member_in(state: Option<&AuditState>) -> (&str, Role) {
    match state.and_then(|state| state.state.as_ref()) {
        Some(State::Member(member)) => (&member.person.as_ref().unwrap().subject, member.role()),
        other => panic!("not a member: {other:?}"),
    }
}

fn details(event: &AuditEvent) -> Vec<(&str, &str)> {
    let mut pairs: Vec<_> = event
        .details
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    pairs.sort_unstable();
    pairs
}

fn register(name: &str) -> RegisterRequest {
    RegisterRequest {
        name: name.into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    }
}

fn set_member(key: &str, subject: &str, role: Role) -> SetMemberRequest {
    SetMemberRequest {
        stack_api_key: key.into(),
        member: Some(person(subject)),
        role: role.into(),
        validate_only: false,
    }
}

fn suspend(key: &str) -> SuspendRequest {
    SuspendRequest {
        stack_api_key: key.into(),
        reason: "unpaid".into(),
        validate_only: false,
    }
}

fn remove(key: &str) -> RemoveRequest {
    RemoveRequest {
        stack_api_key: key.into(),
        reason: "gone".into(),
        validate_only: false,
    }
}

fn rename(key: &str, token_uid: &str, name: &str) -> UpdateRequest {
    UpdateRequest {
        stack_api_key: key.into(),
        token: Some(stacktoken::grpc::pb::v1::Token {
            token_uid: token_uid.into(),
            name: name.into(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["name".into()],
        }),
        validate_only: false,
        etag: String::new(),
    }
}

fn set_expiry(
    key: &str,
    token_uid: &str,
    expiry: stacktoken::grpc::pb::v1::Expiry,
) -> SetExpiryRequest {
    SetExpiryRequest {
        stack_api_key: key.into(),
        token_uid: token_uid.into(),
        expiry: Some(expiry),
        validate_only: false,
        etag: String::new(),
    }
}

/// Returns a person whose fields are all invalid.
fn nobody() -> Person {
    Person {
        issuer: String::new(),
        subject: "x".repeat(256),
        email: "a\u{7}b".into(),
    }
}
