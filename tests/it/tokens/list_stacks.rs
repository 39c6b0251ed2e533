//! Tests `ListStacks`, which returns the stacks in which the caller has a role.

use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::{RemoveMemberRequest, RemoveRequest, SetMemberRequest, TransferOwnershipRequest},
    v1::{ListStacksRequest, ListStacksResponse, OwnStack, Role, StackState},
};
use tonic::Code;

use crate::support::{Client, TestServer, clients::fields, person, raw::outcome};

async fn page(client: &mut Client, size: i32, token: &str) -> ListStacksResponse {
    let request = ListStacksRequest {
        page_size: size,
        page_token: token.into(),
    };
    let answer = client.tokens.list_stacks(request).await;
    answer.unwrap().into_inner()
}

/// Returns the stacks on all pages, requested with this page size.
async fn pages(client: &mut Client, size: i32) -> Vec<OwnStack> {
    let (mut stacks, mut token) = (Vec::new(), String::new());
    loop {
        let page = page(client, size, &token).await;
        assert!(page.stacks.len() <= usize::try_from(size).unwrap());
        stacks.extend(page.stacks);
        token = page.next_page_token;
        if token.is_empty() {
            return stacks;
        }
    }
}

async fn roles(client: &mut Client) -> Vec<(String, Role)> {
    let stacks = pages(client, 100).await.into_iter();
    let told = stacks.map(|stack| (stack.stack_api_key.clone(), stack.role()));
    told.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_sees_own_stacks_with_the_role_in_each_and_a_stranger_none() {
    let server = TestServer::start().await;
    server.clock.advance(Duration::from_secs(1));
    let second = server.register("Second").await;
    let mut operator = server.operator().await;
    for (mut client, role) in [
        (server.owner().await, Role::Owner),
        (server.admin().await, Role::Admin),
        (server.developer().await, Role::Developer),
        (server.content_manager().await, Role::ContentManager),
    ] {
        let own = [(second.clone(), role), (server.stack.clone(), role)];
        assert_eq!(roles(&mut client).await, own);
    }
    assert_eq!(roles(&mut server.stranger().await).await, []);
    assert_eq!(
        roles(&mut operator).await,
        [],
        "an operator is not a member"
    );
    // One caller is a user with a role in one of two stacks; the other is an operator who is a
    // member of one.
    for subject in ["stranger", "operator"] {
        let join = SetMemberRequest {
            stack_api_key: second.clone(),
            member: Some(person(subject)),
            role: Role::Developer.into(),
            validate_only: false,
        };
        operator.stacks.set_member(join).await.unwrap();
    }
    let own = [(second.clone(), Role::Developer)];
    assert_eq!(roles(&mut server.stranger().await).await, own);
    assert_eq!(roles(&mut operator).await, own);
    let leave = RemoveMemberRequest {
        stack_api_key: second.clone(),
        member: Some(person("stranger")),
        validate_only: false,
    };
    operator.stacks.remove_member(leave).await.unwrap();
    assert_eq!(roles(&mut server.stranger().await).await, []);
    let hand_over = TransferOwnershipRequest {
        stack_api_key: second.clone(),
        new_owner: Some(person("admin")),
        validate_only: false,
    };
    operator.stacks.transfer_ownership(hand_over).await.unwrap();
    let own = [(second, Role::Owner), (server.stack.clone(), Role::Admin)];
    assert_eq!(roles(&mut server.admin().await).await, own);
    let own = [(server.stack.clone(), Role::Owner)];
    assert_eq!(roles(&mut server.owner().await).await, own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_stack_is_shown_as_such_and_a_removed_one_not_at_all() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let seen = pages(&mut owner, 1).await;
    let wanted = OwnStack {
        stack_api_key: server.stack.clone(),
        name: "Test stack".into(),
        organization_uid: "org-1".into(),
        state: StackState::Active.into(),
        role: Role::Owner.into(),
    };
    assert_eq!(seen, std::slice::from_ref(&wanted));
    server.suspend().await;
    let suspended = OwnStack {
        state: StackState::Suspended.into(),
        ..wanted
    };
    assert_eq!(pages(&mut owner, 1).await, [suspended]);
    let remove = RemoveRequest {
        stack_api_key: server.stack.clone(),
        ..Default::default()
    };
    server.operator().await.stacks.remove(remove).await.unwrap();
    assert_eq!(pages(&mut owner, 1).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_have_every_own_stack_once_newest_first() {
    let server = TestServer::start().await;
    // Two stacks are registered at each instant, so only the id determines their order.
    for n in 0..6 {
        if n % 2 == 0 {
            server.clock.advance(Duration::from_secs(1));
        }
        server.register(&format!("Stack {n}")).await;
    }
    let mut owner = server.owner().await;
    let all = pages(&mut owner, 100).await;
    assert_eq!(all.len(), 7);
    assert_eq!(all[6].name, "Test stack");
    for size in 1..=8 {
        assert_eq!(pages(&mut owner, size).await, all, "{size}");
    }
    let first = page(&mut owner, 3, "").await;
    server.clock.advance(Duration::from_secs(1));
    server.register("Later").await;
    let rest = page(&mut owner, 100, &first.next_page_token).await;
    assert_eq!(rest.stacks, all[3..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_have_no_stacks_and_every_fault_is_named() {
    let server = TestServer::start().await;
    for mut client in [server.service().await, server.service_without_role().await] {
        let refused = client
            .tokens
            .list_stacks(ListStacksRequest::default())
            .await;
        let wanted = (Code::PermissionDenied, "ROLE_REQUIRED".to_owned());
        assert_eq!(outcome(&refused), wanted);
    }
    let wrong = ListStacksRequest {
        page_size: -1,
        page_token: "junk".into(),
    };
    let status = server.owner().await.tokens.list_stacks(wrong).await;
    assert_eq!(fields(&status.unwrap_err()), ["page_size", "page_token"]);
}
