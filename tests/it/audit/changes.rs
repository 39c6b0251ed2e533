//! Tests the audit rows of changes.

use std::{collections::HashSet, time::Duration};

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    audit::v1::{AuditEvent, AuditEventKind, AuditOutcome, AuditState, audit_state::State},
    v1,
};

use super::{details, with_id};
use crate::support::{
    ISSUER, TestServer, at,
    clock::START,
    issue_request, methods, never, on_date, permissions, person,
    requests::{
        end_overlap_request, overlap_for, revoke_request, rotate_request, set_expiry_request,
        update_request,
    },
};

/// Returns the events that are not in `seen` yet, and adds them to it.
async fn fresh(server: &TestServer, seen: &mut HashSet<String>) -> Vec<AuditEvent> {
    let mut events = server.audit().await;
    events.retain(|event| seen.insert(event.event_uid.clone()));
    events
}

/// Returns the token in a snapshot.
fn token(state: Option<AuditState>) -> Option<v1::Token> {
    state.map(|state| match state.state.unwrap() {
        State::Token(token) => token,
        other => panic!("not a token: {other:?}"),
    })
}

/// The expected content of the audit row of a change.
struct Expected<'a> {
    method: &'a str,
    call_id: &'a str,
    subject: &'a str,
    before: Option<&'a v1::Token>,
    after: &'a v1::Token,
    details: &'a [(&'a str, &'a str)],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_token_leaves_exactly_one_row_that_says_who_did_what() {
    let server = TestServer::start().await;
    let (mut admin, mut operator) = (server.admin().await, server.operator().await);
    let stack = &server.stack;
    let mut seen = HashSet::new();
    fresh(&server, &mut seen).await;
    let mut check = async |expected: Expected<'_>| {
        let events = fresh(&server, &mut seen).await;
        let [event] = <[_; 1]>::try_from(events).unwrap();
        let (method, subject) = (expected.method, expected.subject);
        assert_eq!(
            (event.method.as_str(), event.kind()),
            (method, AuditEventKind::Call)
        );
        assert_eq!(event.outcome(), AuditOutcome::Done);
        assert_eq!((event.call_id.as_str(), event.count), (expected.call_id, 1));
        // Only the `Issue` call has an idempotency key.
        let key = if method == methods::ISSUE {
            "the-key"
        } else {
            ""
        };
        assert_eq!(event.request_id, key);
        assert_eq!(
            (event.stack_api_key.as_str(), event.token_uid.as_str()),
            (stack.as_str(), expected.after.token_uid.as_str())
        );
        assert_eq!(event.error_reason, "");
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
        assert_eq!(token(event.before).as_ref(), expected.before, "{method}");
        assert_eq!(
            token(event.after).as_ref(),
            Some(expected.after),
            "{method}"
        );
        assert_eq!(event.details, details(expected.details));
        assert!(event.event_uid.parse::<uuid::Uuid>().is_ok());
    };
    let issue = v1::IssueRequest {
        expiry: Some(at(START + 3600)),
        request_id: "the-key".into(),
        ..issue_request(stack, "deploy")
    };
    let issued = admin.tokens.issue(with_id(issue, "req-issue")).await;
    let issued = issued.unwrap().into_inner().token.unwrap();
    let uid = issued.token_uid.clone();
    check(Expected {
        method: methods::ISSUE,
        call_id: "req-issue",
        subject: "admin",
        before: None,
        after: &issued,
        details: &[],
    })
    .await;
    server.clock.advance(Duration::from_secs(5));
    let edit = v1::Token {
        name: "renamed".into(),
        permissions: Some(permissions(v1::Access::Read)),
        ..Default::default()
    };
    let update = update_request(stack, &uid, &["name", "permissions", "description"], edit);
    let updated = admin.tokens.update(with_id(update, "req-update")).await;
    let updated = updated.unwrap().into_inner().token.unwrap();
    assert_ne!(updated, issued);
    check(Expected {
        method: methods::UPDATE,
        call_id: "req-update",
        subject: "admin",
        before: Some(&issued),
        after: &updated,
        details: &[],
    })
    .await;
    let later = set_expiry_request(stack, &uid, never());
    let later = admin.tokens.set_expiry(with_id(later, "req-later")).await;
    let later = later.unwrap().into_inner().token.unwrap();
    assert_eq!(later.expires_at, None);
    check(Expected {
        method: methods::SET_EXPIRY,
        call_id: "req-later",
        subject: "admin",
        before: Some(&updated),
        after: &later,
        details: &[],
    })
    .await;
    let earlier = set_expiry_request(stack, &uid, on_date("2027-01-01"));
    let earlier = operator.tokens.set_expiry(with_id(earlier, "req-earlier"));
    let earlier = earlier.await.unwrap().into_inner().token.unwrap();
    check(Expected {
        method: methods::SET_EXPIRY,
        call_id: "req-earlier",
        subject: "operator",
        before: Some(&later),
        after: &earlier,
        details: &[],
    })
    .await;
    let rotate = rotate_request(stack, &uid, overlap_for(60));
    let rotated = admin.tokens.rotate(with_id(rotate, "req-rotate")).await;
    let rotated = rotated.unwrap().into_inner().token.unwrap();
    check(Expected {
        method: methods::ROTATE,
        call_id: "req-rotate",
        subject: "admin",
        before: Some(&earlier),
        after: &rotated,
        details: &[
            ("overlap.generation", "1"),
            ("overlap.ends_at", "2026-11-24T12:01:05Z"),
            ("overlap.until_first_use", "false"),
        ],
    })
    .await;
    let end = end_overlap_request(stack, &uid);
    let ended = admin.tokens.end_overlap(with_id(end, "req-end")).await;
    let ended = ended.unwrap().into_inner().token.unwrap();
    assert_eq!((rotated.secrets.len(), ended.secrets.len()), (2, 1));
    check(Expected {
        method: methods::END_OVERLAP,
        call_id: "req-end",
        subject: "admin",
        before: Some(&rotated),
        after: &ended,
        details: &[("ended", "1")],
    })
    .await;
    let mut before = ended;
    for (again, why) in [("false", "leaked"), ("true", "to be sure")] {
        let revoke = revoke_request(stack, &uid, why);
        let revoked = operator.tokens.revoke(with_id(revoke, "req-revoke")).await;
        let revoked = revoked.unwrap().into_inner().token.unwrap();
        check(Expected {
            method: methods::REVOKE,
            call_id: "req-revoke",
            subject: "operator",
            before: Some(&before),
            after: &revoked,
            details: &[("reason", why), ("again", again)],
        })
        .await;
        before = revoked;
    }
    assert_eq!(before.revoke_reason, "leaked");
}

