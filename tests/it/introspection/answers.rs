//! Tests the contents of a verdict: the reason, how long it may be cached, and the revision that it
//! reflects.

use std::time::Duration;

use prost::Message as _;
use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, at,
    clock::START,
    introspect_request, issue_request, now,
    requests::{INCLUDES, branches, modules, rename_request, set_expiry_request},
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
    let unrecognized = server.introspect("junk", &[]).await;
    assert_eq!(reuse(&unrecognized), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_what_was_asked_for_and_no_more() {
    let server = TestServer::start().await;
    let labelled = v1::IssueRequest {
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        expiry: Some(at(START + 60)),
        ..issue_request(&server.stack, "brief")
    };
    let issued = server.owner().await.tokens.issue(labelled.clone()).await;
    let issued = issued.unwrap().into_inner();
    let (secret, uid) = (issued.secret, issued.token.unwrap().token_uid);
    let mut service = server.service().await;
    let mut ask = async |include: &[v1::IntrospectInclude]| {
        let request = v1::IntrospectRequest {
            include: include.iter().map(|part| (*part).into()).collect(),
            ..introspect_request(&server.stack, &secret, &["entry.update"])
        };
        let answer = service.introspection.introspect(request).await.unwrap();
        answer.into_inner()
    };
    let slim = ask(&[]).await;
    assert_eq!(slim.token_uid, uid);
    assert_eq!(slim.expires_at.unwrap().seconds, START + 60);
    assert_eq!(slim.results.len(), 1);
    assert!(slim.permissions.is_none() && slim.stack.is_none() && slim.token.is_none());
    assert!(slim.labels.is_empty());
    let [permissions, stack, facts, labels, session] = INCLUDES;
    for include in [
        &[permissions][..],
        &[stack],
        &[facts],
        &[labels],
        &[session],
        &[facts, stack],
        &INCLUDES,
    ] {
        let answer = ask(include).await;
        assert_eq!(answer.permissions.is_some(), include.contains(&permissions));
        assert_eq!(answer.stack.is_some(), include.contains(&stack));
        assert_eq!(answer.token.is_some(), include.contains(&facts));
        assert_eq!(!answer.labels.is_empty(), include.contains(&labels));
        assert_eq!(answer.session, None, "the token has a secret of its own");
        let rest = v1::IntrospectResponse {
            permissions: None,
            stack: None,
            token: None,
            labels: v1::IntrospectResponse::default().labels,
            ..answer
        };
        assert_eq!(rest, slim, "{include:?}");
    }
    let full = ask(&INCLUDES).await;
    assert_eq!(full.permissions.unwrap().access(), v1::Access::ReadWrite);
    assert_eq!(full.stack.unwrap().name, "Test stack");
    let facts = full.token.unwrap();
    assert_eq!((facts.name.as_str(), facts.generation), ("brief", 1));
    assert_eq!(facts.issued_at.unwrap().seconds, START);
    assert_eq!(facts.superseded_at, None);
    assert_eq!(full.labels, labelled.labels);
    server.revoke(&uid).await;
    let dead = ask(&INCLUDES).await;
    assert_eq!(dead.reason(), v1::Reason::Revoked);
    assert!(dead.token_uid.is_empty() && dead.expires_at.is_none());
    assert!(dead.permissions.is_none() && dead.stack.is_none() && dead.token.is_none());
    assert!(dead.labels.is_empty());
}

/// The question has one action, like the questions that a gateway sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_small() {
    let server = TestServer::start().await;
    // Instants that use all nine digits of the fraction take the most bytes.
    server.clock.advance(Duration::from_nanos(123_456_000));
    let expiry = |nanos| {
        let mut expiry = at(START + 60);
        if let Some(v1::expiry::Expiry::At(at)) = &mut expiry.expiry {
            at.nanos = nanos;
        }
        expiry
    };
    let live = server.token_until("live", expiry(0)).await;
    let narrowed = v1::Permissions {
        branches: branches(v1::Access::ReadWrite, &["main"], &[]).branches,
        ..modules(
            v1::Access::ReadWrite,
            &[
                ("entry", v1::Access::ReadWrite),
                ("global_field", v1::Access::Read),
            ],
        )
    };
    let request = v1::IssueRequest {
        permissions: Some(narrowed),
        expiry: Some(expiry(987_654_000)),
        ..issue_request(&server.stack, "narrowed")
    };
    let narrowed = server.owner().await.tokens.issue(request).await;
    let narrowed = narrowed.unwrap().into_inner().secret;
    let mut service = server.service().await;
    let mut size = async |secret: &str, name: &str, branch: &str| {
        let action = v1::ActionQuestion {
            name: name.into(),
            branch: branch.into(),
            ..Default::default()
        };
        let request = v1::IntrospectRequest {
            actions: vec![action],
            ..introspect_request(&server.stack, secret, &[])
        };
        let answer = service.introspection.introspect(request).await.unwrap();
        answer.get_ref().encoded_len()
    };
    let typical = size(&live.secret, "entry.update", "main").await;
    assert!(typical <= 140, "{typical}");
    let long = "x".repeat(64);
    let unknown = format!("entry.{}", "x".repeat(58));
    let mut largest = 0;
    for (name, branch) in [
        ("global_field.update", "main"),
        ("entry.unpublish", long.as_str()),
        (unknown.as_str(), long.as_str()),
        ("stack.read_credentials", "main"),
        ("content_type.update", "main"),
    ] {
        largest = largest.max(size(&narrowed, name, branch).await);
    }
    assert!((150..=200).contains(&largest), "{largest}");
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
    assert_eq!(
        revision().await,
        token.revision,
        "the verdict reflects the issue"
    );
    assert_eq!(
        revision().await,
        token.revision,
        "introspection changes nothing"
    );
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
