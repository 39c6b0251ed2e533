//! Tests how operators list the tokens of all stacks with `List`.

use std::{collections::BTreeSet, time::Duration};

use stacktoken::grpc::pb::v1::{self, TokenOrder};
use tonic::Code;

use super::{all_pages, list, names};
use crate::support::{
    TestServer,
    clients::{fields, reason},
    issue_request,
    requests::{issued_by, list_request},
};

/// Starts a server with tokens in two stacks. Returns the server and the key of the second stack.
async fn two_stacks() -> (TestServer, String) {
    let server = TestServer::start().await;
    let other = server.register("Other").await;
    let mut owner = server.owner().await;
    for (stack, name) in [
        (&server.stack, "first"),
        (&other, "second"),
        (&server.stack, "third"),
        (&other, "fourth"),
        (&other, "fifth"),
    ] {
        let request = issue_request(stack, name);
        owner.tokens.issue(request).await.unwrap();
        server.clock.advance(Duration::from_secs(1));
    }
    (server, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lists_the_tokens_of_all_stacks_in_pages() {
    let (server, other) = two_stacks().await;
    let mut operator = server.operator().await;
    let newest = ["fifth", "fourth", "third", "second", "first"];
    let mut oldest = newest;
    oldest.reverse();
    for (order, expected) in [
        (TokenOrder::Unspecified, newest),
        (TokenOrder::NewestFirst, newest),
        (TokenOrder::OldestFirst, oldest),
    ] {
        for page_size in [1, 2, 5, 50] {
            let request = v1::ListRequest {
                page_size,
                order: order.into(),
                ..list_request("")
            };
            assert_eq!(all_pages(&mut operator, request).await, expected);
        }
    }
    let page = list(&mut operator, list_request("")).await;
    assert_eq!(page.limit, None, "only a list of one stack has a limit");
    let stacks = page.tokens.iter().map(|token| token.stack_api_key.as_str());
    let stacks: Vec<_> = stacks.collect();
    assert_eq!(
        stacks,
        [&other, &other, &server.stack, &other, &server.stack]
    );
    for token in &page.tokens {
        let of_stack = list(&mut operator, list_request(&token.stack_api_key)).await;
        assert!(
            of_stack.tokens.contains(token),
            "the token equals that in the list of its stack"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_hold_over_all_stacks_too() {
    let (server, other) = two_stacks().await;
    let mut operator = server.operator().await;
    let all = list(&mut operator, list_request("")).await;
    let hint = all.tokens[1].secrets[0].hint.clone();
    let table: [(v1::ListRequest, &[&str]); 4] = [
        (
            v1::ListRequest {
                secret_hint: hint,
                ..list_request("")
            },
            &["fourth"],
        ),
        (
            v1::ListRequest {
                name_contains: "ir".into(),
                ..list_request("")
            },
            &["third", "first"],
        ),
        (
            v1::ListRequest {
                issued_by: issued_by("owner", v1::CallerKind::User).issued_by,
                ..list_request("")
            },
            &["fifth", "fourth", "third", "second", "first"],
        ),
        (
            v1::ListRequest {
                issued_by: issued_by("admin", v1::CallerKind::User).issued_by,
                ..list_request("")
            },
            &[],
        ),
    ];
    for (request, expected) in table {
        let page = list(&mut operator, request.clone()).await;
        assert_eq!(names(&page), expected, "{request:?}");
    }
    server.remove().await;
    let page = list(&mut operator, list_request("")).await;
    assert_eq!(names(&page), ["fifth", "fourth", "second"]);
    let stacks: BTreeSet<_> = page
        .tokens
        .iter()
        .map(|token| &token.stack_api_key)
        .collect();
    assert_eq!(
        stacks,
        [&other].into(),
        "tokens of a removed stack are left out"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_list_all_stacks_and_only_by_the_instant_of_issue() {
    let (server, _) = two_stacks().await;
    for mut client in [server.owner().await, server.stranger().await] {
        let refused = client.tokens.list(list_request("")).await.unwrap_err();
        assert_eq!(fields(&refused), ["stack_api_key"]);
    }
    let mut service = server.service().await;
    let refused = service.tokens.list(list_request("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason(&refused), "ROLE_REQUIRED");
    let mut operator = server.operator().await;
    for order in [TokenOrder::ExpiresFirst, TokenOrder::Name] {
        let request = v1::ListRequest {
            order: order.into(),
            ..list_request("")
        };
        let refused = operator.tokens.list(request).await.unwrap_err();
        assert_eq!(fields(&refused), ["order"], "{order:?}");
        let request = v1::ListRequest {
            order: order.into(),
            ..list_request(&server.stack)
        };
        operator.tokens.list(request).await.unwrap();
    }
    let first = v1::ListRequest {
        page_size: 1,
        ..list_request("")
    };
    let page = list(&mut operator, first).await;
    let elsewhere = v1::ListRequest {
        page_token: page.next_page_token,
        ..list_request(&server.stack)
    };
    let refused = operator.tokens.list(elsewhere).await.unwrap_err();
    assert_eq!(
        fields(&refused),
        ["page_token"],
        "a page token of another request"
    );
}
