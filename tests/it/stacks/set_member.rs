use std::time::Duration;

use stacktoken::grpc::pb::{admin::v1::SetMemberRequest, v1::Role};

use super::{
    DONE, NOT_FOUND, OWNER_REQUIRED, UNKNOWN, WRONG_ROLE, ended, latest, member_in, members,
    nobody, people, remove, set_member,
};
use crate::support::{TestServer, clients::fields, issue_request, methods};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_holds_from_the_next_call_on() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let mut newcomer = server.user("newcomer").await;
    let mut issue = async |name: &str| {
        newcomer
            .tokens
            .issue(issue_request(&server.stack, name))
            .await
    };
    ended(&issue("a").await, NOT_FOUND);
    for (role, expected) in [
        (Role::Developer, WRONG_ROLE),
        (Role::Admin, DONE),
        (Role::ContentManager, WRONG_ROLE),
    ] {
        let request = set_member(&server.stack, "newcomer", role);
        let answer = operator
            .stacks
            .set_member(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.member.unwrap().role(), role);
        assert!(!answer.revision.is_empty());
        ended(&issue(role.as_str_name()).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_of_another_issuer_is_another_person() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let mut request = set_member(&server.stack, "stranger", Role::Admin);
    request.member.as_mut().unwrap().issuer = "https://else.test".into();
    operator.stacks.set_member(request).await.unwrap();
    let mut stranger = server.stranger().await;
    let issued = stranger
        .tokens
        .issue(issue_request(&server.stack, "a"))
        .await;
    ended(&issued, NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_role_changes_was_added_when_they_were_added() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let added_at = server.clock.seconds();
    server.clock.advance(Duration::from_secs(60));
    let request = set_member(&server.stack, "developer", Role::Admin);
    let answer = operator
        .stacks
        .set_member(request)
        .await
        .unwrap()
        .into_inner();
    let answered = answer.member.unwrap();
    assert_eq!(answered.added_at.unwrap().seconds, added_at);
    let members = members(&server).await;
    assert!(members.contains(&answered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_cannot_be_demoted_and_nobody_else_be_made_owner() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let demote = set_member(&server.stack, "owner", Role::Admin);
    ended(&operator.stacks.set_member(demote).await, OWNER_REQUIRED);
    let promote = set_member(&server.stack, "admin", Role::Owner);
    let status = operator.stacks.set_member(promote).await.unwrap_err();
    assert_eq!(fields(&status), ["role"]);
    let people = people(&server).await;
    assert!(people.contains(&("owner".to_owned(), Role::Owner)));
    assert!(people.contains(&("admin".to_owned(), Role::Admin)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_takes_no_members() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    for key in [server.stack.as_str(), UNKNOWN] {
        let request = set_member(key, "newcomer", Role::Admin);
        ended(&operator.stacks.set_member(request).await, NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_member_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let empty = SetMemberRequest::default();
    let status = operator.stacks.set_member(empty).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "member", "role"]);
    let wrong = SetMemberRequest {
        stack_api_key: "blt".into(),
        member: Some(nobody()),
        role: 99,
        validate_only: false,
    };
    let status = operator.stacks.set_member(wrong).await.unwrap_err();
    let all = [
        "stack_api_key",
        "member.issuer",
        "member.subject",
        "member.email",
        "role",
    ];
    assert_eq!(fields(&status), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_role_is_in_the_audit_without_an_address() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let mut request = set_member(&server.stack, "newcomer", Role::ContentManager);
    request.member.as_mut().unwrap().email = "newcomer@example.com".into();
    // Audit rows with the same instant have no defined order, and the setup has just set members.
    // So the clock advances first.
    server.clock.advance(Duration::from_secs(1));
    operator.stacks.set_member(request).await.unwrap();
    let event = latest(&server, methods::SET_MEMBER).await;
    let after = member_in(event.after.as_ref());
    assert_eq!(after, ("newcomer", Role::ContentManager));
    assert_eq!(event.details.len(), 0);
}
