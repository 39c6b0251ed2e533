use stacktoken::grpc::pb::{
    admin::v1::{RegisterRequest, StackState},
    audit::v1::AuditAction,
};
use tonic::Code;

use super::{DONE, details, ended, latest, nobody, register, seen};
use crate::support::{ISSUER, TestServer, clients::fields, issue_request, person};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_without_a_key_is_given_one_and_the_defaults() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let mut keys = Vec::new();
    for name in ["One", "Two"] {
        let answer = operator.stacks.register(register(name)).await.unwrap();
        let answer = answer.into_inner();
        let stack = answer.stack.unwrap();
        let digits = stack.stack_api_key.strip_prefix("blt").unwrap();
        assert_eq!(digits.len(), 16);
        assert!(
            digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        );
        assert_eq!(stack.name, name);
        assert_eq!(stack.organization_uid, "org-1");
        assert_eq!(stack.state(), StackState::Active);
        assert_eq!(stack.owner.unwrap(), person("owner"));
        let limit = stack.limit.unwrap();
        assert_eq!((limit.used, limit.max), (0, 10));
        assert_eq!(stack.registered_at.unwrap().seconds, server.clock.seconds());
        assert!(stack.suspended_at.is_none() && stack.removed_at.is_none());
        assert!(!answer.revision.is_empty());
        keys.push(stack.stack_api_key);
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_brought_is_kept_and_taken_from_then_on() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = RegisterRequest {
        stack_api_key: "blt00c0ffee00c0ffee".into(),
        ..register("Brought")
    };
    let first = operator.stacks.register(request.clone()).await.unwrap();
    assert_eq!(
        first.into_inner().stack.unwrap().stack_api_key,
        request.stack_api_key
    );
    let second = RegisterRequest {
        organization_uid: "org-2".into(),
        name: "Another".into(),
        ..request.clone()
    };
    let again = operator.stacks.register(second).await;
    ended(&again, (Code::AlreadyExists, "STACK_KEY_TAKEN"));
    let kept = seen(&server, &request.stack_api_key).await.stack.unwrap();
    assert_eq!(kept.name, "Brought");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_bring_one_key_one_gets_it() {
    let server = TestServer::start().await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..8 {
        let mut operator = server.operator().await;
        let request = RegisterRequest {
            stack_api_key: "blt00c0ffee00c0ffee".into(),
            ..register(&format!("Stack {n}"))
        };
        calls.spawn(async move { operator.stacks.register(request).await });
    }
    let answers = calls.join_all().await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for answered in lost {
        ended(&answered, (Code::AlreadyExists, "STACK_KEY_TAKEN"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_a_new_stack_may_issue_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = RegisterRequest {
        owner: Some(person("founder")),
        ..register("New")
    };
    let registered = operator
        .stacks
        .register(request)
        .await
        .unwrap()
        .into_inner();
    let key = registered.stack.unwrap().stack_api_key;
    let mut founder = server.user("founder").await;
    ended(
        &founder.tokens.issue(issue_request(&key, "first")).await,
        DONE,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_may_have_0_to_1000_tokens() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    for (token_limit, good) in [(0, true), (1000, true), (-1, false), (1001, false)] {
        let request = RegisterRequest {
            token_limit: Some(token_limit),
            ..register("Limited")
        };
        match operator.stacks.register(request).await {
            Ok(answer) => {
                let limit = answer.into_inner().stack.unwrap().limit.unwrap();
                assert!(good);
                assert_eq!(i32::try_from(limit.max), Ok(token_limit));
            }
            Err(status) => {
                assert!(!good, "{token_limit}: {status:?}");
                assert_eq!(fields(&status), ["token_limit"]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_registration_is_reported_at_once() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let empty = RegisterRequest::default();
    let status = operator.stacks.register(empty).await.unwrap_err();
    assert_eq!(fields(&status), ["name", "organization_uid", "owner"]);
    let wrong = RegisterRequest {
        stack_api_key: "BLT00c0ffee00c0ffee".into(),
        name: "x".repeat(101),
        organization_uid: "a b".into(),
        owner: Some(nobody()),
        token_limit: Some(1001),
        validate_only: false,
    };
    let status = operator.stacks.register(wrong).await.unwrap_err();
    assert_eq!(
        fields(&status),
        [
            "stack_api_key",
            "name",
            "organization_uid",
            "owner.issuer",
            "owner.subject",
            "owner.email",
            "token_limit"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_a_name_is_refused_and_not_echoed() {
    let server = TestServer::start().await;
    let secret = server.issue("first").await.secret;
    let mut operator = server.operator().await;
    let request = RegisterRequest {
        name: format!("My {secret}"),
        owner: Some(person(&secret)),
        ..register("")
    };
    let status = operator.stacks.register(request).await.unwrap_err();
    assert_eq!(fields(&status), ["name", "owner.subject"]);
    assert!(!format!("{status:?}").contains(&secret));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_is_in_the_audit_without_anybodys_address() {
    let mut server = TestServer::start().await;
    let mut operator = server.operator().await;
    let mut owner = person("owner");
    owner.email = "owner@example.com".into();
    let request = RegisterRequest {
        stack_api_key: "blt00c0ffee00c0ffee".into(),
        owner: Some(owner.clone()),
        ..register("New")
    };
    let answer = operator
        .stacks
        .register(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.stack.unwrap().owner.unwrap(), owner);
    server.stack = "blt00c0ffee00c0ffee".into();
    let event = latest(&server, AuditAction::StackRegister).await;
    let who = format!("{ISSUER} owner");
    assert_eq!(
        details(&event),
        [
            ("max_tokens", "10"),
            ("name", "New"),
            ("organization_uid", "org-1"),
            ("owner", who.as_str())
        ]
    );
}
