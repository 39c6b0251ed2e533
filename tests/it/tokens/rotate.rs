//! Tests rotation: the token gets a new secret, and the former one stays valid during an overlap.

use std::time::Duration;

use stacktoken::grpc::pb::{
    audit::v1::AuditEventKind,
    v1::{self, Overlap, overlap::Ends},
};
use tonic::Code;

use crate::support::{
    TestServer, at,
    clients::details,
    clock::START,
    database::eventually,
    introspect_request, now,
    requests::{
        UNTIL_FIRST_USE, batch_request, outcome, outcomes, overlap_for, refused, rename_request,
        rotate_request,
    },
};

const DAY: i64 = 86_400;

fn instant(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn ends_at(answer: &v1::RotateResponse) -> i64 {
    answer.overlap_ends_at.unwrap().seconds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_changes_nothing_but_the_secret_its_hint_and_the_generation() {
    let server = TestServer::start().await;
    let issued = server.token_until("deploy", at(START + DAY)).await;
    for generation in 2..6 {
        let before = server.see(&issued.uid).await;
        server.clock.advance(Duration::from_secs(1));
        let rotated = server.rotate(&issued.uid, overlap_for(60)).await;
        assert_ne!(rotated.secret, issued.secret);
        let made = v1::TokenSecret {
            generation,
            hint: rotated.secret[47..].into(),
            created_at: instant(server.clock.seconds()),
            ..Default::default()
        };
        let former = v1::TokenSecret {
            ends_at: instant(server.clock.seconds() + 60),
            ..before.secrets[0].clone()
        };
        let expected = v1::Token {
            generation,
            secrets: vec![made, former],
            ..before.clone()
        };
        let token = rotated.token.unwrap();
        assert_ne!(token.etag, before.etag);
        let expected = v1::Token {
            etag: token.etag.clone(),
            ..expected
        };
        assert_eq!(token, expected);
        assert_eq!(server.see(&issued.uid).await, expected);
        let answer = server.introspect(&rotated.secret, &[]).await;
        let facts = answer.token.unwrap();
        assert_eq!(
            (answer.token_uid, facts.generation),
            (issued.uid.clone(), generation)
        );
        assert_eq!(
            (facts.issued_at, answer.expires_at),
            (before.issued_at, before.expires_at)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn former_secret_lives_for_the_overlap_and_not_a_microsecond_longer() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let rotated = server.rotate(&issued.uid, overlap_for(3600)).await;
    assert_eq!(ends_at(&rotated), START + 3600);
    for _ in 0..2 {
        assert_eq!(server.verdict(&rotated.secret).await, "OK");
        assert_eq!(
            server.verdict(&issued.secret).await,
            "OK",
            "the use of one secret does not end the other"
        );
    }
    server
        .clock
        .advance(Duration::from_secs(3600) - Duration::from_micros(1));
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let answer = server.introspect(&issued.secret, &[]).await;
    let max_age = answer.max_age.unwrap();
    assert_eq!(
        (max_age.seconds, max_age.nanos),
        (0, 1000),
        "an answer may be cached until the overlap ends"
    );
    server.clock.advance(Duration::from_micros(1));
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_use_of_the_new_secret_ends_the_former_one_and_is_audited() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let rotated = server.rotate(&issued.uid, UNTIL_FIRST_USE).await;
    assert_eq!(
        ends_at(&rotated),
        START + 30 * DAY,
        "the overlap ends at this time at the latest"
    );
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    let events = server.audit().await;
    let used: Vec<_> = events
        .iter()
        .filter(|event| event.kind() == AuditEventKind::FirstUse)
        .collect();
    let [event] = used[..] else {
        panic!("{used:?}")
    };
    assert_eq!(event.token_uid, issued.uid);
    assert_eq!(event.details["generation"], "2");
    assert_eq!(
        event.actor.as_ref().unwrap().kind(),
        v1::CallerKind::Service
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_active_answer_is_a_use() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    let rotated = server.rotate(&issued.uid, UNTIL_FIRST_USE).await;
    let other = server.register("Other").await;
    let mut service = server.service().await;
    for _ in 0..2 {
        let wrong_stack = introspect_request(&other, &rotated.secret, &[]);
        let answer = service.introspection.introspect(wrong_stack).await.unwrap();
        assert!(!answer.into_inner().active);
    }
    server.suspend().await;
    assert_eq!(server.verdict(&rotated.secret).await, "STACK_SUSPENDED");
    assert_eq!(server.verdict(&rotated.secret).await, "STACK_SUSPENDED");
    server.resume().await;
    assert_eq!(
        server.verdict(&issued.secret).await,
        "OK",
        "the new secret was not used"
    );
    let used = "SELECT COUNT(*) FROM token_secrets WHERE first_used_at IS NOT NULL";
    assert_eq!(server.outside().await.number(used).await, 1);
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlap_of_nothing_ends_the_former_secret_at_once() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let rotated = server.rotate(&issued.uid, overlap_for(0)).await;
    assert_eq!(ends_at(&rotated), START);
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlap_ends_with_the_token_and_after_thirty_days() {
    let server = TestServer::start().await;
    let brief = server.token_until("brief", at(START + 60)).await;
    for overlap in [overlap_for(3600), UNTIL_FIRST_USE] {
        assert_eq!(
            ends_at(&server.rotate(&brief.uid, overlap).await),
            START + 60
        );
    }
    let endless = server.token("endless").await;
    let rotated = server.rotate(&endless.uid, overlap_for(30 * DAY)).await;
    assert_eq!(ends_at(&rotated), START + 30 * DAY);
    let unused = server.token("unused").await;
    server.rotate(&unused.uid, UNTIL_FIRST_USE).await;
    server
        .clock
        .advance(Duration::from_secs(u64::try_from(30 * DAY).unwrap()));
    assert_eq!(server.verdict(&unused.secret).await, "SUPERSEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_before_the_new_secret_was_used_replaces_it_and_the_earlier_end_counts() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let lost = server.rotate(&issued.uid, overlap_for(600)).await;
    let second = server.rotate(&issued.uid, overlap_for(3600)).await;
    assert_eq!(
        ends_at(&second),
        START + 600,
        "the end of the overlap is not postponed"
    );
    assert_eq!(server.verdict(&lost.secret).await, "SUPERSEDED");
    let third = server.rotate(&issued.uid, UNTIL_FIRST_USE).await;
    assert_eq!(ends_at(&third), START + 600);
    assert_eq!(server.verdict(&second.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    assert_eq!(third.token.unwrap().generation, 4);
    assert_eq!(server.verdict(&third.secret).await, "OK");
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_while_both_secrets_are_in_use_ends_the_older_at_once() {
    let server = TestServer::start().await;
    let first = server.token("deploy").await;
    let second = server.rotate(&first.uid, overlap_for(3600)).await;
    assert_eq!(server.verdict(&first.secret).await, "OK");
    assert_eq!(server.verdict(&second.secret).await, "OK");
    let third = server.rotate(&first.uid, overlap_for(7200)).await;
    assert_eq!(ends_at(&third), START + 7200);
    assert_eq!(server.verdict(&first.secret).await, "SUPERSEDED");
    assert_eq!(server.verdict(&second.secret).await, "OK");
    assert_eq!(server.verdict(&third.secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_live_secret_is_kept_also_if_nobody_used_it() {
    let server = TestServer::start().await;
    let first = server.token("deploy").await;
    let second = server.rotate(&first.uid, overlap_for(60)).await;
    server.clock.advance(Duration::from_secs(60));
    let third = server.rotate(&first.uid, overlap_for(60)).await;
    assert_eq!(server.verdict(&second.secret).await, "OK");
    assert_eq!(server.verdict(&third.secret).await, "OK");
    assert_eq!(server.verdict(&first.secret).await, "SUPERSEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_rotates_at_the_limit_and_counts_once() {
    let server = TestServer::start().await;
    let mut issued = Vec::new();
    for n in 0..10 {
        issued.push(server.token(&format!("token {n}")).await);
    }
    for token in &issued {
        let rotated = server.rotate(&token.uid, overlap_for(3600)).await;
        assert_eq!(server.verdict(&rotated.secret).await, "OK");
        assert_eq!(server.verdict(&token.secret).await, "OK");
    }
    assert_eq!(server.limit().await, (10, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_or_expired_token_takes_all_its_secrets_with_it() {
    let server = TestServer::start().await;
    for (name, kill, told) in [("revoked", false, "REVOKED"), ("expired", true, "EXPIRED")] {
        let issued = server.token(name).await;
        let rotated = server.rotate(&issued.uid, overlap_for(3600)).await;
        assert_eq!(server.verdict(&issued.secret).await, "OK");
        assert_eq!(server.verdict(&rotated.secret).await, "OK");
        if kill {
            server.set_expiry(&issued.uid, now()).await;
        } else {
            server.revoke(&issued.uid).await;
        }
        assert_eq!(server.verdict(&issued.secret).await, told);
        assert_eq!(server.verdict(&rotated.secret).await, told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_tokens_suspended_stacks_and_foreign_tokens_are_not_rotated() {
    let server = TestServer::start().await;
    let (revoked, brief) = (
        server.token("a").await,
        server.token_until("b", at(START + 5)).await,
    );
    let (live, other) = (server.token("c").await, server.register("Other").await);
    server.revoke(&revoked.uid).await;
    server.clock.advance(Duration::from_secs(5));
    let mut owner = server.owner().await;
    let mut told = async |stack: &str, uid: &str| {
        outcome(
            &owner
                .tokens
                .rotate(rotate_request(stack, uid, UNTIL_FIRST_USE))
                .await,
        )
    };
    let stack = &server.stack;
    assert_eq!(
        told(stack, &revoked.uid).await,
        "FailedPrecondition TOKEN_REVOKED"
    );
    assert_eq!(
        told(stack, &brief.uid).await,
        "FailedPrecondition TOKEN_EXPIRED"
    );
    assert_eq!(told(&other, &live.uid).await, "NotFound TOKEN_NOT_FOUND");
    server.suspend().await;
    assert_eq!(
        told(stack, &live.uid).await,
        "FailedPrecondition STACK_SUSPENDED"
    );
    server.resume().await;
    assert_eq!(told(stack, &live.uid).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let status = owner
        .tokens
        .rotate(v1::RotateRequest::default())
        .await
        .unwrap_err();
    assert_eq!(fields(&status), ["stack_api_key", "token_uid", "overlap"]);
    assert!(
        status.message().contains("overlap_for or until_first_use"),
        "{}",
        status.message()
    );
    let token = server.token("deploy").await;
    let length = |seconds, nanos| prost_types::Duration { seconds, nanos };
    let nanos = |seconds, nanos| Overlap {
        ends: Some(Ends::OverlapFor(length(seconds, nanos))),
        at_most: None,
    };
    let at_most = |ends, at_most| Overlap {
        ends,
        at_most: Some(at_most),
    };
    let until_used = |is| Some(Ends::UntilFirstUse(is));
    let hour = Some(Ends::OverlapFor(length(3600, 0)));
    let too_long = Some(Ends::OverlapFor(length(31 * DAY, 0)));
    let table: [(Overlap, &[&str]); 14] = [
        (Overlap::default(), &["overlap"]),
        (overlap_for(30 * DAY + 1), &["overlap.overlap_for"]),
        (nanos(30 * DAY, 1), &["overlap.overlap_for"]),
        (overlap_for(i64::MAX), &["overlap.overlap_for"]),
        (overlap_for(-1), &["overlap.overlap_for"]),
        (nanos(0, -1), &["overlap.overlap_for"]),
        (at_most(hour, length(60, 0)), &["overlap.at_most"]),
        (
            at_most(too_long, length(60, 0)),
            &["overlap.at_most", "overlap.overlap_for"],
        ),
        (
            at_most(until_used(true), length(30 * DAY, 1)),
            &["overlap.at_most"],
        ),
        (
            at_most(until_used(true), length(-1, 0)),
            &["overlap.at_most"],
        ),
        (
            at_most(until_used(true), length(1, -1)),
            &["overlap.at_most"],
        ),
        (at_most(None, length(60, 0)), &["overlap"]),
        (
            at_most(until_used(false), length(-1, 0)),
            &["overlap.at_most", "overlap.until_first_use"],
        ),
        (
            at_most(until_used(false), length(60, 0)),
            &["overlap.until_first_use"],
        ),
    ];
    for (overlap, expected) in table {
        let request = rotate_request(&server.stack, &token.uid, overlap);
        let status = owner.tokens.rotate(request).await.unwrap_err();
        assert_eq!(
            refused(&status),
            (Code::InvalidArgument, "INVALID_FIELD".into())
        );
        assert_eq!(fields(&status), expected, "{overlap:?}");
    }
    assert_eq!(server.see(&token.uid).await.generation, 1);
}

fn fields(status: &tonic::Status) -> Vec<String> {
    let details = details(status);
    let violations = &details.bad_request().unwrap().field_violations;
    violations.iter().map(|fault| fault.field.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_secret_that_is_presented_is_audited_once() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    server.rotate(&issued.uid, overlap_for(0)).await;
    for _ in 0..5 {
        assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    }
    let told = async || {
        let events = server.audit().await;
        let told = events
            .into_iter()
            .filter(|event| event.kind() == AuditEventKind::Superseded);
        told.collect::<Vec<_>>()
    };
    let event = eventually("a row in the audit", async || told().await.pop()).await;
    assert_eq!(
        (
            event.token_uid.as_str(),
            event.details["generation"].as_str()
        ),
        (issued.uid.as_str(), "1")
    );
    assert_eq!(event.actor.unwrap().subject, "content-api");
    for _ in 0..5 {
        assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
    }
    // Refusals are written in order, so this one is recorded after all of the above.
    let mut developer = server.developer().await;
    developer
        .tokens
        .get(crate::support::requests::get_request(
            &server.stack,
            &issued.uid,
        ))
        .await
        .unwrap_err();
    eventually("a refusal in the audit", async || {
        let events = server.audit().await;
        events
            .into_iter()
            .find(|event| event.error_reason == "ROLE_REQUIRED")
    })
    .await;
    assert_eq!(told().await.len(), 1);
    let line = "stacktoken_verdicts_total{reason=\"SUPERSEDED\"} 10";
    assert!(server.metrics().await.contains(line));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_first_uses_at_once_one_is_recorded() {
    let server = TestServer::start().await;
    let service = server.service().await;
    for round in 0..10 {
        let issued = server.token(&format!("token {round}")).await;
        let rotated = server.rotate(&issued.uid, UNTIL_FIRST_USE).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut service = service.clone();
            let request = introspect_request(&server.stack, &rotated.secret, &[]);
            calls.spawn(async move {
                service
                    .introspection
                    .introspect(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .active
            });
        }
        assert_eq!(calls.join_all().await, [true; 50]);
        assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
        let events = server.audit().await;
        let used = events.iter().filter(|event| {
            event.kind() == AuditEventKind::FirstUse && event.token_uid == issued.uid
        });
        assert_eq!(used.count(), 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_is_not_answered_as_active() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    let rotated = server.rotate(&issued.uid, UNTIL_FIRST_USE).await;
    let outside = server.outside().await;
    outside
        .run("CREATE TRIGGER full BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    let mut service = server.service().await;
    for _ in 0..2 {
        let request = introspect_request(&server.stack, &rotated.secret, &[]);
        let status = service.introspection.introspect(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(
            server.verdict(&issued.secret).await,
            "OK",
            "a first use that cannot be recorded ends no secret"
        );
    }
    outside.run("DROP TRIGGER full").await;
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    assert_eq!(server.verdict(&issued.secret).await, "SUPERSEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_write_nothing() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    let rotated = server.rotate(&issued.uid, overlap_for(3600)).await;
    for secret in [&issued.secret, &rotated.secret] {
        assert_eq!(server.verdict(secret).await, "OK");
    }
    let outside = server.outside().await;
    // From here on, every write of a secret fails, so a verdict that writes would fail too.
    outside
        .run("CREATE TRIGGER still BEFORE UPDATE ON token_secrets BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    for _ in 0..20 {
        for secret in [&issued.secret, &rotated.secret] {
            assert_eq!(server.verdict(secret).await, "OK");
        }
    }
    let renamed = rename_request(&server.stack, &issued.uid, "renamed");
    server.owner().await.tokens.update(renamed).await.unwrap();
    assert_eq!(
        server.verdict(&issued.secret).await,
        "OK",
        "after the first use a cache miss does not write either"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_use_in_a_batch_ends_the_former_secret_in_the_same_batch() {
    let server = TestServer::start().await;
    let issued = server.token("deploy").await;
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let rotated = server.rotate(&issued.uid, UNTIL_FIRST_USE).await;
    let mut service = server.service().await;
    for _ in 0..2 {
        let request = batch_request(&server.stack, &[&issued.secret, &rotated.secret]);
        let answer = service.introspection.batch_introspect(request).await;
        let seen = outcomes(answer.unwrap().get_ref());
        assert_eq!(seen, ["SUPERSEDED", "OK"]);
    }
    let used = "SELECT COUNT(*) FROM audit_events WHERE action = 'token_first_use'";
    assert_eq!(server.outside().await.number(used).await, 1);
}
