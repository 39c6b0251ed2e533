//! Tests the filters of `AuditService.List`.

use std::time::Duration;

use stacktoken::grpc::pb::{
    audit::v1::{ActorFilter, AuditEventKind, AuditOutcome, ListRequest, ListResponse},
    v1::{IssueRequest, RevokeRequest},
};

use super::{
    list::{list, names, of_stack, refusals},
    with_id,
};
use crate::support::{Client, ISSUER, TestServer, clients::fields, issue_request, methods};

fn methods_of(page: &ListResponse) -> Vec<String> {
    let methods = page.events.iter().map(|event| event.method.clone());
    methods.collect()
}

fn actor_filter(issuer: &str, subject: &str) -> ActorFilter {
    ActorFilter {
        issuer: issuer.into(),
        subject: subject.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_narrows_the_list_and_all_of_them_together() {
    let server = TestServer::start().await;
    let key = server.stack.clone();
    let second = Duration::from_secs(1);
    server.clock.advance(second);
    let first = server.issue("by the owner").await.token.unwrap().token_uid;
    server.clock.advance(second);
    let mut admin = server.admin().await;
    admin
        .tokens
        .issue(issue_request(&key, "by the admin"))
        .await
        .unwrap();
    server.clock.advance(second);
    let revoke = RevokeRequest {
        stack_api_key: key.clone(),
        token_uid: first.clone(),
        reason: String::new(),
        validate_only: false,
        etag: String::new(),
    };
    admin.tokens.revoke(revoke).await.unwrap();

    let all = of_stack(&key);
    let mut owner = server.owner().await;
    let found = async |owner: &mut Client, request| methods_of(&list(owner, request).await);
    let (issue, revoked) = (methods::ISSUE, methods::REVOKE);
    let of_token = ListRequest {
        token_uids: vec![first.clone()],
        ..all.clone()
    };
    assert_eq!(found(&mut owner, of_token).await, [revoked, issue]);
    let of_admin = ListRequest {
        actors: vec![actor_filter(ISSUER, "admin")],
        ..all.clone()
    };
    assert_eq!(found(&mut owner, of_admin.clone()).await, [revoked, issue]);
    let of_action = ListRequest {
        methods: vec![issue.into()],
        ..all.clone()
    };
    let page = list(&mut owner, of_action).await;
    assert_eq!(names(&page), ["by the admin", "by the owner"]);
    let of_issuer = |issuer: &str| ListRequest {
        actors: vec![actor_filter(issuer, "")],
        ..all.clone()
    };
    assert_eq!(found(&mut owner, of_issuer(ISSUER)).await.len(), 7);
    assert_eq!(
        found(&mut owner, of_issuer("https://else.test")).await,
        [""; 0]
    );
    // `occurred_from` is inclusive, and `occurred_before` is exclusive.
    let when = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    let now = server.clock.seconds();
    let window = ListRequest {
        occurred_from: Some(when(now - 2)),
        occurred_before: Some(when(now)),
        ..all.clone()
    };
    let page = list(&mut owner, window.clone()).await;
    assert_eq!(names(&page), ["by the admin", "by the owner"]);
    let together = ListRequest {
        token_uids: vec![first],
        actors: vec![actor_filter(ISSUER, "owner")],
        methods: vec![issue.into()],
        ..window
    };
    assert_eq!(
        names(&list(&mut owner, together.clone()).await),
        ["by the owner"]
    );
    let none = ListRequest {
        actors: vec![actor_filter(ISSUER, "admin")],
        ..together
    };
    assert_eq!(found(&mut owner, none).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_values_of_a_filter_are_alternatives() {
    let server = TestServer::start().await;
    let (mut owner, mut operator) = (server.owner().await, server.operator().await);
    let mut uids = Vec::new();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        server.clock.advance(Duration::from_secs(1));
        let issue = IssueRequest {
            request_id: format!("key-{at}"),
            ..issue_request(&server.stack, name)
        };
        let issued = owner
            .tokens
            .issue(with_id(issue, &format!("call-{at}")))
            .await;
        uids.push(issued.unwrap().into_inner().token.unwrap().token_uid);
    }
    server.clock.advance(Duration::from_secs(1));
    server.revoke(&uids[0]).await;
    let again = with_id(issue_request(&server.stack, "b"), "call-refused");
    owner.tokens.issue(again).await.unwrap_err();
    let mut developer = server.developer().await;
    developer
        .tokens
        .issue(issue_request(&server.stack, "d"))
        .await
        .unwrap_err();
    let all = of_stack(&server.stack);
    refusals(&mut operator, all.clone(), 2).await;
    let mut told = async |filter: ListRequest| {
        let page = list(&mut operator, filter).await;
        let events = page.events.into_iter();
        let words = events.map(|event| {
            let method = event.method.rsplit('/').next().unwrap().to_owned();
            format!("{method} {}", event.error_reason)
        });
        let mut words: Vec<_> = words.collect();
        words.sort();
        words
    };
    let taken = ["Issue NAME_TAKEN"];
    let both = ["Issue NAME_TAKEN", "Issue ROLE_REQUIRED"];
    let done = ["Issue ", "Issue ", "Issue ", "Revoke "];
    let reasons = |reasons: &[&str]| ListRequest {
        error_reasons: reasons.iter().map(|&reason| reason.into()).collect(),
        ..all.clone()
    };
    assert_eq!(told(reasons(&["NAME_TAKEN"])).await, taken);
    assert_eq!(told(reasons(&["NAME_TAKEN", "ROLE_REQUIRED"])).await, both);
    let outcomes = |outcomes: &[AuditOutcome]| ListRequest {
        outcomes: outcomes.iter().map(|&outcome| outcome.into()).collect(),
        methods: vec![methods::ISSUE.into(), methods::REVOKE.into()],
        ..all.clone()
    };
    assert_eq!(told(outcomes(&[AuditOutcome::Refused])).await, both);
    assert_eq!(told(outcomes(&[AuditOutcome::Done])).await, done);
    let either = [AuditOutcome::Done, AuditOutcome::Refused];
    assert_eq!(told(outcomes(&either)).await.len(), 6);
    let tokens = |uids: &[String]| ListRequest {
        token_uids: uids.to_vec(),
        ..ListRequest::default()
    };
    assert_eq!(told(tokens(&uids[1..])).await, ["Issue ", "Issue "]);
    assert_eq!(told(tokens(&uids[..1])).await, ["Issue ", "Revoke "]);
    let actors = |subjects: &[&str]| ListRequest {
        actors: subjects
            .iter()
            .map(|sub| actor_filter(ISSUER, sub))
            .collect(),
        methods: vec![methods::ISSUE.into()],
        ..all.clone()
    };
    assert_eq!(
        told(actors(&["developer", "nobody"])).await,
        ["Issue ROLE_REQUIRED"]
    );
    assert_eq!(told(actors(&["developer", "owner"])).await.len(), 5);
    let of_key = ListRequest {
        request_id: "key-1".into(),
        ..all.clone()
    };
    assert_eq!(told(of_key).await, ["Issue "]);
    let of_call = ListRequest {
        call_id: "call-refused".into(),
        ..all.clone()
    };
    assert_eq!(told(of_call).await, taken);
    let none = ListRequest {
        kinds: vec![AuditEventKind::FirstUse.into()],
        methods: vec![methods::ISSUE.into()],
        ..all.clone()
    };
    assert_eq!(told(none).await, [""; 0], "Issue is of another kind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_range_and_too_many_values_are_refused() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let when = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    for before in [7, 6] {
        let request = ListRequest {
            occurred_from: when(7),
            occurred_before: when(before),
            ..Default::default()
        };
        let status = operator.audit.list(request).await.unwrap_err();
        assert_eq!(fields(&status), ["occurred_before"]);
    }
    let request = ListRequest {
        methods: vec![methods::ISSUE.into(); 101],
        actors: vec![actor_filter(ISSUER, "owner"); 101],
        token_uids: vec![uuid::Uuid::nil().to_string(); 100],
        ..Default::default()
    };
    let status = operator.audit.list(request).await.unwrap_err();
    assert_eq!(fields(&status), ["methods", "actors"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_question_is_reported_at_once() {
    let server = TestServer::start().await;
    let wrong = prost_types::Timestamp {
        seconds: 0,
        nanos: -1,
    };
    let request = ListRequest {
        page_size: -1,
        page_token: "junk".into(),
        stack_api_key: "blt".into(),
        token_uids: vec!["not-a-uuid".into()],
        actors: vec![
            actor_filter(ISSUER, "owner"),
            actor_filter("", "owner"),
            actor_filter(&"x".repeat(513), &"x".repeat(1025)),
        ],
        outcomes: vec![1, 99],
        error_reasons: vec!["ROLE_REQUIRED".into(), "ERROR_REASON_ROLE_REQUIRED".into()],
        request_id: "a b".into(),
        call_id: "x".repeat(65),
        methods: vec![
            methods::ISSUE.into(),
            "TokenService/Issue".into(),
            "stacktoken.v1.TokenService/Forget".into(),
        ],
        kinds: vec![99, AuditEventKind::Unspecified.into()],
        occurred_from: Some(wrong),
        occurred_before: Some(wrong),
    };
    let mut operator = server.operator().await;
    let status = operator.audit.list(request).await.unwrap_err();
    let mut found = fields(&status);
    found.sort();
    assert_eq!(
        found,
        [
            "actors[1].issuer",
            "actors[2].issuer",
            "actors[2].subject",
            "call_id",
            "error_reasons[1]",
            "kinds[0]",
            "kinds[1]",
            "methods[1]",
            "methods[2]",
            "occurred_before",
            "occurred_from",
            "outcomes[1]",
            "page_size",
            "page_token",
            "request_id",
            "stack_api_key",
            "token_uids[0]"
        ]
    );
}
