//! Tests valid and invalid filters of `List`.

use std::time::Duration;

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1::{self, TokenOrder, TokenState};

use super::{list, names};
use crate::support::{
    ISSUER, TestServer, after, at,
    clients::fields,
    clock::START,
    issue_request, permissions,
    requests::{list_request, outcome, overlap_for},
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
async fn a_period_has_its_first_instant_and_not_its_last() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c"] {
        server.clock.advance(Duration::from_secs(10));
        server.token_until(name, after(60, 0)).await;
    }
    server.token("never").await;
    let mut owner = server.owner().await;
    let instant = |seconds| {
        (seconds != 0).then_some(Timestamp {
            seconds: START + seconds,
            nanos: 0,
        })
    };
    let table: [(i64, i64, &[&str]); 6] = [
        (0, 30, &["a", "b"]),
        (20, 0, &["b", "c", "never"]),
        (20, 30, &["b"]),
        (21, 30, &[]),
        (10, 31, &["a", "b", "c", "never"]),
        (31, 0, &[]),
    ];
    for (from, before, expected) in table {
        let request = v1::ListRequest {
            issued_from: instant(from),
            issued_before: instant(before),
            order: TokenOrder::Name.into(),
            ..list_request(&server.stack)
        };
        assert_eq!(names(&list(&mut owner, request).await), expected, "{from}");
        // The filter on the expiry works in the same way. A token without an expiry is in no
        // period.
        let later = |seconds: i64| instant(if seconds == 0 { 0 } else { seconds + 60 });
        let request = v1::ListRequest {
            expires_from: later(from),
            expires_before: later(before),
            order: TokenOrder::Name.into(),
            ..list_request(&server.stack)
        };
        let mut expiring = expected.to_owned();
        expiring.retain(|name| *name != "never");
        assert_eq!(names(&list(&mut owner, request).await), expiring, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_found_by_their_exact_name_their_issuer_and_their_access() {
    let server = TestServer::start().await;
    let (mut owner, mut admin) = (server.owner().await, server.admin().await);
    let issue = |name: &str, access| v1::IssueRequest {
        permissions: Some(permissions(access)),
        ..issue_request(&server.stack, name)
    };
    let (read, write) = (v1::Access::Read, v1::Access::ReadWrite);
    let first = owner.tokens.issue(issue("deploy", read)).await.unwrap();
    let first = first.into_inner().token.unwrap();
    server.revoke(&first.token_uid).await;
    owner.tokens.issue(issue("deploy", write)).await.unwrap();
    owner.tokens.issue(issue("deploy 2", read)).await.unwrap();
    admin.tokens.issue(issue("Zo\u{e9}", read)).await.unwrap();
    let by = |kind: v1::CallerKind, subject: &str| {
        Some(v1::Actor {
            kind: kind.into(),
            issuer: ISSUER.into(),
            subject: subject.into(),
        })
    };
    let any = v1::CallerKind::Unspecified;
    let all = || v1::ListRequest {
        order: TokenOrder::Name.into(),
        ..list_request(&server.stack)
    };
    let named = |name: &str| v1::ListRequest {
        name: name.into(),
        ..all()
    };
    let issued_by = |issued_by| v1::ListRequest { issued_by, ..all() };
    let with = |access: v1::Access| v1::ListRequest {
        access: access.into(),
        ..all()
    };
    let table: [(v1::ListRequest, &[&str]); 13] = [
        (named("deploy"), &["deploy", "deploy"]),
        (named("Deploy"), &[]),
        (named("deplo"), &[]),
        (named("Zoe\u{301}"), &["Zo\u{e9}"]),
        (
            v1::ListRequest {
                states: vec![TokenState::Active.into()],
                ..named("deploy")
            },
            &["deploy"],
        ),
        (
            v1::ListRequest {
                name_contains: "2".into(),
                ..named("deploy")
            },
            &[],
        ),
        (issued_by(by(any, "admin")), &["Zo\u{e9}"]),
        (
            issued_by(by(v1::CallerKind::User, "owner")),
            &["deploy", "deploy", "deploy 2"],
        ),
        (issued_by(by(v1::CallerKind::Operator, "owner")), &[]),
        (issued_by(by(any, "developer")), &[]),
        (with(read), &["Zo\u{e9}", "deploy", "deploy 2"]),
        (with(write), &["deploy"]),
        (
            v1::ListRequest {
                issued_by: by(any, "owner"),
                name_contains: "2".into(),
                ..with(read)
            },
            &["deploy 2"],
        ),
    ];
    for (request, expected) in table {
        let words = format!("{request:?}");
        let page = list(&mut owner, request).await;
        assert_eq!(names(&page), expected, "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_found_by_the_end_of_either_of_its_live_secrets() {
    let server = TestServer::start().await;
    let rotating = server.token("rotating").await;
    let dead = server.token("dead").await;
    server.revoke(&dead.uid).await;
    let newer = server.rotate(&rotating.uid, overlap_for(60)).await.secret;
    let mut owner = server.owner().await;
    let mut found = async |secret: &str| {
        let request = v1::ListRequest {
            secret_hint: secret[secret.len() - 4..].into(),
            ..list_request(&server.stack)
        };
        let page = list(&mut owner, request).await;
        names(&page).join(" ")
    };
    assert_eq!(found(&rotating.secret).await, "rotating");
    assert_eq!(found(&newer).await, "rotating");
    assert_eq!(found(&dead.secret).await, "dead");
    assert_eq!(found("0000").await, "");
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(found(&rotating.secret).await, "", "the overlap has ended");
    assert_eq!(found(&newer).await, "rotating");
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
    let table: [(v1::ListRequest, &[&str]); 11] = [
        (
            v1::ListRequest {
                page_size: -1,
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
                page_size: -1000,
                page_token: String::new(),
                states: vec![99],
                expires_before: instant(0, i32::MAX),
                name_contains: "\u{7}".into(),
                order: 77,
                unused_since: instant(0, -1),
                issued_by: Some(v1::Actor {
                    kind: 9,
                    issuer: String::new(),
                    subject: "\u{7}".into(),
                }),
                name: "x".repeat(51),
                access: 3,
                issued_from: instant(1, -1),
                issued_before: instant(i64::MIN, 0),
                expires_from: instant(i64::MAX, 0),
                secret_hint: "abc".into(),
                labels: [("K".to_owned(), "\n".to_owned())].into(),
            },
            &[
                "stack_api_key",
                "page_size",
                "order",
                "states[0]",
                "issued_from",
                "issued_before",
                "expires_from",
                "expires_before",
                "name",
                "name_contains",
                "secret_hint",
                "issued_by.kind",
                "issued_by.issuer",
                "issued_by.subject",
                "access",
                "labels[\"K\"]",
                "labels[\"K\"]",
                "unused_since",
            ],
        ),
        (
            v1::ListRequest {
                issued_from: instant(START, 0),
                issued_before: instant(START, 0),
                expires_from: instant(START, 1000),
                expires_before: instant(START, 0),
                ..good()
            },
            &["issued_before", "expires_before"],
        ),
        (
            v1::ListRequest {
                access: -1,
                issued_by: Some(v1::Actor::default()),
                ..good()
            },
            &["issued_by.issuer", "issued_by.subject", "access"],
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
