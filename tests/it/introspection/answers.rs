//! What a verdict says besides yes and no: why not, how long it may be kept, and up to where
//! the history is in it.

use std::time::Duration;

use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, at,
    clock::START,
    introspect_request, now,
    requests::{rename_request, set_expiry_request},
};

fn reuse(answer: &v1::IntrospectResponse) -> Option<Duration> {
    let max_age = answer.max_age?;
    Some(Duration::try_from(max_age).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inactive_token_says_precisely_why_and_nothing_of_itself() {
    let server = TestServer::start().await;
    let expired = server.token_until("expired", at(START + 60)).await;
    let ended = server.token("ended").await;
    let revoked = server.token("revoked").await;
    let both = server.token_until("both", at(START + 60)).await;
    let live = server.token("live").await;
    server.set_expiry(&ended.uid, now()).await;
    server.revoke(&revoked.uid).await;
    server.clock.advance(Duration::from_secs(60));
    server.revoke(&both.uid).await;
    let verdicts = async || {
        let mut verdicts = Vec::new();
        for token in [&expired, &ended, &revoked, &both, &live] {
            verdicts.push(server.verdict(&token.secret).await);
        }
        verdicts.join(" ")
    };
    assert_eq!(verdicts().await, "EXPIRED EXPIRED REVOKED REVOKED OK");
    server.suspend().await;
    assert_eq!(
        verdicts().await,
        "EXPIRED EXPIRED REVOKED REVOKED STACK_SUSPENDED"
    );
    for token in [&expired, &revoked, &live] {
        let answer = server.introspect(&token.secret, &["entry.read"]).await;
        let said = v1::IntrospectResponse {
            reason: answer.reason,
            decision: v1::Decision::Deny.into(),
            evaluated_at: answer.evaluated_at,
            max_age: answer.max_age,
            revision: answer.revision.clone(),
            ..Default::default()
        };
        assert_eq!(answer, said, "no facts, no permissions, no results");
        assert!(answer.evaluated_at.is_some() && !answer.revision.is_empty());
    }
    server.resume().await;
    assert_eq!(verdicts().await, "EXPIRED EXPIRED REVOKED REVOKED OK");
    server.remove().await;
    assert_eq!(verdicts().await, "EXPIRED EXPIRED REVOKED REVOKED REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_may_be_reused_for_a_second_and_never_past_the_expiry() {
    let server = TestServer::start().await;
    let endless = server.token("endless").await;
    let brief = server.token_until("brief", at(START + 3)).await;
    let second = Some(Duration::from_secs(1));
    for (token, until, expected) in [
        (&endless, 0, second),
        (&brief, 0, second),
        (&brief, 2_000_000, second),
        (&brief, 2_000_001, Some(Duration::from_micros(999_999))),
        (&brief, 2_700_000, Some(Duration::from_millis(300))),
        (&brief, 2_999_999, Some(Duration::from_micros(1))),
        (&endless, 2_999_999, second),
    ] {
        let to = START * 1_000_000 + until - server.clock.micros();
        server
            .clock
            .advance(Duration::from_micros(to.try_into().unwrap()));
        let answer = server.introspect(&token.secret, &[]).await;
        assert!(answer.active);
        assert_eq!(reuse(&answer), expected, "after {until}");
        let evaluated_at = answer.evaluated_at.unwrap();
        let micros = evaluated_at.seconds * 1_000_000 + i64::from(evaluated_at.nanos / 1000);
        assert_eq!(micros, server.clock.micros());
    }
    let unrecognised = server.introspect("junk", &[]).await;
    assert_eq!(reuse(&unrecognised), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_can_have_answers_reused_for_less_long() {
    let server = TestServer::start_with(|tuning| tuning.verdict_max_age = Duration::ZERO).await;
    let token = server.token("deploy").await;
    let answer = server.introspect(&token.secret, &[]).await;
    assert_eq!(reuse(&answer), Some(Duration::ZERO));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_revision_of_a_verdict_moves_with_every_change_and_only_then() {
    let server = TestServer::start().await;
    let (mut owner, mut service) = (server.owner().await, server.service().await);
    let token = server.issue("deploy").await;
    let uid = token.token.unwrap().token_uid;
    let secret = token.secret;
    let mut revision = async || {
        let request = introspect_request(&server.stack, &secret, &[]);
        let answer = service.introspection.introspect(request).await.unwrap();
        answer.into_inner().revision
    };
    assert_eq!(revision().await, token.revision, "the issue is in it");
    assert_eq!(revision().await, token.revision, "asking changes nothing");
    let request = rename_request(&server.stack, &uid, "renamed");
    let updated = owner.tokens.update(request).await.unwrap().into_inner();
    assert_ne!(updated.revision, token.revision);
    assert_eq!(revision().await, updated.revision);
    let request = set_expiry_request(&server.stack, &uid, at(START + 60));
    let redated = owner.tokens.set_expiry(request).await.unwrap().into_inner();
    assert_ne!(redated.revision, updated.revision);
    assert_eq!(revision().await, redated.revision);
    let before = revision().await;
    server.suspend().await;
    let suspended = revision().await;
    assert_ne!(suspended, before);
}
