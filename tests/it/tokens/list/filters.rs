//! Which tokens are asked for, and what is no such question.

use std::time::Duration;

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1::{self, TokenOrder, TokenState};

use super::{list, names};
use crate::support::{
    TestServer, at,
    clients::fields,
    clock::START,
    requests::{list_request, outcome},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_found_by_state_in_any_combination() {
    use TokenState::{Active, Expired, Revoked};

    let server = TestServer::start().await;
    server.token("active").await;
    let revoked = server.token("revoked").await;
    server.revoke(&revoked.uid).await;
    server.token_until("expired", at(START + 60)).await;
    let both = server
        .token_until("expired, then revoked", at(START + 60))
        .await;
    server.clock.advance(Duration::from_secs(60));
    server.revoke(&both.uid).await;
    let mut owner = server.owner().await;
    let table: [(&[TokenState], &[&str]); 6] = [
        (
            &[],
            &["active", "expired", "expired, then revoked", "revoked"],
        ),
        (&[Active], &["active"]),
        (&[Expired], &["expired"]),
        (&[Revoked], &["expired, then revoked", "revoked"]),
        (&[Active, Expired], &["active", "expired"]),
        (
            &[Revoked, Active, Active],
            &["active", "expired, then revoked", "revoked"],
        ),
    ];
    for (states, expected) in table {
        let request = v1::ListRequest {
            states: states.iter().map(|state| (*state).into()).collect(),
            order: TokenOrder::Name.into(),
            ..list_request(&server.stack)
        };
        assert_eq!(
            names(&list(&mut owner, request).await),
            expected,
            "{states:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_found_by_when_they_expire_to_the_microsecond() {
    let server = TestServer::start().await;
    server.token("never").await;
    server.token_until("soon", at(START + 60)).await;
    server.token_until("later", at(START + 90)).await;
    let mut owner = server.owner().await;
    for (seconds, nanos, expected) in [
        (START + 60, 0, vec![]),
        (START + 60, 1000, vec!["soon"]),
        (START + 90, 0, vec!["soon"]),
        (START + 91, 0, vec!["later", "soon"]),
        (253_402_300_799, 0, vec!["later", "soon"]),
    ] {
        let request = v1::ListRequest {
            expires_before: Some(Timestamp { seconds, nanos }),
            order: TokenOrder::Name.into(),
            ..list_request(&server.stack)
        };
        assert_eq!(names(&list(&mut owner, request).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_tokens_are_among_those_that_expire_unless_states_are_named() {
    let server = TestServer::start().await;
    server.token_until("expired", at(START + 60)).await;
    server.token_until("live", at(START + 90)).await;
    let revoked = server.token_until("revoked", at(START + 90)).await;
    server.revoke(&revoked.uid).await;
    server.clock.advance(Duration::from_secs(60));
    let mut owner = server.owner().await;
    let seconds = START + 100;
    for (states, expected) in [
        (vec![], vec!["expired", "live", "revoked"]),
        (vec![TokenState::Active.into()], vec!["live"]),
    ] {
        let request = v1::ListRequest {
            states,
            expires_before: Some(Timestamp { seconds, nanos: 0 }),
            order: TokenOrder::Name.into(),
            ..list_request(&server.stack)
        };
        assert_eq!(names(&list(&mut owner, request).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_name_is_taken_to_the_letter() {
    let server = TestServer::start().await;
    for name in [
        "Deploy",
        "deploy prod",
        "50% off",
        "50 off",
        "a_b",
        "axb",
        "back\\slash",
        "Ünder",
    ] {
        server.token(name).await;
    }
    let mut owner = server.owner().await;
    let table: [(&str, &[&str]); 12] = [
        (
            "",
            &[
                "50 off",
                "50% off",
                "Deploy",
                "a_b",
                "axb",
                "back\\slash",
                "deploy prod",
                "Ünder",
            ],
        ),
        ("deploy", &["deploy prod"]),
        ("Deploy", &["Deploy"]),
        ("DEPLOY", &[]),
        ("eploy", &["Deploy", "deploy prod"]),
        ("%", &["50% off"]),
        ("_", &["a_b"]),
        ("\\", &["back\\slash"]),
        ("'", &[]),
        ("Ü", &["Ünder"]),
        ("ü", &[]),
        (" off", &["50 off", "50% off"]),
    ];
    for (part, expected) in table {
        let request = v1::ListRequest {
            name_contains: part.into(),
            order: TokenOrder::Name.into(),
            ..list_request(&server.stack)
        };
        assert_eq!(
            names(&list(&mut owner, request).await),
            expected,
            "{part:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let good = || list_request(&server.stack);
    let instant = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let table: [(v1::ListRequest, &[&str]); 10] = [
        (
            v1::ListRequest {
                page_size: -1,
                ..good()
            },
            &["page_size"],
        ),
        (
            v1::ListRequest {
                page_size: 101,
                ..good()
            },
            &["page_size"],
        ),
        (
            v1::ListRequest {
                page_size: i32::MIN,
                ..good()
            },
            &["page_size"],
        ),
        (
            v1::ListRequest {
                states: vec![1, 0, 4],
                ..good()
            },
            &["states[1]", "states[2]"],
        ),
        (v1::ListRequest { order: 5, ..good() }, &["order"]),
        (
            v1::ListRequest {
                order: -1,
                ..good()
            },
            &["order"],
        ),
        (
            v1::ListRequest {
                expires_before: instant(i64::MAX, 0),
                ..good()
            },
            &["expires_before"],
        ),
        (
            v1::ListRequest {
                expires_before: instant(0, -1),
                ..good()
            },
            &["expires_before"],
        ),
        (
            v1::ListRequest {
                name_contains: "x".repeat(51),
                ..good()
            },
            &["name_contains"],
        ),
        (
            v1::ListRequest {
                stack_api_key: "nope".into(),
                page_size: 1000,
                page_token: String::new(),
                states: vec![99],
                expires_before: instant(0, i32::MAX),
                name_contains: "\u{7}".into(),
                order: 77,
                unused_since: instant(0, -1),
            },
            &[
                "stack_api_key",
                "page_size",
                "states[0]",
                "expires_before",
                "unused_since",
                "name_contains",
                "order",
            ],
        ),
    ];
    for (request, expected) in table {
        let status = owner.tokens.list(request.clone()).await.unwrap_err();
        assert_eq!(fields(&status), expected, "{request:?}");
    }
    let edge = v1::ListRequest {
        name_contains: "é".repeat(50),
        page_size: 100,
        ..good()
    };
    assert_eq!(outcome(&owner.tokens.list(edge).await), "OK");
}
