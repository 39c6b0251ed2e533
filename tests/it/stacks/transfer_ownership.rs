use std::time::Duration;

use stacktoken::grpc::pb::{admin::v1::TransferOwnershipRequest, v1::Role};

use super::{
    DONE, NOT_FOUND, OWNER_REQUIRED, ended, latest, nobody, people, remove, seen, set_member,
    stack_in,
};
use crate::support::{TestServer, clients::fields, issue_request, methods, person};

fn transfer(key: &str, subject: &str) -> TransferOwnershipRequest {
    TransferOwnershipRequest {
        stack_api_key: key.into(),
        new_owner: Some(person(subject)),
        validate_only: false,
    }
}

async fn owners(server: &TestServer) -> Vec<String> {
    let people = people(server).await.into_iter();
    people
        .filter_map(|(subject, role)| (role == Role::Owner).then_some(subject))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heir_owns_the_former_owner_keeps_no_role_and_tokens_live_on() {
    let server = TestServer::start().await;
    let issued = server.issue("before").await;
    let mut operator = server.operator().await;
    let request = transfer(&server.stack, "heir");
    let answer = operator.stacks.transfer_ownership(request).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.stack.unwrap().owner.unwrap().subject, "heir");
    assert!(!answer.revision.is_empty());
    assert_eq!(owners(&server).await, ["heir"]);
    let issue = issue_request(&server.stack, "after");
    let mut former = server.owner().await;
    ended(&former.tokens.issue(issue.clone()).await, NOT_FOUND);
    let mut heir = server.user("heir").await;
    ended(&heir.tokens.issue(issue).await, DONE);
    let answer = server.introspect(&issued.secret, &["entry.update"]).await;
    assert!(answer.active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_who_becomes_the_owner_has_one_role() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = transfer(&server.stack, "developer");
    operator.stacks.transfer_ownership(request).await.unwrap();
    let mut people = people(&server).await;
    people.sort_by(|one, other| one.0.cmp(&other.0));
    let all = [
        ("admin".to_owned(), Role::Admin),
        ("content-manager".to_owned(), Role::ContentManager),
        ("developer".to_owned(), Role::Owner),
    ];
    assert_eq!(people, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_transfer_the_new_owner_is_the_one_who_stays() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = transfer(&server.stack, "heir");
    operator.stacks.transfer_ownership(request).await.unwrap();
    let demote = set_member(&server.stack, "heir", Role::Developer);
    ended(&operator.stacks.set_member(demote).await, OWNER_REQUIRED);
    let welcome_back = set_member(&server.stack, "owner", Role::Admin);
    ended(&operator.stacks.set_member(welcome_back).await, DONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_to_the_owner_that_it_has_changes_nothing() {
    let server = TestServer::start().await;
    let before = seen(&server, &server.stack).await;
    server.clock.advance(Duration::from_secs(60));
    let mut operator = server.operator().await;
    let request = transfer(&server.stack, "owner");
    ended(&operator.stacks.transfer_ownership(request).await, DONE);
    assert_eq!(seen(&server, &server.stack).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_transfers_at_once_each_leaves_one_owner() {
    let server = TestServer::start().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let mut operator = server.operator().await;
        let request = transfer(&server.stack, &format!("heir-{n}"));
        calls.spawn(async move { operator.stacks.transfer_ownership(request).await });
    }
    for answered in calls.join_all().await {
        ended(&answered, DONE);
    }
    assert_eq!(owners(&server).await.len(), 1);
    assert_eq!(people(&server).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_is_not_transferred() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let request = transfer(&server.stack, "heir");
    ended(
        &operator.stacks.transfer_ownership(request).await,
        NOT_FOUND,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_transfer_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let empty = TransferOwnershipRequest::default();
    let status = operator.stacks.transfer_ownership(empty).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "new_owner"]);
    let wrong = TransferOwnershipRequest {
        stack_api_key: "blt".into(),
        new_owner: Some(nobody()),
        validate_only: false,
    };
    let status = operator.stacks.transfer_ownership(wrong).await.unwrap_err();
    let all = [
        "stack_api_key",
        "new_owner.issuer",
        "new_owner.subject",
        "new_owner.email",
    ];
    assert_eq!(fields(&status), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_in_the_audit_with_both_owners() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = transfer(&server.stack, "heir");
    operator.stacks.transfer_ownership(request).await.unwrap();
    let event = latest(&server, methods::TRANSFER_OWNERSHIP).await;
    let (before, after) = (event.before.as_ref(), event.after.as_ref());
    assert_eq!(stack_in(before).owner, Some(person("owner")));
    assert_eq!(stack_in(after).owner, Some(person("heir")));
    assert_eq!(event.details.len(), 0);
}
