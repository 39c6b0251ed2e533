//! StackService, one file per RPC.

mod get;
mod list;
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
        GetRequest, GetResponse, Person, RegisterRequest, RemoveRequest, Role, SetMemberRequest,
        Stack, SuspendRequest,
    },
    audit::v1::{AuditAction, AuditEvent, AuditOutcome},
    v1::{SetExpiryRequest, UpdateRequest},
};
use tonic::{Code, Status};

use crate::support::{TestServer, person, raw::outcome};

/// Ended well.
const DONE: (Code, &str) = (Code::Ok, "");
const NOT_FOUND: (Code, &str) = (Code::NotFound, "STACK_NOT_FOUND");
const SUSPENDED: (Code, &str) = (Code::FailedPrecondition, "STACK_SUSPENDED");
const OWNER_REQUIRED: (Code, &str) = (Code::FailedPrecondition, "OWNER_REQUIRED");

/// That a call ended with this code and reason.
#[track_caller]
fn ended<T>(answered: &Result<T, Status>, (code, reason): (Code, &str)) {
    assert_eq!(outcome(answered), (code, reason.to_owned()));
}

/// A key that nobody registered.
const UNKNOWN: &str = "blt00c0ffee00c0ffee";

/// As operators see the stack.
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

/// Who is in the stack, in the order they were added.
async fn people(server: &TestServer) -> Vec<(String, Role)> {
    let members = seen(server, &server.stack).await.members;
    let told = members.into_iter().map(|member| {
        let role = member.role();
        (member.person.unwrap().subject, role)
    });
    told.collect()
}

/// The latest thing that was done to the stack.
async fn latest(server: &TestServer, action: AuditAction) -> AuditEvent {
    let event = server
        .audit()
        .await
        .into_iter()
        .find(|event| event.action() == action);
    let event = event.unwrap_or_else(|| panic!("no {action:?} in the audit"));
    assert_eq!(event.outcome(), AuditOutcome::Done);
    event
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
    }
}

/// A person with nothing right about them.
fn nobody() -> Person {
    Person {
        issuer: String::new(),
        subject: "x".repeat(256),
        email: "a\u{7}b".into(),
    }
}
