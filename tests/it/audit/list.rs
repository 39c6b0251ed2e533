//! AuditService.List: who may read what, filters, pages.

use std::time::Duration;

use stacktoken::grpc::pb::{
    audit::v1::{AuditAction, AuditEvent, AuditOutcome, ListRequest, ListResponse},
    v1::{CallerKind, RevokeRequest},
};
use tonic::Code;

use crate::support::{
    Client, ISSUER, TestServer, at, clients::fields, issue_request, never, permissions,
    raw::outcome,
};

const NOT_FOUND: (Code, &str) = (Code::NotFound, "STACK_NOT_FOUND");

async fn list(client: &mut Client, request: ListRequest) -> ListResponse {
    client.audit.list(request).await.unwrap().into_inner()
}

fn of_stack(key: &str) -> ListRequest {
    ListRequest {
        stack_api_key: key.into(),
        page_size: 100,
        ..Default::default()
    }
}

fn actions(page: &ListResponse) -> Vec<AuditAction> {
    page.events.iter().map(AuditEvent::action).collect()
}

/// Names of tokens in the details of these events.
fn names(page: &ListResponse) -> Vec<&str> {
    page.events
        .iter()
        .map(|event| event.details["name"].as_str())
        .collect()
}

/// Waits until so many refusals are written, which happens after their answers.
async fn refusals(client: &mut Client, request: ListRequest, count: u32) -> Vec<AuditEvent> {
    let written = async {
        loop {
            let page = list(client, request.clone()).await;
            let refused: Vec<_> = page
                .events
                .into_iter()
                .filter(|event| event.outcome() == AuditOutcome::Refused)
                .collect();
            if refused.iter().map(|event| event.count).sum::<u32>() >= count {
                return refused;
            }
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, written)
        .await
        .expect("refusals are written")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_and_admin_see_the_events_of_the_stack_they_name() {
    let server = TestServer::start().await;
    let other = server.register("Another").await;
    server.clock.advance(Duration::from_secs(1));
    server.issue("first").await;
    for mut client in [
        server.owner().await,
        server.admin().await,
        server.operator().await,
    ] {
        let page = list(&mut client, of_stack(&server.stack)).await;
        assert_eq!(page.events.len(), 5);
        assert_eq!(page.events[0].action(), AuditAction::TokenIssue);
        let keys = page.events.iter().map(|event| &event.stack_api_key);
        assert!(
            keys.clone()
                .all(|key| *key == server.stack && *key != other)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_sees_the_events_of_all_stacks() {
    let server = TestServer::start().await;
    let other = server.register("Another").await;
    let all = ListRequest::default();
    for mut client in [server.owner().await, server.admin().await] {
        let answered = client.audit.list(all.clone()).await;
        assert_eq!(outcome(&answered), (NOT_FOUND.0, NOT_FOUND.1.to_owned()));
    }
    let page = list(&mut server.operator().await, all).await;
    for key in [&server.stack, &other] {
        assert!(page.events.iter().any(|event| event.stack_api_key == *key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_of_one_stack_does_not_see_another() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let request = stacktoken::grpc::pb::admin::v1::RegisterRequest {
        name: "Theirs".into(),
        organization_uid: "org-2".into(),
        owner: Some(crate::support::person("somebody-else")),
        ..Default::default()
    };
    let theirs = operator
        .stacks
        .register(request)
        .await
        .unwrap()
        .into_inner();
    let theirs = of_stack(&theirs.stack.unwrap().stack_api_key);
    let mut owner = server.owner().await;
    let answered = owner.audit.list(theirs.clone()).await;
    assert_eq!(outcome(&answered), (NOT_FOUND.0, NOT_FOUND.1.to_owned()));
    let mut somebody_else = server.user("somebody-else").await;
    // Their own registration, and that somebody without a part tried to look.
    for event in list(&mut somebody_else, theirs).await.events {
        let expected = match event.outcome() {
            AuditOutcome::Refused => AuditAction::AuditList,
            _ => AuditAction::StackRegister,
        };
        assert_eq!(event.action(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_says_who_did_what_to_which_token_when_and_in_which_request() {
    let server = TestServer::start().await;
    server.clock.advance(Duration::from_secs(1));
    let issued = server.issue("deploy").await;
    let page = list(&mut server.owner().await, of_stack(&server.stack)).await;
    let event = &page.events[0];
    assert_eq!(event.action(), AuditAction::TokenIssue);
    assert_eq!(event.outcome(), AuditOutcome::Done);
    assert_eq!(event.token_uid, issued.token.unwrap().token_uid);
    assert_eq!(event.occurred_at.unwrap().seconds, server.clock.seconds());
    let actor = event.actor.as_ref().unwrap();
    assert_eq!(actor.kind(), CallerKind::User);
    assert_eq!(
        (actor.issuer.as_str(), actor.subject.as_str()),
        (ISSUER, "owner")
    );
    assert_eq!((event.count, event.reason.as_str()), (1, ""));
    assert!(!event.request_id.is_empty() && !event.event_uid.is_empty());
    assert_eq!(event.details["name"], "deploy");
    assert_eq!(event.details["expires_at"], "never");
    // Never the secret, nor the part of it that lists show (R9).
    let told = format!("{event:?}");
    assert!(!told.contains("stk1_"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_told_with_what_was_before() {
    let server = TestServer::start().await;
    let uid = server.issue("old").await.token.unwrap().token_uid;
    let mut owner = server.owner().await;
    let update = stacktoken::grpc::pb::v1::UpdateRequest {
        stack_api_key: server.stack.clone(),
        token: Some(stacktoken::grpc::pb::v1::Token {
            token_uid: uid.clone(),
            name: "new".into(),
            permissions: Some(permissions(stacktoken::grpc::pb::v1::Access::Read)),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["name".into(), "permissions".into()],
        }),
        validate_only: false,
    };
    server.clock.advance(Duration::from_secs(1));
    owner.tokens.update(update).await.unwrap();
    let page = list(&mut owner, of_stack(&server.stack)).await;
    let details = &page.events[0].details;
    assert_eq!(page.events[0].action(), AuditAction::TokenUpdate);
    assert_eq!(
        (details["name.before"].as_str(), details["name"].as_str()),
        ("old", "new")
    );
    assert!(
        details["permissions.before"].contains("READ_WRITE"),
        "{details:?}"
    );
    assert!(
        !details["permissions"].contains("READ_WRITE"),
        "{details:?}"
    );
    assert_eq!(details.len(), 4, "{details:?}");
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
    };
    admin.tokens.revoke(revoke).await.unwrap();

    let all = of_stack(&key);
    let mut owner = server.owner().await;
    let found = async |owner: &mut Client, request| actions(&list(owner, request).await);
    let (issue, revoked) = (AuditAction::TokenIssue, AuditAction::TokenRevoke);
    let of_token = ListRequest {
        token_uid: first.clone(),
        ..all.clone()
    };
    assert_eq!(found(&mut owner, of_token).await, [revoked, issue]);
    let of_admin = ListRequest {
        actor_subject: "admin".into(),
        ..all.clone()
    };
    assert_eq!(found(&mut owner, of_admin.clone()).await, [revoked, issue]);
    let of_action = ListRequest {
        action: issue.into(),
        ..all.clone()
    };
    let page = list(&mut owner, of_action).await;
    assert_eq!(names(&page), ["by the admin", "by the owner"]);
    let of_issuer = |issuer: &str| ListRequest {
        actor_issuer: issuer.into(),
        ..all.clone()
    };
    assert_eq!(found(&mut owner, of_issuer(ISSUER)).await.len(), 7);
    assert_eq!(found(&mut owner, of_issuer("https://else.test")).await, []);
    // From its own instant on, before that of the next.
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
        token_uid: first,
        actor_issuer: ISSUER.into(),
        actor_subject: "owner".into(),
        action: issue.into(),
        ..window
    };
    assert_eq!(
        names(&list(&mut owner, together.clone()).await),
        ["by the owner"]
    );
    let none = ListRequest {
        actor_subject: "admin".into(),
        ..together
    };
    assert_eq!(found(&mut owner, none).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_stable_while_events_are_added() {
    let server = TestServer::start().await;
    // All in one instant, so that the instant alone does not tell where a page ends.
    for name in ["a", "b", "c", "d", "e"] {
        server.issue(name).await;
    }
    let mut owner = server.owner().await;
    let whole = list(&mut owner, of_stack(&server.stack)).await;
    assert_eq!(whole.next_page_token, "");
    let (mut found, mut page_token) = (Vec::new(), String::new());
    for n in 0..20 {
        let request = ListRequest {
            page_size: 2,
            page_token,
            ..of_stack(&server.stack)
        };
        let page = list(&mut owner, request).await;
        assert!(page.events.len() <= 2);
        found.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        server.clock.advance(Duration::from_secs(1));
        server.issue(&format!("added meanwhile {n}")).await;
    }
    assert_eq!(found, whole.events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_holds_50_where_nobody_says_and_100_at_most() {
    let server = TestServer::start().await;
    let uid = server.issue("first").await.token.unwrap().token_uid;
    let mut owner = server.owner().await;
    for n in 0..100 {
        let request = stacktoken::grpc::pb::v1::SetExpiryRequest {
            stack_api_key: server.stack.clone(),
            token_uid: uid.clone(),
            expiry: Some(match n % 2 {
                0 => at(server.clock.seconds() + 3600),
                _ => never(),
            }),
            validate_only: false,
        };
        owner.tokens.set_expiry(request).await.unwrap();
    }
    for (page_size, expected) in [(0, 50), (1, 1), (100, 100)] {
        let request = ListRequest {
            page_size,
            ..of_stack(&server.stack)
        };
        let page = list(&mut owner, request).await;
        assert_eq!(page.events.len(), expected);
        assert!(!page.next_page_token.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_one_minute_share_a_row_and_those_of_the_next_do_not() {
    let server = TestServer::start().await;
    let mut developer = server.developer().await;
    let mut operator = server.operator().await;
    let mut refused = 0;
    for _ in 0..2 {
        for name in ["a", "b", "c"] {
            let request = issue_request(&server.stack, name);
            developer.tokens.issue(request).await.unwrap_err();
            refused += 1;
        }
        refusals(&mut operator, of_stack(&server.stack), refused).await;
        server.clock.advance(Duration::from_secs(60));
    }
    let rows = refusals(&mut operator, of_stack(&server.stack), refused).await;
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row.action(), AuditAction::TokenIssue);
        assert_eq!((row.reason.as_str(), row.count), ("ROLE_REQUIRED", 3));
        assert_eq!(row.stack_api_key, server.stack);
        assert_eq!(row.actor.unwrap().subject, "developer");
        assert!(row.details.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_question_is_reported_at_once() {
    let server = TestServer::start().await;
    let wrong = prost_types::Timestamp {
        seconds: 0,
        nanos: -1,
    };
    let request = ListRequest {
        page_size: 101,
        page_token: "junk".into(),
        stack_api_key: "blt".into(),
        token_uid: "not-a-uuid".into(),
        actor_issuer: "x".repeat(513),
        actor_subject: "x".repeat(256),
        action: 99,
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
            "action",
            "actor_issuer",
            "actor_subject",
            "occurred_before",
            "occurred_from",
            "page_size",
            "page_token",
            "stack_api_key",
            "token_uid"
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_of_another_question_is_refused() {
    let server = TestServer::start().await;
    server.issue("first").await;
    let mut operator = server.operator().await;
    let first = ListRequest {
        page_size: 1,
        ..of_stack(&server.stack)
    };
    let page_token = list(&mut operator, first).await.next_page_token;
    let another = ListRequest {
        page_token,
        action: AuditAction::TokenIssue.into(),
        ..of_stack(&server.stack)
    };
    let status = operator.audit.list(another).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
}
