//! Every change leaves one row, every refusal of a known caller is counted, and nothing else
//! leaves any (R14).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    audit::v1::{self as audit, AuditAction, AuditEvent, AuditOutcome},
    v1,
};
use tonic::Request;

use crate::support::{
    Client, ISSUER, TestServer, at,
    clock::START,
    database::eventually,
    introspect_request, issue_request, never, on_date, permissions, person,
    requests::{
        get_request, list_request, outcome, rename_request, revoke_request, set_expiry_request,
        update_request,
    },
};

fn with_id<M>(message: M, id: &str) -> Request<M> {
    let mut request = Request::new(message);
    let value = id.parse().unwrap();
    request.metadata_mut().insert("x-request-id", value);
    request
}

/// The events that were not seen before.
async fn fresh(server: &TestServer, seen: &mut HashSet<String>) -> Vec<AuditEvent> {
    let mut events = server.audit().await;
    events.retain(|event| seen.insert(event.event_uid.clone()));
    events
}

fn details(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_token_leaves_exactly_one_row_that_says_who_did_what() {
    let server = TestServer::start().await;
    let (mut admin, mut operator) = (server.admin().await, server.operator().await);
    let stack = &server.stack;
    let mut seen = HashSet::new();
    fresh(&server, &mut seen).await;
    let mut check = async |action: AuditAction,
                           id: &str,
                           subject: &str,
                           uid: &str,
                           expected: &[(&str, &str)]| {
        let events = fresh(&server, &mut seen).await;
        let [event] = <[_; 1]>::try_from(events).unwrap();
        assert_eq!(event.action(), action);
        assert_eq!(event.outcome(), AuditOutcome::Done);
        assert_eq!((event.request_id.as_str(), event.count), (id, 1));
        assert_eq!(
            (event.stack_api_key.as_str(), event.token_uid.as_str()),
            (stack.as_str(), uid)
        );
        assert_eq!(event.reason, "");
        let occurred_at = event.occurred_at.unwrap();
        assert_eq!(occurred_at.seconds, server.clock.seconds());
        let actor = event.actor.unwrap();
        assert_eq!(
            (actor.issuer.as_str(), actor.subject.as_str()),
            (ISSUER, subject)
        );
        let kind = match subject {
            "operator" => v1::CallerKind::Operator,
            _ => v1::CallerKind::User,
        };
        assert_eq!(actor.kind(), kind);
        assert_eq!(event.details, details(expected));
        assert!(event.event_uid.parse::<uuid::Uuid>().is_ok());
    };
    let issue = v1::IssueRequest {
        expiry: Some(at(START + 3600)),
        ..issue_request(stack, "deploy")
    };
    let issued = admin
        .tokens
        .issue(with_id(issue, "req-issue"))
        .await
        .unwrap();
    let uid = issued.into_inner().token.unwrap().token_uid;
    let noon = "2026-11-24T13:00:00Z";
    let writes = r#"{"access":"READ_WRITE"}"#;
    check(
        AuditAction::TokenIssue,
        "req-issue",
        "admin",
        &uid,
        &[
            ("name", "deploy"),
            ("permissions", writes),
            ("expires_at", noon),
        ],
    )
    .await;
    server.clock.advance(Duration::from_secs(5));
    let token = v1::Token {
        name: "renamed".into(),
        permissions: Some(permissions(v1::Access::Read)),
        ..Default::default()
    };
    let update = update_request(stack, &uid, &["name", "permissions", "description"], token);
    admin
        .tokens
        .update(with_id(update, "req-update"))
        .await
        .unwrap();
    check(
        AuditAction::TokenUpdate,
        "req-update",
        "admin",
        &uid,
        &[
            ("name.before", "deploy"),
            ("name", "renamed"),
            ("permissions.before", writes),
            ("permissions", r#"{"access":"READ"}"#),
        ],
    )
    .await;
    let later = set_expiry_request(stack, &uid, never());
    admin
        .tokens
        .set_expiry(with_id(later, "req-later"))
        .await
        .unwrap();
    check(
        AuditAction::TokenSetExpiry,
        "req-later",
        "admin",
        &uid,
        &[("expires_at.before", noon), ("expires_at", "never")],
    )
    .await;
    let earlier = set_expiry_request(stack, &uid, on_date("2027-01-01"));
    operator
        .tokens
        .set_expiry(with_id(earlier, "req-earlier"))
        .await
        .unwrap();
    check(
        AuditAction::TokenSetExpiry,
        "req-earlier",
        "operator",
        &uid,
        &[
            ("expires_at.before", "never"),
            ("expires_at", "2027-01-01T00:00:00Z"),
        ],
    )
    .await;
    for (again, why) in [("false", "leaked"), ("true", "to be sure")] {
        let revoke = revoke_request(stack, &uid, why);
        operator
            .tokens
            .revoke(with_id(revoke, "req-revoke"))
            .await
            .unwrap();
        check(
            AuditAction::TokenRevoke,
            "req-revoke",
            "operator",
            &uid,
            &[("reason", why), ("again", again)],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_stack_leaves_exactly_one_row() {
    let server = TestServer::start().await;
    let mut stacks = server.operator().await.stacks;
    let key = || server.stack.clone();
    let mut seen = HashSet::new();
    fresh(&server, &mut seen).await;
    let mut check = async |action: AuditAction, expected: &[(&str, &str)]| {
        let events = fresh(&server, &mut seen).await;
        let [event] = <[_; 1]>::try_from(events).unwrap();
        assert_eq!(
            (event.action(), event.outcome()),
            (action, AuditOutcome::Done)
        );
        assert_eq!(event.actor.unwrap().subject, "operator");
        assert_eq!(event.details, details(expected));
        assert!(
            !event.request_id.is_empty(),
            "made, where the client sent none"
        );
    };
    let newcomer = || Some(person("newcomer"));
    let set = admin::SetMemberRequest {
        stack_api_key: key(),
        member: newcomer(),
        role: admin::Role::Developer.into(),
    };
    stacks.set_member(set).await.unwrap();
    let named = "https://login.test newcomer";
    let member = [("member", named), ("role", "DEVELOPER")];
    check(AuditAction::StackSetMember, &member).await;
    let removed = admin::RemoveMemberRequest {
        stack_api_key: key(),
        member: newcomer(),
    };
    stacks.remove_member(removed).await.unwrap();
    check(AuditAction::StackRemoveMember, &[("member", named)]).await;
    let heir = admin::TransferOwnershipRequest {
        stack_api_key: key(),
        new_owner: newcomer(),
    };
    stacks.transfer_ownership(heir).await.unwrap();
    let owners = [
        ("owner", named),
        ("owner.before", "https://login.test owner"),
    ];
    check(AuditAction::StackTransferOwnership, &owners).await;
    server.set_limit(12).await;
    let limits = [
        ("max_tokens", "12"),
        ("max_tokens.before", "10"),
        ("reason", "a test"),
    ];
    check(AuditAction::StackSetTokenLimit, &limits).await;
    let why = [("reason", "why")];
    let reason = || "why".to_owned();
    stacks
        .suspend(admin::SuspendRequest {
            stack_api_key: key(),
            reason: reason(),
        })
        .await
        .unwrap();
    check(AuditAction::StackSuspend, &why).await;
    stacks
        .resume(admin::ResumeRequest {
            stack_api_key: key(),
            reason: reason(),
        })
        .await
        .unwrap();
    check(AuditAction::StackResume, &why).await;
    stacks
        .remove(admin::RemoveRequest {
            stack_api_key: key(),
            reason: reason(),
        })
        .await
        .unwrap();
    check(AuditAction::StackRemove, &why).await;
}

/// All refusals there are, by action, reason and subject, with their counts; a minute has
/// one row each.
async fn refusals(client: &mut Client) -> BTreeMap<(String, String, String), Vec<u32>> {
    let request = audit::ListRequest {
        page_size: 100,
        ..Default::default()
    };
    let events = client
        .audit
        .list(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let mut seen = BTreeMap::<_, Vec<u32>>::new();
    for event in events {
        if event.outcome() == AuditOutcome::Refused {
            let action = event.action().as_str_name().replace("AUDIT_ACTION_", "");
            let subject = event.actor.unwrap().subject;
            seen.entry((action, event.reason, subject))
                .or_default()
                .push(event.count);
        }
    }
    seen
}

fn key(action: &str, reason: &str, subject: &str) -> (String, String, String) {
    (action.into(), reason.into(), subject.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_one_row_per_caller_rpc_reason_and_minute_with_a_count() {
    let server = TestServer::start().await;
    let stack = &server.stack;
    let (mut developer, mut stranger) = (server.developer().await, server.stranger().await);
    let mut operator = server.operator().await;
    let first = with_id(issue_request(stack, "x"), "the-first");
    assert!(developer.tokens.issue(first).await.is_err());
    for _ in 0..4 {
        assert!(
            developer
                .tokens
                .issue(issue_request(stack, "x"))
                .await
                .is_err()
        );
    }
    for _ in 0..2 {
        assert!(
            stranger
                .tokens
                .issue(issue_request(stack, "x"))
                .await
                .is_err()
        );
        assert!(developer.tokens.list(list_request(stack)).await.is_err());
    }
    let missing = get_request(stack, "01890000-0000-7000-8000-000000000000");
    assert!(server.owner().await.tokens.get(missing).await.is_err());
    let expected = BTreeMap::from([
        (key("TOKEN_ISSUE", "ROLE_REQUIRED", "developer"), vec![5]),
        (key("TOKEN_ISSUE", "STACK_NOT_FOUND", "stranger"), vec![2]),
        (key("TOKEN_LIST", "ROLE_REQUIRED", "developer"), vec![2]),
        (key("TOKEN_GET", "TOKEN_NOT_FOUND", "owner"), vec![1]),
    ]);
    eventually("the refusals are recorded", async || {
        (refusals(&mut operator).await == expected).then_some(())
    })
    .await;
    let events = server.audit().await;
    let by_developer = |event: &&AuditEvent| event.count == 5;
    let event = events.iter().find(by_developer).unwrap();
    assert_eq!(event.request_id, "the-first");
    assert_eq!(event.occurred_at.unwrap().seconds, START);
    assert_eq!(event.details, details(&[]));
    server.clock.advance(Duration::from_secs(60));
    assert!(
        developer
            .tokens
            .issue(issue_request(stack, "x"))
            .await
            .is_err()
    );
    let both = vec![1, 5];
    eventually("another minute has a row of its own", async || {
        let seen = refusals(&mut operator).await;
        let rows = seen.get(&key("TOKEN_ISSUE", "ROLE_REQUIRED", "developer"));
        (rows == Some(&both)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_by_a_rule_or_a_rate_and_on_stacks_and_the_audit_are_recorded_too() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 5.try_into().unwrap();
    })
    .await;
    let stack = &server.stack;
    let (mut owner, mut operator) = (server.owner().await, server.operator().await);
    let dead = server.token("dead").await;
    server.revoke(&dead.uid).await;
    let renamed = rename_request(stack, &dead.uid, "reborn");
    assert_eq!(
        outcome(&owner.tokens.update(renamed.clone()).await),
        "FailedPrecondition TOKEN_REVOKED"
    );
    let mut told = String::new();
    for _ in 0..40 {
        told = outcome(&owner.tokens.update(renamed.clone()).await);
        if told.ends_with("RATE_LIMITED") {
            break;
        }
    }
    assert_eq!(told, "ResourceExhausted RATE_LIMITED");
    let mut mere = server.mere_service().await;
    assert!(mere.tokens.list(list_request(stack)).await.is_err());
    let of_stacks = admin::ListRequest::default();
    assert!(owner.stacks.list(of_stacks).await.is_err());
    let mut developer = server.developer().await;
    let of_audit = audit::ListRequest {
        stack_api_key: stack.clone(),
        ..Default::default()
    };
    assert!(developer.audit.list(of_audit).await.is_err());
    let expected = [
        key("TOKEN_UPDATE", "TOKEN_REVOKED", "owner"),
        key("TOKEN_UPDATE", "RATE_LIMITED", "owner"),
        key("TOKEN_LIST", "ROLE_REQUIRED", "mailer"),
        key("STACK_LIST", "ROLE_REQUIRED", "owner"),
        key("AUDIT_LIST", "ROLE_REQUIRED", "developer"),
    ];
    eventually("all of them are recorded", async || {
        let seen = refusals(&mut operator).await;
        expected
            .iter()
            .all(|key| seen.contains_key(key))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_credential_and_verdicts_leave_no_rows() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognised_per_second = 2.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await;
    let stack = &server.stack;
    let mut anonymous = server.anonymous().await;
    let mut forged = server.with_authorization("Bearer e30.e30.e30").await;
    let mut posing = server
        .with_authorization(format!("Bearer {}", token.secret))
        .await;
    let (mut service, mut mere) = (server.service().await, server.mere_service().await);
    let mut operator = server.operator().await;
    let before = server.audit().await.len();
    for client in [&mut anonymous, &mut forged, &mut posing] {
        assert!(client.tokens.list(list_request(stack)).await.is_err());
        assert!(
            client
                .tokens
                .issue(issue_request(stack, "x"))
                .await
                .is_err()
        );
        let question = introspect_request(stack, &token.secret, &[]);
        assert!(client.introspection.introspect(question).await.is_err());
    }
    for secret in [
        token.secret.as_str(),
        "junk",
        "junk",
        "junk",
        "junk",
        "junk",
    ] {
        let question = introspect_request(stack, secret, &["token.create"]);
        let _ = service.introspection.introspect(question.clone()).await;
        assert!(mere.introspection.introspect(question).await.is_err());
    }
    // A refusal that is recorded: what came before it would have been by then.
    let mut stranger = server.stranger().await;
    assert!(stranger.tokens.list(list_request(stack)).await.is_err());
    let only = BTreeMap::from([(key("TOKEN_LIST", "STACK_NOT_FOUND", "stranger"), vec![1])]);
    eventually("the refusal after them is recorded", async || {
        let seen = refusals(&mut operator).await;
        (!seen.is_empty()).then_some(seen)
    })
    .await;
    assert_eq!(refusals(&mut operator).await, only);
    assert_eq!(server.audit().await.len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_leaves_no_rows() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let before = server.audit().await;
    let mut owner = server.owner().await;
    owner
        .tokens
        .get(get_request(&server.stack, &token.uid))
        .await
        .unwrap();
    owner
        .tokens
        .list(list_request(&server.stack))
        .await
        .unwrap();
    let of_stack = admin::GetRequest {
        stack_api_key: server.stack.clone(),
    };
    owner.stacks.get(of_stack).await.unwrap();
    owner
        .introspection
        .list_actions(v1::ListActionsRequest {})
        .await
        .unwrap();
    server.introspect(&token.secret, &["entry.read"]).await;
    assert_eq!(server.audit().await, before);
}
