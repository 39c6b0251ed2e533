//! Tests labels: their limits, how they are changed, and how tokens are found by them.

use std::{collections::BTreeMap, time::Duration};

use stacktoken::grpc::pb::{
    audit::v1::{AuditState, audit_state::State},
    v1,
};

use crate::support::{
    Client, TestServer,
    clients::fields,
    issue_request,
    requests::{list_request, outcome, refused, rename_request, update_request},
};

pub type Labels = BTreeMap<String, String>;

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn issue(client: &mut Client, stack: &str, name: &str, labels: &Labels) -> v1::Token {
    let request = v1::IssueRequest {
        labels: labels.clone(),
        ..issue_request(stack, name)
    };
    let issued = client.tokens.issue(request).await.unwrap();
    issued.into_inner().token.unwrap()
}

fn relabel_request(stack: &str, uid: &str, labels: &Labels) -> v1::UpdateRequest {
    let token = v1::Token {
        labels: labels.clone(),
        ..Default::default()
    };
    update_request(stack, uid, &["labels"], token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_kept_shown_and_replaced_as_a_whole() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let first = labels(&[("team", "shop"), ("env", "")]);
    let token = issue(&mut owner, &server.stack, "deploy", &first).await;
    assert_eq!(token.labels, first);
    let uid = token.token_uid.as_str();
    assert_eq!(server.see(uid).await.labels, first);
    let rename = rename_request(&server.stack, uid, "renamed");
    owner.tokens.update(rename).await.unwrap();
    assert_eq!(server.see(uid).await.labels, first, "not in the mask");
    let longest = "é".repeat(63);
    let most: Labels = (0..16)
        .map(|n| (format!("{}{n:02}", "k".repeat(61)), longest.clone()))
        .collect();
    for next in [labels(&[("team", "search")]), most, Labels::new()] {
        let request = relabel_request(&server.stack, uid, &next);
        let preview = v1::UpdateRequest {
            validate_only: true,
            ..request.clone()
        };
        let before = server.see(uid).await;
        let shown = owner.tokens.update(preview).await.unwrap().into_inner();
        assert_eq!(shown.token.unwrap().labels, next);
        assert_eq!(server.see(uid).await, before, "a preview changes nothing");
        let changed = owner.tokens.update(request).await.unwrap().into_inner();
        assert_eq!(changed.token.unwrap().labels, next);
        let seen = server.see(uid).await;
        assert_eq!(seen.labels, next);
        let expected = v1::Token {
            labels: next,
            etag: seen.etag.clone(),
            ..before.clone()
        };
        assert_ne!(before.etag, seen.etag);
        assert_eq!(seen, expected, "only the labels change");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_out_of_range_are_each_named_at_once() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut owner = server.owner().await;
    let many: Labels = (0..17).map(|n| (format!("k{n}"), String::new())).collect();
    let (long, longer) = ("x".repeat(64), "é".repeat(64));
    let table = [
        (many, vec!["labels"]),
        (
            labels(&[
                ("", "x"),
                ("Team", "x"),
                ("a b", "\u{7}"),
                ("cafe\u{301}", "x"),
                (&long, "x"),
                ("p", "\u{202e}x"),
                ("q", &long),
                ("r", &longer),
                ("s", " x"),
                ("t", "a\nb"),
                ("u", "fine"),
            ]),
            vec![
                "labels[\"\"]",
                "labels[\"Team\"]",
                "labels[\"a b\"]",
                "labels[\"a b\"]",
                "labels[\"cafe\u{301}\"]",
                "labels[\"p\"]",
                "labels[\"q\"]",
                "labels[\"r\"]",
                "labels[\"s\"]",
                "labels[\"t\"]",
                "labels",
            ],
        ),
    ];
    for (labels, expected) in table {
        let request = v1::IssueRequest {
            labels: labels.clone(),
            ..issue_request(&server.stack, "another")
        };
        let status = owner.tokens.issue(request).await.unwrap_err();
        assert_eq!(fields(&status), expected);
        let request = relabel_request(&server.stack, &token.uid, &labels);
        let status = owner.tokens.update(request).await.unwrap_err();
        let of_token: Vec<_> = expected
            .iter()
            .map(|path| format!("token.{path}"))
            .collect();
        assert_eq!(fields(&status), of_token);
        let request = v1::ListRequest {
            labels,
            ..list_request(&server.stack)
        };
        let status = owner.tokens.list(request).await.unwrap_err();
        assert_eq!(fields(&status), expected);
    }
    assert_eq!(server.limit().await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_found_that_have_every_label_asked_for() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    for (name, of_token) in [
        ("none", labels(&[])),
        ("empty", labels(&[("team", "")])),
        ("shop", labels(&[("team", "shop"), ("a.b", "1")])),
        ("shop too", labels(&[("team", "shop"), ("a.b", "2")])),
        ("search", labels(&[("team", "search"), ("a", "{\"b\":1}")])),
    ] {
        issue(&mut owner, &server.stack, name, &of_token).await;
    }
    let table: [(Labels, &[&str]); 9] = [
        (labels(&[("team", "shop")]), &["shop", "shop too"]),
        (labels(&[("team", "shop"), ("a.b", "1")]), &["shop"]),
        (labels(&[("team", "search"), ("a.b", "1")]), &[]),
        (labels(&[("team", "")]), &["empty"]),
        (labels(&[("team", "Shop")]), &[]),
        (labels(&[("tea", "shop")]), &[]),
        (labels(&[("a", "{\"b\":1}")]), &["search"]),
        (labels(&[("a.b", "null")]), &[]),
        (
            labels(&[]),
            &["empty", "none", "search", "shop", "shop too"],
        ),
    ];
    for (labels, expected) in table {
        let request = v1::ListRequest {
            order: v1::TokenOrder::Name.into(),
            labels: labels.clone(),
            ..list_request(&server.stack)
        };
        let page = owner.tokens.list(request).await.unwrap().into_inner();
        let names: Vec<_> = page
            .tokens
            .iter()
            .map(|token| token.name.as_str())
            .collect();
        assert_eq!(names, expected, "{labels:?}");
    }
    let request = v1::ListRequest {
        page_size: 1,
        labels: labels(&[("team", "shop")]),
        ..list_request(&server.stack)
    };
    let page = owner
        .tokens
        .list(request.clone())
        .await
        .unwrap()
        .into_inner();
    let next = v1::ListRequest {
        page_token: page.next_page_token,
        ..request
    };
    assert_eq!(outcome(&owner.tokens.list(next.clone()).await), "OK");
    let other = v1::ListRequest {
        labels: labels(&[("team", "search")]),
        ..next
    };
    let status = owner.tokens.list(other).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_issue_has_the_same_labels_in_whatever_order() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let with = |labels: Labels| v1::IssueRequest {
        request_id: "once".into(),
        labels,
        ..issue_request(&server.stack, "deploy")
    };
    let many: Labels = (0..16).map(|n| (format!("k{n}"), n.to_string())).collect();
    let first = owner.tokens.issue(with(many.clone())).await.unwrap();
    let uid = first.into_inner().token.unwrap().token_uid;
    for _ in 0..8 {
        let again = owner.tokens.issue(with(many.clone())).await.unwrap();
        let again = again.into_inner().token.unwrap();
        assert_eq!((&again.token_uid, &again.labels), (&uid, &many));
    }
    let other = with(labels(&[("k0", "0")]));
    let status = owner.tokens.issue(other).await.unwrap_err();
    assert_eq!(refused(&status).1, "REQUEST_ID_REUSED");
    let relabel = relabel_request(&server.stack, &uid, &labels(&[("k0", "0")]));
    owner.tokens.update(relabel).await.unwrap();
    let status = owner.tokens.issue(with(many)).await.unwrap_err();
    assert_eq!(refused(&status).1, "REQUEST_ID_REUSED", "changed since");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_says_which_labels_a_token_got_and_had() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let of = |state: Option<AuditState>| match state?.state? {
        State::Token(token) => Some(token.labels),
        other => panic!("not a token: {other:?}"),
    };
    let first = labels(&[("team", "shop"), ("env", "prod")]);
    server.clock.advance(Duration::from_secs(1));
    let token = issue(&mut owner, &server.stack, "deploy", &first).await;
    let event = server.audit().await.remove(0);
    assert_eq!(
        (of(event.before), of(event.after)),
        (None, Some(first.clone()))
    );
    let request = relabel_request(&server.stack, &token.token_uid, &Labels::new());
    server.clock.advance(Duration::from_secs(1));
    owner.tokens.update(request).await.unwrap();
    let event = server.audit().await.remove(0);
    assert_eq!(
        (of(event.before), of(event.after)),
        (Some(first), Some(Labels::new()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_has_the_labels_of_now_if_they_are_asked_for() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    assert_eq!(
        server.introspect(&token.secret, &[]).await.labels,
        Labels::new()
    );
    for next in [labels(&[("team", "shop"), ("env", "")]), Labels::new()] {
        let request = relabel_request(&server.stack, &token.uid, &next);
        server.owner().await.tokens.update(request).await.unwrap();
        assert_eq!(server.introspect(&token.secret, &[]).await.labels, next);
    }
}
