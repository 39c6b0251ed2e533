use stacktoken::grpc::pb::{
    admin::v1::RemoveMemberRequest,
    v1::{GetRequest, Role},
};

use super::{DONE, NOT_FOUND, OWNER_REQUIRED, ended, latest, member_in, nobody, people, remove};
use crate::support::{TestServer, clients::fields, issue_request, methods, person};

fn remove_member(key: &str, subject: &str) -> RemoveMemberRequest {
    RemoveMemberRequest {
        stack_api_key: key.into(),
        member: Some(person(subject)),
        validate_only: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_outlive_the_member_who_issued_them() {
    let server = TestServer::start().await;
    let mut admin = server.admin().await;
    let request = issue_request(&server.stack, "by the admin");
    let issued = admin.tokens.issue(request).await.unwrap().into_inner();
    let mut operator = server.operator().await;
    let request = remove_member(&server.stack, "admin");
    let answer = operator.stacks.remove_member(request).await.unwrap();
    assert!(!answer.into_inner().revision.is_empty());
    // A removed member has no access from the next call on.
    let again = issue_request(&server.stack, "again");
    ended(&admin.tokens.issue(again).await, NOT_FOUND);
    let answer = server.introspect(&issued.secret, &["entry.update"]).await;
    assert!(answer.active);
    let get = GetRequest {
        stack_api_key: server.stack.clone(),
        token_uid: issued.token.unwrap().token_uid,
    };
    let mut owner = server.owner().await;
    let token = owner.tokens.get(get).await.unwrap().into_inner().token;
    assert_eq!(token.unwrap().issued_by.unwrap().subject, "admin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_somebody_who_is_not_there_is_fine() {
    let server = TestServer::start().await;
    let before = people(&server).await;
    let mut operator = server.operator().await;
    let request = remove_member(&server.stack, "stranger");
    ended(&operator.stacks.remove_member(request).await, DONE);
    assert_eq!(people(&server).await, before);
    for _ in 0..2 {
        let request = remove_member(&server.stack, "developer");
        ended(&operator.stacks.remove_member(request).await, DONE);
    }
    assert_eq!(people(&server).await.len(), before.len() - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_cannot_be_removed() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = remove_member(&server.stack, "owner");
    ended(
        &operator.stacks.remove_member(request).await,
        OWNER_REQUIRED,
    );
    let owner = ("owner".to_owned(), Role::Owner);
    assert!(people(&server).await.contains(&owner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_stack_has_no_members_to_remove() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    let request = remove_member(&server.stack, "developer");
    ended(&operator.stacks.remove_member(request).await, NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_removal_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let empty = RemoveMemberRequest::default();
    let status = operator.stacks.remove_member(empty).await.unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "member"]);
    let wrong = RemoveMemberRequest {
        stack_api_key: "blt".into(),
        member: Some(nobody()),
        validate_only: false,
    };
    let status = operator.stacks.remove_member(wrong).await.unwrap_err();
    let all = [
        "stack_api_key",
        "member.issuer",
        "member.subject",
        "member.email",
    ];
    assert_eq!(fields(&status), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_is_in_the_audit() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = remove_member(&server.stack, "developer");
    operator.stacks.remove_member(request).await.unwrap();
    let event = latest(&server, methods::REMOVE_MEMBER).await;
    let before = member_in(event.before.as_ref());
    assert_eq!(before, ("developer", Role::Developer));
    assert_eq!((event.after.as_ref(), event.details.len()), (None, 0));
}
