//! What was done.

use std::{collections::HashSet, time::Duration};

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    audit::v1::{AuditAction, AuditEvent, AuditOutcome},
    v1,
};

use super::{details, with_id};
use crate::support::{
    ISSUER, TestServer, at,
    clock::START,
    issue_request, never, on_date, permissions, person,
    requests::{revoke_request, set_expiry_request, update_request},
};

/// The events that were not seen before.
async fn fresh(server: &TestServer, seen: &mut HashSet<String>) -> Vec<AuditEvent> {
    let mut events = server.audit().await;
    events.retain(|event| seen.insert(event.event_uid.clone()));
    events
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
        validate_only: false,
    };
    stacks.set_member(set).await.unwrap();
    let named = "https://login.test newcomer";
    let member = [("member", named), ("role", "DEVELOPER")];
    check(AuditAction::StackSetMember, &member).await;
    let removed = admin::RemoveMemberRequest {
        stack_api_key: key(),
        member: newcomer(),
        validate_only: false,
    };
    stacks.remove_member(removed).await.unwrap();
    check(AuditAction::StackRemoveMember, &[("member", named)]).await;
    let heir = admin::TransferOwnershipRequest {
        stack_api_key: key(),
        new_owner: newcomer(),
        validate_only: false,
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
            validate_only: false,
        })
        .await
        .unwrap();
    check(AuditAction::StackSuspend, &why).await;
    stacks
        .resume(admin::ResumeRequest {
            stack_api_key: key(),
            reason: reason(),
            validate_only: false,
        })
        .await
        .unwrap();
    check(AuditAction::StackResume, &why).await;
    stacks
        .remove(admin::RemoveRequest {
            stack_api_key: key(),
            reason: reason(),
            validate_only: false,
        })
        .await
        .unwrap();
    check(AuditAction::StackRemove, &why).await;
}
