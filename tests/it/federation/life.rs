//! Tests the life cycle of a federated token and of its sessions.

use std::time::Duration;

use serde_json::json;
use stacktoken::grpc::pb::{admin::v1::SuspendRequest, v1};
use tonic::Code;

use super::{end, live, refusal, update};
use crate::support::{
    TestServer, at,
    clients::fields,
    database::eventually,
    federated::{exchange_request, federated_request, federation, job},
    permissions,
    requests::{batch_request, end_overlap_request, overlap_for, rotate_request},
    watching::{Watching, subject},
};

fn seconds(at: Option<prost_types::Timestamp>) -> i64 {
    at.unwrap().seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_gets_a_secret_that_works_until_its_session_ends() {
    let server = TestServer::start().await;
    let request = federated_request(&server.stack, "ci");
    let issued = server.owner().await.tokens.issue(request).await.unwrap();
    let issued = issued.into_inner();
    let token = issued.token.unwrap();
    assert_eq!((issued.secret.as_str(), token.generation), ("", 0));
    assert!(token.secrets.is_empty() && token.issuer_configured && !token.etag.is_empty());
    let mut expected = federation();
    expected.session_for = Some(prost_types::Duration {
        seconds: 900,
        nanos: 0,
    });
    assert_eq!(token.federation, Some(expected));
    assert_eq!(server.limit().await.0, 1, "it takes a place of the limit");

    let now = server.clock.seconds();
    let session = server.session(&token.token_uid).await;
    assert_eq!(session.token_uid, token.token_uid);
    assert_eq!(seconds(session.expires_at), now + 900);
    assert_eq!(
        session.permissions,
        Some(permissions(v1::Access::ReadWrite))
    );
    assert_eq!(live(&server, &token.token_uid).await, 1);
    assert_eq!(server.limit().await.0, 1, "a session takes none");

    let answer = server.introspect(&session.secret, &["entry.update"]).await;
    assert!(answer.active);
    assert_eq!(answer.decision(), v1::Decision::Allow);
    assert_eq!(answer.token_uid, token.token_uid);
    assert_eq!(seconds(answer.expires_at), now + 900);
    let facts = answer.session.unwrap();
    assert_eq!(facts.subject, "repo octo/app run 7");
    assert_eq!(
        (seconds(facts.issued_at), seconds(facts.expires_at)),
        (now, now + 900)
    );
    assert_ne!(server.see(&token.token_uid).await.last_used_at, None);

    server.clock.advance(Duration::from_secs(899));
    assert_eq!(server.inactive(&session.secret).await, "");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.inactive(&session.secret).await, "EXPIRED");
    assert_eq!(live(&server, &token.token_uid).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_the_token_ends_its_sessions() {
    let server = TestServer::start().await;
    let (mut owner, mut operator) = (server.owner().await, server.operator().await);
    let revoked = server.federated("revoked").await;
    let session = server.session(&revoked).await;
    assert_eq!(server.inactive(&session.secret).await, "");
    let revoke = v1::RevokeRequest {
        stack_api_key: server.stack.clone(),
        token_uid: revoked.clone(),
        ..Default::default()
    };
    owner.tokens.revoke(revoke).await.unwrap();
    assert_eq!(server.inactive(&session.secret).await, "REVOKED");
    assert_eq!(live(&server, &revoked).await, 0);

    let expired = server.federated("expired").await;
    let session = server.session(&expired).await;
    let expiry = v1::SetExpiryRequest {
        stack_api_key: server.stack.clone(),
        token_uid: expired,
        expiry: Some(at(server.clock.seconds() + 60)),
        ..Default::default()
    };
    owner.tokens.set_expiry(expiry).await.unwrap();
    assert_eq!(server.inactive(&session.secret).await, "");
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(server.inactive(&session.secret).await, "EXPIRED");

    let suspended = server.federated("suspended").await;
    let session = server.session(&suspended).await;
    let suspend = SuspendRequest {
        stack_api_key: server.stack.clone(),
        ..Default::default()
    };
    operator.stacks.suspend(suspend).await.unwrap();
    assert_eq!(server.inactive(&session.secret).await, "STACK_SUSPENDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_never_outlives_its_token() {
    let server = TestServer::start().await;
    let end = server.clock.seconds() + 120;
    let request = v1::IssueRequest {
        expiry: Some(at(end)),
        ..federated_request(&server.stack, "short")
    };
    server.owner().await.tokens.issue(request).await.unwrap();
    let session = server.session("").await;
    assert_eq!(seconds(session.expires_at), end);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_as_long_as_asked_and_narrowed_as_asked() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    let mut workload = server.workload(&job(now, json!({}))).await;
    let narrow = |access: v1::Access, module: &str| v1::Permissions {
        modules: Some(v1::ModuleGrants {
            grants: vec![v1::ModuleGrant {
                module: module.into(),
                access: access.into(),
            }],
        }),
        ..permissions(access)
    };
    let request = v1::ExchangeRequest {
        session_for: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        narrow: Some(narrow(v1::Access::Read, "entry")),
        ..exchange_request(&server.stack, &uid)
    };
    let session = workload
        .exchange
        .exchange(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(seconds(session.expires_at), now + 60);
    assert_eq!(session.permissions, Some(narrow(v1::Access::Read, "entry")));
    let answer = server.introspect(&session.secret, &["entry.read"]).await;
    assert_eq!(answer.decision(), v1::Decision::Allow);
    assert_eq!(answer.permissions, session.permissions);
    for (action, why) in [
        ("entry.update", v1::Reason::ReadOnly),
        ("asset.read", v1::Reason::ModuleNotGranted),
    ] {
        let answer = server.introspect(&session.secret, &[action]).await;
        assert!(answer.active);
        assert_eq!(answer.reason(), why, "{action}");
    }
    // The token is narrowed afterwards, to a permission that the session lacks.
    let mut after = update(&server, &uid, None);
    after.token.as_mut().unwrap().permissions = Some(narrow(v1::Access::Read, "asset"));
    after.update_mask.as_mut().unwrap().paths = vec!["permissions".into()];
    server.owner().await.tokens.update(after).await.unwrap();
    for action in ["entry.read", "asset.read"] {
        let answer = server.introspect(&session.secret, &[action]).await;
        assert_eq!(answer.reason(), v1::Reason::ModuleNotGranted, "{action}");
        let left = answer.permissions.unwrap();
        assert_eq!(left.modules, Some(v1::ModuleGrants::default()));
    }
    // The exchange asks for more than the token's permissions. The excess is not granted.
    let wider = v1::ExchangeRequest {
        narrow: Some(permissions(v1::Access::ReadWrite)),
        session_for: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
        ..exchange_request(&server.stack, &uid)
    };
    let mut workload = server.workload(&job(now, json!({}))).await;
    let session = workload
        .exchange
        .exchange(wider)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(session.permissions, Some(narrow(v1::Access::Read, "asset")));
    assert_eq!(seconds(session.expires_at), now + 900);
    // The narrowed exchange and the token have no permission in common.
    let mut workload = server.workload(&job(now, json!({}))).await;
    let status = workload.exchange.exchange(request).await.unwrap_err();
    let expected = (Code::PermissionDenied, "EXCHANGE_REFUSED".to_owned());
    assert_eq!(refusal(&status), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_ended_by_a_change_of_the_rules_and_by_hand() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let uid = server.federated("ci").await;
    let now = server.clock.seconds();
    let (first, other) = (job(now, json!({})), job(now, json!({ "run_id": "8" })));
    let first = server.exchange(&first, &uid).await.unwrap().secret;
    let other = server.exchange(&other, &uid).await.unwrap().secret;
    for secret in [&first, &other] {
        assert_eq!(server.inactive(secret).await, "");
    }
    let preview = v1::EndSessionsRequest {
        validate_only: true,
        ..end(&server, &uid, "repo octo/app run 8")
    };
    let shown = owner
        .tokens
        .end_sessions(preview)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((shown.count, shown.revision.as_str()), (1, ""));
    assert_eq!(server.inactive(&other).await, "", "a preview ends nothing");

    let request = end(&server, &uid, "repo octo/app run 8");
    let ended = owner
        .tokens
        .end_sessions(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(ended.count, 1);
    assert_eq!(server.inactive(&other).await, "REVOKED");
    assert_eq!(server.inactive(&first).await, "");
    let again = owner
        .tokens
        .end_sessions(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.count, 0);
    assert_eq!(live(&server, &uid).await, 1);

    // An update with the same rules changes nothing; an update with other rules ends all sessions.
    let same = update(&server, &uid, Some(federation()));
    owner.tokens.update(same).await.unwrap();
    assert_eq!(server.inactive(&first).await, "");
    let mut shorter = federation();
    shorter.session_for = Some(prost_types::Duration {
        seconds: 60,
        nanos: 0,
    });
    let updated = owner
        .tokens
        .update(update(&server, &uid, Some(shorter)))
        .await
        .unwrap();
    let length = updated
        .into_inner()
        .token
        .unwrap()
        .federation
        .unwrap()
        .session_for;
    assert_eq!(length.unwrap().seconds, 60);
    assert_eq!(server.inactive(&first).await, "REVOKED");
    let session = server.session(&uid).await;
    assert_eq!(seconds(session.expires_at), now + 60);
    let ended = owner
        .tokens
        .end_sessions(end(&server, &uid, ""))
        .await
        .unwrap();
    assert_eq!(ended.into_inner().count, 1);
    assert_eq!(server.inactive(&session.secret).await, "REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reported_secret_ends_its_session_and_no_other() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let (leaked, kept) = (server.session(&uid).await, server.session(&uid).await);
    let report = v1::ReportLeakedRequest {
        secret: leaked.secret.clone(),
        url: String::new(),
    };
    let mut operator = server.operator().await;
    operator.leaks.report_leaked(report.clone()).await.unwrap();
    assert_eq!(server.inactive(&leaked.secret).await, "REVOKED");
    assert_eq!(server.inactive(&kept.secret).await, "");
    assert_eq!(server.see(&uid).await.state(), v1::TokenState::Active);
    server.clock.advance(Duration::from_secs(1));
    operator.leaks.report_leaked(report).await.unwrap();
    let outcomes = server.audit().await.into_iter();
    let outcomes: Vec<_> = outcomes
        .into_iter()
        .filter(|event| event.method.ends_with("ReportLeaked"))
        .map(|event| event.details["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["DEAD", "SESSION_ENDED"], "newest first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_federated_token_has_no_secret_to_rotate() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let uid = server.federated("ci").await;
    let rotate = rotate_request(&server.stack, &uid, overlap_for(60));
    let rotated = owner.tokens.rotate(rotate).await.unwrap_err();
    let end = end_overlap_request(&server.stack, &uid);
    let ended = owner.tokens.end_overlap(end).await.unwrap_err();
    for status in [rotated, ended] {
        let expected = (Code::FailedPrecondition, "TOKEN_FEDERATED".to_owned());
        assert_eq!(refusal(&status), expected);
    }
    // A token with a secret can never become federated, and a federated token stays federated.
    let ordinary = server.issue("deploy").await.token.unwrap().token_uid;
    for (uid, federation) in [(&ordinary, Some(federation())), (&uid, None)] {
        let request = update(&server, uid, federation);
        let status = owner.tokens.update(request).await.unwrap_err();
        assert_eq!(fields(&status), ["token.federation"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_issue_returns_the_token_and_a_preview_issues_none() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let preview = v1::IssueRequest {
        validate_only: true,
        ..federated_request(&server.stack, "ci")
    };
    let shown = owner.tokens.issue(preview).await.unwrap().into_inner();
    let token = shown.token.unwrap();
    assert_eq!((token.token_uid.as_str(), token.etag.as_str()), ("", ""));
    assert_eq!(server.limit().await.0, 0);
    let request = v1::IssueRequest {
        request_id: "once".into(),
        ..federated_request(&server.stack, "ci")
    };
    let first = owner
        .tokens
        .issue(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = owner
        .tokens
        .issue(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.token, again.token);
    assert_eq!(again.secret, "");
    let preview = v1::IssueRequest {
        validate_only: true,
        ..request
    };
    let shown = owner.tokens.issue(preview).await.unwrap().into_inner();
    let (shown, token) = (shown.token.unwrap(), first.token.unwrap());
    assert_eq!(shown.token_uid, token.token_uid, "it is a repetition");
    assert_eq!(shown.etag, "");
    assert_eq!(server.limit().await.0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_knows_sessions_beside_other_tokens() {
    let server = TestServer::start().await;
    server.federated("ci").await;
    let session = server.session("").await.secret;
    let own = server.issue("deploy").await.secret;
    let request = batch_request(&server.stack, &[&session, &own, "nonsense", &session]);
    let mut service = server.service().await;
    let answers = service
        .introspection
        .batch_introspect(request)
        .await
        .unwrap();
    let active = answers.into_inner().results.into_iter().map(|result| {
        let Some(v1::batch_introspect_result::Result::Answer(answer)) = result.result else {
            panic!("no answer");
        };
        answer.active
    });
    assert_eq!(active.collect::<Vec<_>>(), [true, true, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_told_of_the_end_of_a_session_and_not_of_its_start() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let mut owner = server.owner().await;
    let mut watching = Watching::open(&server.service().await, "").await.unwrap();
    let session = server.session(&uid).await;
    assert_eq!(server.inactive(&session.secret).await, "");
    let (before, _) = watching.pong().await.unwrap();
    assert!(before.is_empty(), "{before:?}");
    owner
        .tokens
        .end_sessions(end(&server, &uid, ""))
        .await
        .unwrap();
    assert_eq!(subject(&watching.changed().await), format!("token {uid}"));
    let report = v1::ReportLeakedRequest {
        secret: server.session(&uid).await.secret,
        url: String::new(),
    };
    server
        .operator()
        .await
        .leaks
        .report_leaked(report)
        .await
        .unwrap();
    assert_eq!(subject(&watching.changed().await), format!("token {uid}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_assertions_are_deleted_after_their_time() {
    let server = TestServer::start_with(|tuning| {
        tuning.keeping.housekeeping_every = Duration::from_millis(100);
    })
    .await;
    let uid = server.federated("ci").await;
    let session = server.session(&uid).await;
    let outside = server.outside().await;
    let rows = async |table: &str| {
        outside
            .number(&format!("SELECT COUNT(*) AS n FROM {table}"))
            .await
    };
    assert_eq!((rows("sessions").await, rows("assertions").await), (1, 1));
    server.clock.advance(Duration::from_secs(3600));
    eventually("the assertion is deleted", async || {
        (rows("assertions").await == 0).then_some(())
    })
    .await;
    assert_eq!(rows("sessions").await, 1);
    assert_eq!(server.inactive(&session.secret).await, "EXPIRED");
    server.clock.advance(Duration::from_hours(25));
    eventually("the session is deleted", async || {
        (rows("sessions").await == 0).then_some(())
    })
    .await;
    eventually("its secret is not recognized", async || {
        (server.inactive(&session.secret).await == "NOT_RECOGNIZED").then_some(())
    })
    .await;
}
