//! Tests that a preview has no side effect: not on the cache, not on the token limit, and on the
//! audit only if the preview is refused.

use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1::{RegisterRequest, RemoveRequest, SuspendRequest},
    audit::v1::AuditOutcome,
    v1,
};
use tokio::task::JoinSet;

use crate::support::{
    TestServer, at,
    clock::START,
    database::eventually,
    issue_request, methods, now, permissions,
    requests::{
        Issued, UNTIL_FIRST_USE, outcome, permit_request, rename_request, revoke_request,
        rotate_request, set_expiry_request,
    },
};

async fn misses(server: &TestServer) -> f64 {
    let text = server.metrics().await;
    let line = text
        .lines()
        .find(|line| line.starts_with("stacktoken_cache_misses_total "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_evicts_nothing_from_the_cache() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    for _ in 0..2 {
        assert_eq!(server.verdict(&token.secret).await, "OK");
    }
    let before = misses(&server).await;
    let (stack, uid) = (server.stack.as_str(), token.uid.as_str());
    let (mut owner, mut operator) = (server.owner().await, server.operator().await);
    let permit = permit_request(stack, uid, permissions(v1::Access::Read));
    let permit = v1::UpdateRequest {
        validate_only: true,
        ..permit
    };
    let end = v1::SetExpiryRequest {
        validate_only: true,
        ..set_expiry_request(stack, uid, now())
    };
    let rotate = v1::RotateRequest {
        validate_only: true,
        ..rotate_request(stack, uid, UNTIL_FIRST_USE)
    };
    let revoke = v1::RevokeRequest {
        validate_only: true,
        ..revoke_request(stack, uid, "")
    };
    let suspend = SuspendRequest {
        stack_api_key: stack.into(),
        validate_only: true,
        ..Default::default()
    };
    let remove = RemoveRequest {
        stack_api_key: stack.into(),
        validate_only: true,
        ..Default::default()
    };
    owner.tokens.update(permit).await.unwrap();
    let ended = owner.tokens.set_expiry(end).await.unwrap().into_inner();
    assert_eq!(ended.token.unwrap().state(), v1::TokenState::Expired);
    owner.tokens.rotate(rotate).await.unwrap();
    let revoked = owner.tokens.revoke(revoke).await.unwrap().into_inner();
    assert_eq!(revoked.token.unwrap().state(), v1::TokenState::Revoked);
    operator.stacks.suspend(suspend).await.unwrap();
    operator.stacks.remove(remove).await.unwrap();
    assert_eq!(server.verdict(&token.secret).await, "OK");
    assert_eq!(misses(&server).await, before, "all from the cache");
    let rename = rename_request(stack, uid, "renamed");
    owner.tokens.update(rename).await.unwrap();
    assert_eq!(server.verdict(&token.secret).await, "OK");
    assert!(misses(&server).await > before, "a change evicts the token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_that_is_refused_ends_no_expired_token_and_the_change_does() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    let brief = server.token_until("brief", at(START + 60)).await;
    server.token("taken").await;
    server.clock.advance(Duration::from_secs(60));
    let mut owner = server.owner().await;
    let taken = |validate_only| v1::IssueRequest {
        validate_only,
        ..issue_request(&server.stack, "taken")
    };
    let late = |validate_only| v1::UpdateRequest {
        validate_only,
        ..rename_request(&server.stack, &brief.uid, "late")
    };
    let before = outside.dump().await;
    assert_eq!(
        outcome(&owner.tokens.issue(taken(true)).await),
        "AlreadyExists NAME_TAKEN"
    );
    assert_eq!(
        outcome(&owner.tokens.update(late(true)).await),
        "FailedPrecondition TOKEN_EXPIRED"
    );
    assert_eq!(outside.dump().await, before);
    assert_eq!(
        outcome(&owner.tokens.issue(taken(false)).await),
        "AlreadyExists NAME_TAKEN"
    );
    assert_ne!(outside.dump().await, before, "the expiry was recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_previews_beside_fifty_issues_leave_ten_tokens() {
    let server = TestServer::start().await;
    let owner = server.owner().await;
    let mut calls = JoinSet::new();
    for at in 0..100 {
        let (mut owner, validate_only) = (owner.clone(), at % 2 == 0);
        let request = v1::IssueRequest {
            validate_only,
            ..issue_request(&server.stack, &format!("token {at}"))
        };
        calls.spawn(async move {
            let refusal_text = outcome(&owner.tokens.issue(request).await);
            (validate_only, refusal_text)
        });
    }
    let ended = calls.join_all().await;
    let issued = ended
        .iter()
        .filter(|(preview, refusal_text)| !preview && refusal_text == "OK");
    assert_eq!(issued.count(), 10);
    for (_, refusal_text) in &ended {
        let known = ["OK", "ResourceExhausted TOKEN_LIMIT_REACHED"];
        assert!(known.contains(&refusal_text.as_str()), "{refusal_text}");
    }
    assert_eq!(server.limit().await, (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_counts_against_the_callers_rate() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 20.try_into().unwrap();
    })
    .await;
    let mut owner = server.owner().await;
    let request = v1::IssueRequest {
        validate_only: true,
        ..issue_request(&server.stack, "x")
    };
    let mut refused = 0;
    for _ in 0..40 {
        let refusal_text = outcome(&owner.tokens.issue(request.clone()).await);
        refused += usize::from(refusal_text == "ResourceExhausted RATE_LIMITED");
    }
    assert!(refused > 0, "none of 40 calls was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_preview_is_in_the_audit_and_one_that_succeeds_is_not() {
    let server = TestServer::start().await;
    server.token("taken").await;
    let before = server.audit().await;
    let mut owner = server.owner().await;
    let request = |name: &str| v1::IssueRequest {
        validate_only: true,
        ..issue_request(&server.stack, name)
    };
    owner.tokens.issue(request("free")).await.unwrap();
    assert_eq!(
        outcome(&owner.tokens.issue(request("taken")).await),
        "AlreadyExists NAME_TAKEN"
    );
    let newer = eventually("the refusal is recorded", async || {
        let mut events = server.audit().await;
        events.retain(|event| !before.contains(event));
        (!events.is_empty()).then_some(events)
    })
    .await;
    assert_eq!(newer.len(), 1, "{newer:?}");
    assert_eq!(newer[0].method, methods::ISSUE);
    assert_eq!(newer[0].outcome(), AuditOutcome::Refused);
    assert_eq!(newer[0].error_reason, "NAME_TAKEN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_preview_would_make_up_is_left_out() {
    let server = TestServer::start().await;
    let (mut owner, mut operator) = (server.owner().await, server.operator().await);
    let issue = v1::IssueRequest {
        validate_only: true,
        ..issue_request(&server.stack, "x")
    };
    let shown = owner.tokens.issue(issue).await.unwrap().into_inner();
    let token = shown.token.clone().unwrap();
    assert_eq!((shown.secret.as_str(), shown.revision.as_str()), ("", ""));
    assert_eq!(
        (token.token_uid.as_str(), token.secrets[0].hint.as_str()),
        ("", "")
    );
    assert_eq!((token.name.as_str(), token.generation), ("x", 1));
    let register = RegisterRequest {
        name: "New".into(),
        organization_uid: "org-1".into(),
        owner: Some(crate::support::person("owner")),
        validate_only: true,
        ..Default::default()
    };
    let shown = operator.stacks.register(register).await.unwrap();
    let stack = shown.into_inner().stack.unwrap();
    assert_eq!(
        (stack.stack_uid.as_str(), stack.stack_api_key.as_str()),
        ("", "")
    );
    assert_eq!(stack.limit.unwrap().max, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_of_a_repetition_leaves_the_lost_secret_alive() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let request = |validate_only| v1::IssueRequest {
        request_id: "once".into(),
        validate_only,
        ..issue_request(&server.stack, "x")
    };
    owner.tokens.issue(request(true)).await.unwrap();
    let made = owner.tokens.issue(request(false)).await.unwrap();
    let made = Issued::from(made.into_inner());
    let shown = owner.tokens.issue(request(true)).await.unwrap();
    assert_eq!(shown.into_inner().token.unwrap().token_uid, made.uid);
    assert_eq!(server.verdict(&made.secret).await, "OK");
    let refusal_text = outcome(&owner.tokens.issue(request(true)).await);
    assert_eq!(
        refusal_text, "AlreadyExists REQUEST_ID_REUSED",
        "the request id was used"
    );
}
