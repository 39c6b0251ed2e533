use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::{ListRequest, ListResponse, RegisterRequest},
    v1::StackState,
};

use super::{register, remove, suspend};
use crate::support::{Client, TestServer, clients::fields};

async fn add(server: &TestServer, operator: &mut Client, name: &str, organization: &str) {
    server.clock.advance(Duration::from_secs(1));
    let request = RegisterRequest {
        organization_uid: organization.into(),
        ..register(name)
    };
    operator.stacks.register(request).await.unwrap();
}

async fn page(operator: &mut Client, size: i32, token: &str, organization: &str) -> ListResponse {
    let request = ListRequest {
        page_size: size,
        page_token: token.into(),
        organization_uid: organization.into(),
    };
    operator.stacks.list(request).await.unwrap().into_inner()
}

fn names(page: &ListResponse) -> Vec<&str> {
    page.stacks
        .iter()
        .map(|stack| stack.name.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_the_newest_first_and_stable_while_stacks_are_added() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    for name in ["A", "B", "C", "D"] {
        add(&server, &mut operator, name, "org-1").await;
    }
    let first = page(&mut operator, 2, "", "").await;
    assert_eq!(names(&first), ["D", "C"]);
    add(&server, &mut operator, "E", "org-1").await;
    let second = page(&mut operator, 2, &first.next_page_token, "").await;
    assert_eq!(names(&second), ["B", "A"]);
    let third = page(&mut operator, 2, &second.next_page_token, "").await;
    assert_eq!(names(&third), ["Test stack"]);
    assert_eq!(third.next_page_token, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stacks_of_one_instant_are_each_listed_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    for n in 0..5 {
        let name = format!("Stack {n}");
        operator.stacks.register(register(&name)).await.unwrap();
    }
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = page(&mut operator, 1, &token, "").await;
        found.extend(page.stacks.into_iter().map(|stack| stack.name));
        assert!(found.len() <= 6, "a stack is listed twice: {found:?}");
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    found.sort();
    let all = [
        "Stack 0",
        "Stack 1",
        "Stack 2",
        "Stack 3",
        "Stack 4",
        "Test stack",
    ];
    assert_eq!(found, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_organization_or_all_are_listed() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    add(&server, &mut operator, "Theirs", "org-2").await;
    add(&server, &mut operator, "Ours", "org-1").await;
    assert_eq!(
        names(&page(&mut operator, 0, "", "org-2").await),
        ["Theirs"]
    );
    assert_eq!(names(&page(&mut operator, 0, "", "org-3").await), [""; 0]);
    let all = ["Ours", "Theirs", "Test stack"];
    assert_eq!(names(&page(&mut operator, 0, "", "").await), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspended_and_removed_stacks_are_listed_as_such() {
    let server = TestServer::start().await;
    let removed = server.register("Removed").await;
    let mut operator = server.operator().await;
    operator
        .stacks
        .suspend(suspend(&server.stack))
        .await
        .unwrap();
    operator.stacks.remove(remove(&removed)).await.unwrap();
    let listed = page(&mut operator, 0, "", "").await.stacks;
    for stack in listed {
        let expected = match stack.stack_api_key == removed {
            true => StackState::Removed,
            false => StackState::Suspended,
        };
        assert_eq!(stack.state(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_question_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    for page_size in [-1, i32::MIN] {
        let request = ListRequest {
            page_size,
            page_token: "junk".into(),
            organization_uid: "a b".into(),
        };
        let status = operator.stacks.list(request).await.unwrap_err();
        let all = ["page_size", "organization_uid", "page_token"];
        assert_eq!(fields(&status), all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_of_other_filters_is_refused() {
    let server = TestServer::start().await;
    server.register("Another").await;
    let mut operator = server.operator().await;
    let first = page(&mut operator, 1, "", "").await;
    let request = ListRequest {
        page_token: first.next_page_token,
        organization_uid: "org-1".into(),
        ..Default::default()
    };
    let status = operator.stacks.list(request).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
}
