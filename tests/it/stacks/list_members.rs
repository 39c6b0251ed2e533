use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::{ListMembersRequest, ListMembersResponse, Member, RemoveMemberRequest},
    v1::Role,
};

use super::{NOT_FOUND, UNKNOWN, WRONG_ROLE, ended, people, remove, set_member};
use crate::support::{Client, TestServer, clients::fields, person};

fn list(key: &str) -> ListMembersRequest {
    ListMembersRequest {
        stack_api_key: key.into(),
        ..Default::default()
    }
}

async fn page(client: &mut Client, key: &str, size: i32, token: &str) -> ListMembersResponse {
    let request = ListMembersRequest {
        page_size: size,
        page_token: token.into(),
        ..list(key)
    };
    let answer = client.stacks.list_members(request).await;
    answer.unwrap().into_inner()
}

/// Returns the members on all pages, requested with this page size.
async fn pages(client: &mut Client, key: &str, size: i32) -> Vec<Member> {
    let (mut members, mut token) = (Vec::new(), String::new());
    loop {
        let page = page(client, key, size, &token).await;
        assert!(page.members.len() <= usize::try_from(size).unwrap());
        members.extend(page.members);
        token = page.next_page_token;
        if token.is_empty() {
            return members;
        }
    }
}

fn subjects(members: &[Member]) -> Vec<&str> {
    members
        .iter()
        .map(|member| member.person.as_ref().unwrap().subject.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_in_the_order_they_were_added() {
    let server = TestServer::start().await;
    let first = people(&server).await;
    assert_eq!(first.len(), 4);
    assert!(first.contains(&("owner".to_owned(), Role::Owner)));
    let mut operator = server.operator().await;
    for name in ["z-late", "a-later"] {
        server.clock.advance(Duration::from_secs(1));
        let request = set_member(&server.stack, name, Role::Admin);
        operator.stacks.set_member(request).await.unwrap();
    }
    let people = people(&server).await;
    assert_eq!(people[..4], first);
    let late = |name: &str| (name.to_owned(), Role::Admin);
    assert_eq!(people[4..], [late("z-late"), late("a-later")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_have_every_member_once_and_stay_stable() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    // Some members were added at the same instant, so only the issuer and the subject determine
    // their order.
    for n in 0..7 {
        if n % 3 == 0 {
            server.clock.advance(Duration::from_secs(1));
        }
        let request = set_member(&server.stack, &format!("person {n}"), Role::Developer);
        operator.stacks.set_member(request).await.unwrap();
    }
    let all = pages(&mut operator, &server.stack, 100).await;
    assert_eq!(all.len(), 11);
    for size in 1..=12 {
        let seen = pages(&mut operator, &server.stack, size).await;
        assert_eq!(seen, all, "{size}");
    }
    // Members that are added or removed between two pages do not shift the others.
    let begun = page(&mut operator, &server.stack, 5, "").await;
    let leaves = begun.members[4].person.clone();
    let gone = RemoveMemberRequest {
        stack_api_key: server.stack.clone(),
        member: leaves,
        validate_only: false,
    };
    operator.stacks.remove_member(gone).await.unwrap();
    server.clock.advance(Duration::from_secs(1));
    let joins = set_member(&server.stack, "a newcomer", Role::Developer);
    operator.stacks.set_member(joins).await.unwrap();
    let rest = page(&mut operator, &server.stack, 100, &begun.next_page_token).await;
    let mut wanted = subjects(&all[5..]);
    wanted.push("a newcomer");
    assert_eq!(subjects(&rest.members), wanted);
    assert_eq!(rest.next_page_token, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_owner_admin_and_operator_list_members() {
    let server = TestServer::start().await;
    let all = pages(&mut server.operator().await, &server.stack, 100).await;
    for mut client in [server.owner().await, server.admin().await] {
        assert_eq!(pages(&mut client, &server.stack, 2).await, all);
    }
    let mut developer = server.developer().await;
    let refused = developer.stacks.list_members(list(&server.stack)).await;
    ended(&refused, WRONG_ROLE);
    let mut stranger = server.stranger().await;
    for key in [server.stack.as_str(), UNKNOWN] {
        ended(&stranger.stacks.list_members(list(key)).await, NOT_FOUND);
    }
    let mut operator = server.operator().await;
    operator.stacks.remove(remove(&server.stack)).await.unwrap();
    assert_eq!(pages(&mut operator, &server.stack, 3).await, all);
    let mut owner = server.owner().await;
    ended(
        &owner.stacks.list_members(list(&server.stack)).await,
        NOT_FOUND,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_question_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let wrong = ListMembersRequest {
        stack_api_key: "blt".into(),
        page_size: -1,
        page_token: "junk".into(),
    };
    let status = operator.stacks.list_members(wrong).await.unwrap_err();
    let all = ["stack_api_key", "page_size", "page_token"];
    assert_eq!(fields(&status), all);
    // A page token is valid for one stack only.
    let other = server.register("Other").await;
    let first = page(&mut operator, &server.stack, 1, "").await;
    let request = ListMembersRequest {
        page_token: first.next_page_token,
        ..list(&other)
    };
    let status = operator.stacks.list_members(request).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
    assert_eq!(first.members[0].person, Some(person("admin")));
}