/// The audit row of a change to a stack: its method, the states before and after, and the reason.
type Row = (String, Option<State>, Option<State>, String);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_stack_leaves_exactly_one_row() {
    let server = TestServer::start().await;
    let mut stacks = server.operator().await.stacks;
    let key = || server.stack.clone();
    let mut seen = HashSet::new();
    fresh(&server, &mut seen).await;
    let mut row = async || -> Row {
        let events = fresh(&server, &mut seen).await;
        let [event] = <[_; 1]>::try_from(events).unwrap();
        assert_eq!(event.outcome(), AuditOutcome::Done);
        assert_eq!(event.actor.unwrap().subject, "operator");
        let made = "generated, because the client sent none";
        assert!(!event.call_id.is_empty(), "{made}");
        let state = |state: Option<AuditState>| state.map(|state| state.state.unwrap());
        let reason = event.details.get("reason").cloned().unwrap_or_default();
        assert_eq!(event.details.len(), usize::from(!reason.is_empty()));
        (
            event.method,
            state(event.before),
            state(event.after),
            reason,
        )
    };
    let changed = |method: &str, before: &admin::Stack, after: &admin::Stack, reason: &str| {
        let state = |stack: &admin::Stack| Some(State::Stack(without_email(stack)));
        (
            method.to_owned(),
            state(before),
            state(after),
            reason.to_owned(),
        )
    };
    let newcomer = || {
        Some(admin::Person {
            email: "newcomer@example.test".into(),
            ..person("newcomer")
        })
    };
    let set = admin::SetMemberRequest {
        stack_api_key: key(),
        member: newcomer(),
        role: v1::Role::Developer.into(),
        validate_only: false,
    };
    stacks.set_member(set).await.unwrap();
    // The audit stores only the ids of a person, because an email address is personal data.
    let member = Some(State::Member(admin::Member {
        person: Some(person("newcomer")),
        role: v1::Role::Developer.into(),
        added_at: Some(prost_types::Timestamp {
            seconds: server.clock.seconds(),
            nanos: 0,
        }),
    }));
    let set = (
        methods::SET_MEMBER.to_owned(),
        None,
        member.clone(),
        String::new(),
    );
    assert_eq!(row().await, set);
    let removed = admin::RemoveMemberRequest {
        stack_api_key: key(),
        member: newcomer(),
        validate_only: false,
    };
    stacks.remove_member(removed).await.unwrap();
    let removed = (
        methods::REMOVE_MEMBER.to_owned(),
        member,
        None,
        String::new(),
    );
    assert_eq!(row().await, removed);
    let get = admin::GetRequest {
        stack_api_key: key(),
    };
    let first = stacks.get(get).await.unwrap().into_inner().stack.unwrap();
    let heir = admin::TransferOwnershipRequest {
        stack_api_key: key(),
        new_owner: newcomer(),
        validate_only: false,
    };
    let owned = stacks
        .transfer_ownership(heir)
        .await
        .unwrap()
        .into_inner()
        .stack
        .unwrap();
    assert_eq!(owned.owner.as_ref().unwrap().subject, "newcomer");
    assert_eq!(
        row().await,
        changed(methods::TRANSFER_OWNERSHIP, &first, &owned, "")
    );
    let limit = admin::SetTokenLimitRequest {
        stack_api_key: key(),
        max_tokens: Some(12),
        reason: "a test".into(),
        validate_only: false,
    };
    let limited = stacks
        .set_token_limit(limit)
        .await
        .unwrap()
        .into_inner()
        .stack
        .unwrap();
    assert_eq!(limited.limit.as_ref().unwrap().max, 12);
    assert_eq!(
        row().await,
        changed(methods::SET_TOKEN_LIMIT, &owned, &limited, "a test")
    );
    let suspend = admin::SuspendRequest {
        stack_api_key: key(),
        reason: "why".into(),
        validate_only: false,
    };
    let suspended = stacks
        .suspend(suspend)
        .await
        .unwrap()
        .into_inner()
        .stack
        .unwrap();
    assert_eq!(
        row().await,
        changed(methods::SUSPEND, &limited, &suspended, "why")
    );
    let resume = admin::ResumeRequest {
        stack_api_key: key(),
        reason: "why".into(),
        validate_only: false,
    };
    let resumed = stacks
        .resume(resume)
        .await
        .unwrap()
        .into_inner()
        .stack
        .unwrap();
    assert_eq!(
        row().await,
        changed(methods::RESUME, &suspended, &resumed, "why")
    );
    let remove = admin::RemoveRequest {
        stack_api_key: key(),
        reason: "why".into(),
        validate_only: false,
    };
    let removed = stacks
        .remove(remove)
        .await
        .unwrap()
        .into_inner()
        .stack
        .unwrap();
    assert_eq!(removed.state(), v1::StackState::Removed);
    assert_eq!(
        row().await,
        changed(methods::REMOVE, &resumed, &removed, "why")
    );
}

fn without_email(stack: &admin::Stack) -> admin::Stack {
    let mut stack = stack.clone();
    stack.owner.as_mut().unwrap().email.clear();
    stack
}
