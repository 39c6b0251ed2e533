use stacktoken::grpc::pb::{admin::v1::RegisterRequest, audit::v1::ListRequest, v1::StackState};
use tonic::Code;

use super::{DONE, details, ended, latest, nobody, register, seen, stack_in};
use crate::support::{TestServer, clients::fields, issue_request, methods, person};

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
        request_id: "a b".into(),
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
            "token_limit",
            "request_id"
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
    let event = latest(&server, methods::REGISTER).await;
    assert_eq!(event.before, None);
    let after = stack_in(event.after.as_ref());
    assert_eq!(
        (after.name.as_str(), after.organization_uid.as_str()),
        ("New", "org-1")
    );
    assert_eq!(after.limit.unwrap().max, 10);
    assert_eq!(after.owner, Some(person("owner")));
    assert!(event.details.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_registration_answers_the_stack_that_the_first_one_made() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = RegisterRequest {
        request_id: "make-shop".into(),
        ..register("Shop")
    };
    let first = operator.stacks.register(request.clone()).await.unwrap();
    let first = first.into_inner();
    let key = first.stack.clone().unwrap().stack_api_key;
    server.clock.advance(std::time::Duration::from_secs(3600));
    let again = operator.stacks.register(request.clone()).await.unwrap();
    assert_eq!(again.into_inner(), first);
    let of_stack = ListRequest {
        stack_api_key: key.clone(),
        ..Default::default()
    };
    let events = operator.audit.list(of_stack).await.unwrap().into_inner();
    let events = events.events.iter();
    let told: Vec<_> = events.map(details).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], [("again", "true")]);
    // A repeated registration returns the current state of the stack.
    operator.stacks.suspend(super::suspend(&key)).await.unwrap();
    let now = operator.stacks.register(request.clone()).await.unwrap();
    let now = now.into_inner().stack.unwrap();
    assert_eq!(now.state(), StackState::Suspended);
    assert_eq!(now.stack_api_key, key);
    // A preview of the repetition returns the current state too. Request ids belong to a caller, so
    // the same id of another caller registers another stack.
    let preview = RegisterRequest {
        validate_only: true,
        ..request.clone()
    };
    let shown = operator
        .stacks
        .register(preview)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.stack, Some(now));
    assert_eq!(shown.revision, "");
    let jwt = server.issuer.operator("other", server.clock.seconds());
    let mut other = server.with_authorization(format!("Bearer {jwt}")).await;
    let theirs = other.stacks.register(request.clone()).await.unwrap();
    assert_ne!(theirs.into_inner().stack.unwrap().stack_api_key, key);
    for changed in [
        RegisterRequest {
            name: "Shop 2".into(),
            ..request.clone()
        },
        RegisterRequest {
            stack_api_key: key.clone(),
            ..request
        },
    ] {
        let reused = operator.stacks.register(changed).await;
        ended(&reused, (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_refusal_nor_a_preview_uses_up_a_request_id() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = RegisterRequest {
        stack_api_key: server.stack.clone(),
        request_id: "one".into(),
        ..register("Taken")
    };
    for _ in 0..2 {
        let refused = operator.stacks.register(request.clone()).await;
        ended(&refused, (Code::AlreadyExists, "STACK_KEY_TAKEN"));
    }
    let free = RegisterRequest {
        stack_api_key: String::new(),
        ..request
    };
    let preview = RegisterRequest {
        validate_only: true,
        ..free.clone()
    };
    let shown = operator
        .stacks
        .register(preview)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.stack.unwrap().stack_api_key, "");
    let named = RegisterRequest {
        name: "Another".into(),
        ..free
    };
    ended(&operator.stacks.register(named).await, DONE);
    let wrong = RegisterRequest {
        request_id: "a b".into(),
        ..register("Wrong")
    };
    let status = operator.stacks.register(wrong).await.unwrap_err();
    assert_eq!(fields(&status), ["request_id"]);
}
