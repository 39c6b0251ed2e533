mod everywhere;
mod filters;

use std::{collections::BTreeSet, time::Duration};

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1::{self, TokenOrder, TokenState};

use crate::support::{
    Client, ISSUER, TestServer, at,
    clients::fields,
    clock::START,
    requests::{list_request, outcome, revoke_request},
};

async fn list(client: &mut Client, request: v1::ListRequest) -> v1::ListResponse {
    client.tokens.list(request).await.unwrap().into_inner()
}

fn names(page: &v1::ListResponse) -> Vec<&str> {
    page.tokens
        .iter()
        .map(|token| token.name.as_str())
        .collect()
}

/// Returns the names on all pages of a request, in the page size of the request.
async fn all_pages(client: &mut Client, mut request: v1::ListRequest) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..100 {
        let page = list(client, request.clone()).await;
        assert!(page.tokens.len() <= usize::try_from(request.page_size).unwrap());
        seen.extend(names(&page).into_iter().map(str::to_owned));
        if page.next_page_token.is_empty() {
            return seen;
        }
        request.page_token = page.next_page_token;
    }
    panic!("the list never ends: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_tokens_stay_listed_with_what_became_of_them_and_never_count() {
    let server = TestServer::start().await;
    server.token("alive").await;
    let revoked = server.token("revoked").await;
    server.token_until("expired", at(START + 60)).await;
    server.clock.advance(Duration::from_secs(30));
    let request = revoke_request(&server.stack, &revoked.uid, "leaked on a forum");
    server.admin().await.tokens.revoke(request).await.unwrap();
    server.clock.advance(Duration::from_secs(300 * 86_400));
    let request = v1::ListRequest {
        order: TokenOrder::Name.into(),
        ..list_request(&server.stack)
    };
    let page = list(&mut server.owner().await, request).await;
    let states: Vec<_> = page.tokens.iter().map(v1::Token::state).collect();
    assert_eq!(names(&page), ["alive", "expired", "revoked"]);
    assert_eq!(
        states,
        [TokenState::Active, TokenState::Expired, TokenState::Revoked]
    );
    assert_eq!(page.limit.unwrap(), v1::TokenLimit { used: 1, max: 10 });
    let expired = &page.tokens[1];
    assert_eq!(expired.expires_at.unwrap().seconds, START + 60);
    let revoked = &page.tokens[2];
    assert_eq!(revoked.revoked_at.unwrap().seconds, START + 30);
    assert_eq!(revoked.revoke_reason, "leaked on a forum");
    let by = revoked.revoked_by.clone().unwrap();
    assert_eq!((by.issuer.as_str(), by.subject.as_str()), (ISSUER, "admin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_dead_tokens_leave_room_for_ten_live_ones() {
    let server = TestServer::start().await;
    for n in 0..100 {
        let token = server.token(&format!("dead {n}")).await;
        server.revoke(&token.uid).await;
    }
    for n in 0..10 {
        server.token(&format!("live {n}")).await;
    }
    assert_eq!(server.limit().await, (10, 10));
}

/// Issues tokens whose orders by instant of issue, by expiry and by name all differ.
async fn in_disorder(server: &TestServer) {
    server.set_limit(100).await;
    for (name, ends_in) in [
        ("b", Some(300)),
        ("é", None),
        ("Z", Some(100)),
        ("a", None),
        ("B", Some(200)),
    ] {
        match ends_in {
            Some(seconds) => server.token_until(name, at(START + seconds)).await,
            None => server.token(name).await,
        };
        server.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_is_kept_over_pages_of_any_size() {
    let server = TestServer::start().await;
    in_disorder(&server).await;
    let mut owner = server.owner().await;
    for (order, expected) in [
        (TokenOrder::Unspecified, ["B", "a", "Z", "é", "b"]),
        (TokenOrder::NewestFirst, ["B", "a", "Z", "é", "b"]),
        (TokenOrder::OldestFirst, ["b", "é", "Z", "a", "B"]),
        (TokenOrder::ExpiresFirst, ["Z", "B", "b", "é", "a"]),
        (TokenOrder::Name, ["B", "Z", "a", "b", "é"]),
    ] {
        for page_size in 1..=6 {
            let request = v1::ListRequest {
                page_size,
                order: order.into(),
                ..list_request(&server.stack)
            };
            let seen = all_pages(&mut owner, request).await;
            assert_eq!(seen, expected, "{order:?} by {page_size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ties_are_broken_by_the_id_so_that_no_token_is_lost_or_seen_twice() {
    let server = TestServer::start().await;
    server.set_limit(100).await;
    for n in 0..20 {
        // All tokens have the same instant of issue and the same expiry.
        server.token_until(&format!("{n}"), at(START + 60)).await;
    }
    let mut owner = server.owner().await;
    for order in [
        TokenOrder::NewestFirst,
        TokenOrder::OldestFirst,
        TokenOrder::ExpiresFirst,
        TokenOrder::Name,
    ] {
        let request = v1::ListRequest {
            page_size: 3,
            order: order.into(),
            ..list_request(&server.stack)
        };
        let seen = all_pages(&mut owner, request).await;
        let distinct: BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (20, 20), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_stable_while_tokens_come_and_go() {
    let server = TestServer::start().await;
    server.set_limit(100).await;
    let mut issued = Vec::new();
    for n in 0..9 {
        issued.push(server.token(&format!("{n}")).await);
        server.clock.advance(Duration::from_secs(1));
    }
    let mut owner = server.owner().await;
    let request = v1::ListRequest {
        page_size: 3,
        states: vec![TokenState::Active.into()],
        ..list_request(&server.stack)
    };
    let first = list(&mut owner, request.clone()).await;
    assert_eq!(names(&first), ["8", "7", "6"]);
    // Revoke the first and the last token of this page and one of the next; then issue two.
    for gone in [8, 6, 4] {
        server.revoke(&issued[gone].uid).await;
    }
    for name in ["new", "newer"] {
        server.token(name).await;
    }
    let rest = v1::ListRequest {
        page_token: first.next_page_token,
        ..request
    };
    assert_eq!(all_pages(&mut owner, rest).await, ["5", "3", "2", "1", "0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_belongs_to_its_question() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c"] {
        server.token(name).await;
    }
    let other = server.register("Other").await;
    let mut owner = server.owner().await;
    let asked = v1::ListRequest {
        page_size: 1,
        ..list_request(&server.stack)
    };
    let page = list(&mut owner, asked.clone()).await;
    let next = v1::ListRequest {
        page_token: page.next_page_token.clone(),
        ..asked
    };
    assert_eq!(outcome(&owner.tokens.list(next.clone()).await), "OK");
    let larger = v1::ListRequest {
        page_size: 2,
        ..next.clone()
    };
    assert_eq!(
        list(&mut owner, larger).await.tokens.len(),
        2,
        "the page size may change"
    );
    let instant = Timestamp {
        seconds: START,
        nanos: 0,
    };
    let flip = |at: usize| {
        let mut text = next.page_token.clone().into_bytes();
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(text).unwrap()
    };
    for wrong in [
        v1::ListRequest {
            stack_api_key: other,
            ..next.clone()
        },
        v1::ListRequest {
            order: TokenOrder::Name.into(),
            ..next.clone()
        },
        v1::ListRequest {
            states: vec![TokenState::Active.into()],
            ..next.clone()
        },
        v1::ListRequest {
            expires_before: Some(instant),
            ..next.clone()
        },
        v1::ListRequest {
            name_contains: "a".into(),
            ..next.clone()
        },
        v1::ListRequest {
            name: "a".into(),
            ..next.clone()
        },
        v1::ListRequest {
            issued_by: Some(v1::Actor {
                kind: 0,
                issuer: ISSUER.into(),
                subject: "owner".into(),
            }),
            ..next.clone()
        },
        v1::ListRequest {
            access: v1::Access::ReadWrite.into(),
            ..next.clone()
        },
        v1::ListRequest {
            issued_from: Some(instant),
            ..next.clone()
        },
        v1::ListRequest {
            issued_before: Some(instant),
            ..next.clone()
        },
        v1::ListRequest {
            expires_from: Some(instant),
            ..next.clone()
        },
        v1::ListRequest {
            unused_since: Some(instant),
            ..next.clone()
        },
        v1::ListRequest {
            page_token: "junk".into(),
            ..next.clone()
        },
        v1::ListRequest {
            page_token: format!("{}x", next.page_token),
            ..next.clone()
        },
        v1::ListRequest {
            page_token: next.page_token[1..].into(),
            ..next.clone()
        },
        v1::ListRequest {
            page_token: flip(10),
            ..next.clone()
        },
    ] {
        let status = owner.tokens.list(wrong.clone()).await.unwrap_err();
        assert_eq!(fields(&status), ["page_token"], "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_page_token_is_reported_beside_other_faults_and_a_right_one_is_not() {
    let server = TestServer::start().await;
    server.token("one").await;
    server.token("two").await;
    let mut owner = server.owner().await;
    let asked = v1::ListRequest {
        stack_api_key: server.stack.clone(),
        page_size: 1,
        ..Default::default()
    };
    let right = owner.tokens.list(asked.clone()).await.unwrap();
    let right = right.into_inner().next_page_token;
    for (page_token, is_wrong) in [("junk", true), (&right[1..], true), (&right, false)] {
        let with_others = v1::ListRequest {
            page_size: -1,
            states: vec![99],
            page_token: page_token.to_owned(),
            ..asked.clone()
        };
        let status = owner.tokens.list(with_others).await.unwrap_err();
        let mut expected = vec!["page_size", "states[0]"];
        expected.extend(is_wrong.then_some("page_token"));
        assert_eq!(fields(&status), expected, "{page_token}");
        let preview = v1::RevokeAllRequest {
            stack_api_key: server.stack.clone(),
            validate_only: true,
            page_size: -1,
            page_token: page_token.to_owned(),
            reason: "moved".into(),
            ..Default::default()
        };
        let status = owner.tokens.revoke_all(preview).await.unwrap_err();
        let mut expected = vec!["filter", "page_size"];
        expected.extend(is_wrong.then_some("page_token"));
        assert_eq!(fields(&status), expected, "{page_token}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_has_fifty_tokens_by_default_and_a_hundred_at_most() {
    let server = TestServer::start().await;
    server.set_limit(110).await;
    for n in 0..101 {
        server.token(&format!("{n}")).await;
    }
    let mut owner = server.owner().await;
    for (page_size, expected) in [(0, 50), (1, 1), (99, 99), (100, 100), (101, 100)] {
        let request = v1::ListRequest {
            page_size,
            ..list_request(&server.stack)
        };
        let page = list(&mut owner, request).await;
        assert_eq!(page.tokens.len(), expected);
        assert!(!page.next_page_token.is_empty());
        assert_eq!(page.limit.unwrap().used, 101, "the count is of all pages");
    }
}
