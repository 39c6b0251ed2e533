//! Tests `AuditService.List`: who may read which events, what an event contains, and pages.

use std::time::Duration;

use stacktoken::grpc::pb::{
    audit::v1::{
        AuditEvent, AuditOutcome, AuditState, ListRequest, ListResponse, audit_state::State,
    },
    v1::{Access, CallerKind, Token},
};
use tonic::Code;

use crate::support::{
    Client, ISSUER, TestServer, at, clients::fields, issue_request, methods, never, permissions,
    raw::outcome,
};

const NOT_FOUND: (Code, &str) = (Code::NotFound, "STACK_NOT_FOUND");

pub async fn list(client: &mut Client, request: ListRequest) -> ListResponse {
    client.audit.list(request).await.unwrap().into_inner()
}

pub fn of_stack(key: &str) -> ListRequest {
    ListRequest {
        stack_api_key: key.into(),
        page_size: 100,
        ..Default::default()
    }
}

/// Returns the token in a snapshot.
fn token(state: Option<&AuditState>) -> &Token {
    match state.and_then(|state| state.state.as_ref()) {
        Some(State::Token(token)) => token,
        other => panic!("not a token: {other:?}"),
    }
}

/// Returns the name that the token had after each event.
pub fn names(page: &ListResponse) -> Vec<&str> {
    let events = page.events.iter();
    events
        .map(|event| token(event.after.as_ref()).name.as_str())
        .collect()
}

/// Waits until `count` refusals are recorded. The server records a refusal only after it has sent
/// the response.
pub async fn refusals(client: &mut Client, request: ListRequest, count: u32) -> Vec<AuditEvent> {
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
        .expect("the refusals are not recorded in time")
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
        assert_eq!(page.events[0].method, methods::ISSUE);
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
        let refused = client.audit.list(all.clone()).await.unwrap_err();
        assert_eq!(fields(&refused), ["stack_api_key"]);
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
    // The only events are the registration and the refused `List` of the user without a role.
    for event in list(&mut somebody_else, theirs).await.events {
        let expected = match event.outcome() {
            AuditOutcome::Refused => methods::LIST_AUDIT,
            _ => methods::REGISTER,
        };
        assert_eq!(event.method, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_says_who_did_what_to_which_token_when_and_in_which_request() {
    let server = TestServer::start().await;
    server.clock.advance(Duration::from_secs(1));
    let issued = server.issue("deploy").await;
    let page = list(&mut server.owner().await, of_stack(&server.stack)).await;
    let event = &page.events[0];
    assert_eq!(event.method, methods::ISSUE);
    assert_eq!(event.outcome(), AuditOutcome::Done);
    assert_eq!(event.token_uid, issued.token.unwrap().token_uid);
    assert_eq!(event.occurred_at.unwrap().seconds, server.clock.seconds());
    let actor = event.actor.as_ref().unwrap();
    assert_eq!(actor.kind(), CallerKind::User);
    assert_eq!(
        (actor.issuer.as_str(), actor.subject.as_str()),
        (ISSUER, "owner")
    );
    assert_eq!((event.count, event.error_reason.as_str()), (1, ""));
    assert!(!event.call_id.is_empty() && !event.event_uid.is_empty());
    assert_eq!(
        (event.request_id.as_str(), event.before.as_ref()),
        ("", None)
    );
    let after = token(event.after.as_ref());
    assert_eq!((after.name.as_str(), after.expires_at), ("deploy", None));
    assert_eq!(after.issued_by.as_ref(), Some(actor));
    // The event contains neither the secret nor the part of the secret that lists show (R9).
    let told = format!("{event:?}");
    assert!(!told.contains("stk1_"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_audited_with_the_former_values() {
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
        etag: String::new(),
    };
    server.clock.advance(Duration::from_secs(1));
    owner.tokens.update(update).await.unwrap();
    let page = list(&mut owner, of_stack(&server.stack)).await;
    let event = &page.events[0];
    assert_eq!(event.method, methods::UPDATE);
    let (before, after) = (token(event.before.as_ref()), token(event.after.as_ref()));
    assert_eq!((before.name.as_str(), after.name.as_str()), ("old", "new"));
    let access = |token: &Token| token.permissions.as_ref().unwrap().access();
    assert_eq!(
        (access(before), access(after)),
        (Access::ReadWrite, Access::Read)
    );
    assert!(event.details.is_empty(), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_the_version_before_are_shown() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    // This row has the format of the first version: it has no `idempotency_key`, and the changes
    // are in `details`.
    outside
        .run(&format!(
            "INSERT INTO audit_events (uid, occurred_at, actor_kind, actor_issuer, actor_subject, \
             action, stack_key, count, request_id, details) VALUES \
             (x'00000000000000000000000000000004', 2, 'USER', '{ISSUER}', 'ann', 'token_update', \
             '{}', 1, 'r', '{{\"name\":\"new\",\"name.before\":\"old\"}}')",
            server.stack
        ))
        .await;
    let of_call = ListRequest {
        call_id: "r".into(),
        ..of_stack(&server.stack)
    };
    let page = list(&mut server.owner().await, of_call).await;
    let [event] = <[_; 1]>::try_from(page.events).unwrap();
    assert_eq!(event.method, methods::UPDATE);
    assert_eq!((event.before, event.after), (None, None));
    assert_eq!(event.request_id, "");
    assert_eq!(event.details["name.before"], "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_stay_stable_while_events_are_added() {
    let server = TestServer::start().await;
    // All events occur at the same instant, so a page cannot start at an instant alone.
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
async fn a_page_has_50_rows_by_default_and_100_at_most() {
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
            etag: String::new(),
        };
        owner.tokens.set_expiry(request).await.unwrap();
    }
    for (page_size, expected) in [(0, 50), (1, 1), (100, 100), (i32::MAX, 100)] {
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
        assert_eq!(row.method, methods::ISSUE);
        assert_eq!((row.error_reason.as_str(), row.count), ("ROLE_REQUIRED", 3));
        assert_eq!(row.stack_api_key, server.stack);
        assert_eq!(row.actor.unwrap().subject, "developer");
        assert!(row.details.is_empty());
    }
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
        methods: vec![methods::ISSUE.into()],
        ..of_stack(&server.stack)
    };
    let status = operator.audit.list(another).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
}
