//! Tests which answers the client caches, and for how long, against a scripted server.

use std::time::Duration;

use stacktoken::{
    domain::verdict::{ActionQuestion, Reason},
    grpc::pb::v1::{self, watch_changed::Subject},
};
use stacktoken_client::{Error, Question};
use tonic::Status;

use crate::scripted::{
    KEY, OTHER_TOKEN_UID, STACK_UID, Server, active, ask, at, inactive, instant, secret,
    start_asking, until,
};

#[tokio::test]
async fn an_answer_requested_after_the_first_pong_is_cached() {
    let mut server = Server::start().await;
    let (client, _stream) = server.watched(5, 6).await;
    let secret = secret();
    assert_eq!(ask(&client, &secret).await, (true, false));
    assert_eq!(
        server.last_min(),
        at(6),
        "the question carries the min_revision of the stream"
    );
    for _ in 0..3 {
        assert_eq!(ask(&client, &secret).await, (true, true));
    }
    let question = Question::new(&secret, KEY);
    assert!(client.cached(&question).unwrap().active());
    assert_eq!((server.asked(), client.entries()), (1, 1));
}

#[tokio::test]
async fn an_answer_requested_before_the_first_pong_is_not_cached() {
    let mut server = Server::start().await;
    let client = server.client();
    let mut stream = server.next_stream().await;
    let secret = secret();
    server.hold();
    let early = start_asking(&client, &secret);
    server.arrival().await;
    stream.pong(Duration::ZERO, (5, 5)).await;
    until("the pong arrives", || client.watch_fault().is_none()).await;
    server.release();
    assert_eq!(early.await.unwrap(), (true, false));
    assert_eq!(server.last_min(), "");
    assert_eq!(client.entries(), 0);
}

/// An earlier stream left a revision from which this stream resumes. The answer still must not be
/// cached, because the changes between that revision and the first pong may not have arrived yet.
#[tokio::test]
async fn an_answer_requested_before_the_first_pong_of_another_stream_is_not_cached() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 5).await;
    drop(stream);
    let mut next = server.next_stream().await;
    let secret = secret();
    server.hold();
    let early = start_asking(&client, &secret);
    server.arrival().await;
    next.pong(Duration::ZERO, (5, 5)).await;
    until("the pong arrives", || client.watch_fault().is_none()).await;
    server.release();
    assert_eq!(early.await.unwrap(), (true, false));
    assert_eq!(client.entries(), 0);
}

/// The server evaluates the question before the change, and the client receives the answer after
/// it.
#[tokio::test]
async fn an_answer_overtaken_by_a_change_is_not_cached() {
    for subject in [
        Subject::TokenUid(crate::scripted::TOKEN_UID.into()),
        Subject::StackUid(STACK_UID.into()),
    ] {
        let mut server = Server::start().await;
        let (client, mut stream) = server.watched(5, 5).await;
        let secret = secret();
        server.hold();
        let asking = start_asking(&client, &secret);
        server.arrival().await;
        stream.send_change(subject, (6, 6)).await;
        stream.wait_until_received((6, 6)).await;
        server.release();
        assert_eq!(asking.await.unwrap(), (true, false));
        assert_eq!(
            client.entries(),
            0,
            "a late answer was cached after its token was evicted"
        );
        server.answer(|_| Ok(inactive(v1::Reason::Revoked)));
        server.release();
        assert_eq!(ask(&client, &secret).await, (false, false));
        assert_eq!(
            server.last_min(),
            at(6),
            "the answer must reflect the change"
        );
    }
}

#[tokio::test]
async fn a_change_of_another_token_does_not_keep_an_answer_out() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 5).await;
    let secret = secret();
    server.hold();
    let asking = start_asking(&client, &secret);
    server.arrival().await;
    let other = Subject::TokenUid(OTHER_TOKEN_UID.into());
    stream.send_change(other, (6, 6)).await;
    stream.wait_until_received((6, 6)).await;
    server.release();
    assert_eq!(asking.await.unwrap(), (true, false));
    assert_eq!(client.entries(), 1);
}

#[tokio::test]
async fn an_answer_requested_on_an_earlier_stream_is_not_cached() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 5).await;
    let secret = secret();
    server.hold();
    let asking = start_asking(&client, &secret);
    server.arrival().await;
    drop(stream);
    until("the stream ends", || client.watch_fault().is_some()).await;
    let _next = server.watch(&client, 5, 5).await;
    server.release();
    assert_eq!(asking.await.unwrap(), (true, false));
    assert_eq!(client.entries(), 0);
}

#[tokio::test]
async fn a_change_evicts_its_token_or_stack_and_an_unknown_one_evicts_all() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 5).await;
    let secret = secret();
    let subjects = [
        Some(Subject::TokenUid(crate::scripted::TOKEN_UID.into())),
        Some(Subject::StackUid(STACK_UID.into())),
        Some(Subject::TokenUid("what is this".into())),
    ];
    for (position, subject) in (6..).zip(subjects) {
        assert_eq!(ask(&client, &secret).await, (true, false));
        assert_eq!(ask(&client, &secret).await, (true, true));
        stream
            .send_change(subject.unwrap(), (position, position))
            .await;
        stream.wait_until_received((position, position)).await;
        assert_eq!(client.entries(), 0);
    }
    // The stream stays open. An event of an unknown kind may concern any token, so it evicts all.
    ask(&client, &secret).await;
    assert_eq!(client.entries(), 1);
    stream.send_unknown_event().await;
    until("the cache is empty", || client.entries() == 0).await;
    assert_eq!(client.lease_age(), None);
}

#[tokio::test]
async fn the_lease_counts_from_the_sending_of_the_ping_less_the_staleness() {
    let mut server = Server::start().await;
    let client = server.client();
    let mut stream = server.next_stream().await;
    // The first ping is sent now. Its pong arrives much later and reports a staleness.
    let nonce = stream.unanswered().await;
    server.clock.advance(Duration::from_millis(300));
    stream
        .answer(nonce, Duration::from_millis(400), (5, 5))
        .await;
    until("the pong arrives", || client.watch_fault().is_none()).await;
    assert_eq!(client.lease_age(), Some(Duration::from_millis(700)));
    let secret = secret();
    ask(&client, &secret).await;
    server.clock.advance(Duration::from_millis(300));
    assert_eq!(
        ask(&client, &secret).await,
        (true, true),
        "exactly the bound"
    );
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(ask(&client, &secret).await, (true, false), "past the bound");
}

#[tokio::test]
async fn a_server_that_is_stale_itself_gives_no_lease() {
    let mut server = Server::start().await;
    let client = server.client();
    let mut stream = server.next_stream().await;
    stream.pong(Duration::from_secs(90), (5, 5)).await;
    until("the pong arrives", || client.watch_fault().is_none()).await;
    let secret = secret();
    assert_eq!(ask(&client, &secret).await, (true, false));
    assert_eq!(ask(&client, &secret).await, (true, false));
    // This staleness is greater than the uptime of this machine.
    stream.pong(Duration::from_secs(1_000_000), (5, 5)).await;
    stream.pong(Duration::from_secs(1_000_000), (5, 5)).await;
    assert_eq!(ask(&client, &secret).await, (true, false));
}

#[tokio::test]
async fn a_server_that_skips_pings_gives_the_lease_of_the_one_it_answers() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 5).await;
    stream.unanswered().await;
    server.clock.advance(Duration::from_millis(500));
    let nonce = stream.unanswered().await;
    stream.answer(nonce, Duration::ZERO, (5, 5)).await;
    // The clock does not advance, so the lease starts at the answered ping. The skipped ping must
    // not count as silence.
    until("it renews", || client.lease_age() == Some(Duration::ZERO)).await;
    server.clock.advance(Duration::from_millis(900));
    stream.wait_until_received((5, 5)).await;
    assert_eq!(client.watch_fault(), None);
}

#[tokio::test]
async fn a_token_in_use_is_asked_about_once_a_minute() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 5).await;
    let secret = secret();
    ask(&client, &secret).await;
    for _ in 0..60 {
        server.clock.advance(Duration::from_secs(1));
        stream.wait_until_received((5, 5)).await;
        if client.lease_age() == Some(Duration::ZERO) {
            break;
        }
    }
    assert_eq!(client.lease_age(), Some(Duration::ZERO));
    let asked = server.asked();
    // A short reuse time, which ends within the lease, stands in for one minute.
    let brief = server.builder().reuse_for(Duration::from_millis(200));
    let brief = brief.build().unwrap();
    let _stream = server.watch(&brief, 5, 5).await;
    ask(&brief, &secret).await;
    assert_eq!(ask(&brief, &secret).await, (true, true));
    server.clock.advance(Duration::from_millis(200));
    assert_eq!(ask(&brief, &secret).await, (true, true));
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(ask(&brief, &secret).await, (true, false));
    assert_eq!(ask(&brief, &secret).await, (true, true));
    assert_eq!(server.asked(), asked + 2);
}

#[tokio::test]
async fn an_expiry_is_compared_with_the_servers_clock() {
    for overlap in [false, true] {
        let mut server = Server::start().await;
        // The server's wall clock is unrelated to the client's clock, which counts from boot.
        let (servers_now, half) = (4_000_000_000_000_000, 500_000);
        server.answer(move |_| {
            let mut answer = active(servers_now);
            let end = Some(instant(servers_now + half));
            if overlap {
                answer.token.as_mut().unwrap().superseded_at = end;
            } else {
                answer.expires_at = end;
            }
            Ok(answer)
        });
        let (client, _stream) = server.watched(5, 5).await;
        let secret = secret();
        ask(&client, &secret).await;
        server.clock.advance(Duration::from_micros(499_999));
        assert_eq!(ask(&client, &secret).await, (true, true));
        server.clock.advance(Duration::from_micros(1));
        let ended = if overlap {
            v1::Reason::Superseded
        } else {
            v1::Reason::Expired
        };
        server.answer(move |_| Ok(inactive(ended)));
        let answer = client
            .introspect(&Question::new(&secret, KEY))
            .await
            .unwrap();
        let expected = if overlap {
            Reason::Superseded
        } else {
            Reason::Expired
        };
        assert_eq!(answer.reason(), Some(expected));
        assert!(!answer.from_memory());
    }
}

/// An answer with an earlier instant may only have been delayed, so the client must not set its
/// estimate of the server's clock back.
#[tokio::test]
async fn the_servers_clock_is_never_taken_to_be_earlier_than_an_answer_showed() {
    let mut server = Server::start().await;
    let (client, _stream) = server.watched(5, 5).await;
    let (secret, other) = (secret(), secret());
    let expires = 4_000_000_000_000_000;
    let answer_at = |server: &Server, at: i64| {
        server.answer(move |_| {
            let mut answer = active(at);
            answer.expires_at = Some(instant(expires));
            Ok(answer)
        });
    };
    answer_at(&server, expires - 600_000);
    ask(&client, &secret).await;
    assert_eq!(ask(&client, &secret).await, (true, true));
    // These answers come from another replica, whose clock is ahead.
    answer_at(&server, expires - 1);
    ask(&client, &other).await;
    answer_at(&server, expires - 700_000);
    ask(&client, &crate::scripted::secret()).await;
    server.clock.advance(Duration::from_micros(1));
    assert_eq!(ask(&client, &secret).await, (true, false));
}

#[tokio::test]
async fn inactive_answers_are_not_cached() {
    let mut server = Server::start().await;
    let (client, _stream) = server.watched(5, 5).await;
    let secret = secret();
    for (reason, expected) in [
        (v1::Reason::NotRecognized, Reason::NotRecognized),
        (v1::Reason::Revoked, Reason::Revoked),
        (v1::Reason::Expired, Reason::Expired),
        (v1::Reason::Superseded, Reason::Superseded),
        (v1::Reason::StackSuspended, Reason::StackSuspended),
    ] {
        server.answer(move |_| Ok(inactive(reason)));
        let answer = client
            .introspect(&Question::new(&secret, KEY))
            .await
            .unwrap();
        assert_eq!(answer.reason(), Some(expected));
        assert!(!answer.active() && !answer.allowed() && !answer.from_memory());
        assert!(answer.token().is_none() && answer.stack().is_none());
        assert_eq!(client.entries(), 0);
    }
}

#[tokio::test]
async fn what_has_not_the_form_of_a_token_is_answered_without_a_call() {
    let server = Server::start().await;
    let client = server.client();
    let mistyped = format!("{}x", &secret()[..50]);
    for junk in ["x", "stk1_", mistyped.as_str(), "a b\u{e9}"] {
        let answer = client.introspect(&Question::new(junk, KEY)).await.unwrap();
        assert_eq!(answer.reason(), Some(Reason::NotRecognized), "{junk}");
    }
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn an_ill_formed_question_goes_to_the_server_even_for_a_cached_token() {
    let mut server = Server::start().await;
    let (client, _stream) = server.watched(5, 5).await;
    let secret = secret();
    ask(&client, &secret).await;
    let action = |name: &str| ActionQuestion {
        name: name.into(),
        ..Default::default()
    };
    let long = "x".repeat(65);
    let many = vec![action("entry.read"); 21];
    let ill = [
        vec![action("entry")],
        many,
        vec![ActionQuestion {
            branch: Some(long.clone()),
            ..action("entry.read")
        }],
        vec![ActionQuestion {
            branch_alias: Some(secret.clone()),
            ..action("entry.read")
        }],
        vec![ActionQuestion {
            facts: [(long, true)].into(),
            ..action("entry.read")
        }],
    ];
    for actions in &ill {
        let question = Question::new(&secret, KEY).about(actions);
        assert!(client.cached(&question).is_none(), "{actions:?}");
    }
    // A malformed token or key does not make the question ill-formed. The client answers
    // NOT_RECOGNIZED without a call.
    let too_long = "x".repeat(513);
    for (token, key) in [
        ("", KEY),
        (too_long.as_str(), KEY),
        (&secret, ""),
        (&secret, &too_long),
    ] {
        let answer = client.cached(&Question::new(token, key)).unwrap();
        assert_eq!(answer.reason(), Some(Reason::NotRecognized));
    }
    let bad = Question::new(&secret, KEY).since("yesterday");
    assert!(client.cached(&bad).is_none());
    assert!(
        client
            .cached(&Question::new(&secret, "bltffffffffffffffff"))
            .is_some()
    );
}

#[tokio::test]
async fn actions_are_judged_here_only_by_a_catalogue_that_is_known_in_full() {
    let mut server = Server::start().await;
    *server.script.catalogue.lock().unwrap() = "another".into();
    let (client, _stream) = server.watched(5, 5).await;
    let secret = secret();
    let actions = [ActionQuestion {
        name: "entry.read".into(),
        ..Default::default()
    }];
    ask(&client, &secret).await;
    assert_eq!(
        ask(&client, &secret).await,
        (true, true),
        "a question without actions does not depend on the catalogue"
    );
    let question = Question::new(&secret, KEY).about(&actions);
    assert!(client.cached(&question).is_none());
}

#[tokio::test]
async fn a_verdict_that_the_client_would_not_reach_is_returned_but_not_cached() {
    let mut server = Server::start().await;
    let (client, _stream) = server.watched(5, 5).await;
    server.answer(|_| {
        Ok(v1::IntrospectResponse {
            reason: v1::Reason::ReadOnly.into(),
            decision: v1::Decision::Deny.into(),
            results: vec![v1::ActionResult {
                name: "entry.read".into(),
                allowed: false,
                reason: v1::Reason::ReadOnly.into(),
                missing: None,
            }],
            ..active(0)
        })
    });
    let actions = [ActionQuestion {
        name: "entry.read".into(),
        ..Default::default()
    }];
    let secret = secret();
    let question = Question::new(&secret, KEY).about(&actions);
    let answer = client.introspect(&question).await.unwrap();
    assert!(answer.active() && !answer.allowed());
    assert_eq!(answer.reason(), Some(Reason::ReadOnly));
    assert_eq!(client.entries(), 0);
}

#[tokio::test]
async fn a_revision_of_ones_own_is_honoured() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 6).await;
    let secret = secret();
    ask(&client, &secret).await;
    let since = |position| {
        let (client, secret) = (client.clone(), secret.clone());
        async move {
            let revision = at(position);
            let question = Question::new(&secret, KEY).since(&revision);
            client.introspect(&question).await.unwrap().from_memory()
        }
    };
    // The stream has already passed these revisions, so the cache may answer.
    assert!(since(5).await && since(4).await);
    // The stream has not reached this revision, so the client asks the server and sends only this
    // revision. The answer is not cached, because it may not reflect the changes on the stream.
    for _ in 0..2 {
        assert!(!since(7).await);
        assert_eq!(server.last_min(), at(7));
    }
    stream.wait_until_received((9, 8)).await;
    assert!(since(9).await);
    // This revision belongs to another epoch.
    let other = "00000000000000ff1";
    let question = Question::new(&secret, KEY).since(other);
    assert!(!client.introspect(&question).await.unwrap().from_memory());
    assert_eq!(server.last_min(), other);
    // If the token is not cached, the client sends the later of the two revisions and caches the
    // answer.
    let fresh = crate::scripted::secret();
    let revision = at(9);
    let question = Question::new(&fresh, KEY).since(&revision);
    assert!(!client.introspect(&question).await.unwrap().from_memory());
    assert_eq!(server.last_min(), at(9));
    assert!(client.introspect(&question).await.unwrap().from_memory());
}

/// After a failover, a server may not know a revision that another server has sent. The client then
/// asks without a revision, so the question is still decided, but does not cache the answer.
#[tokio::test]
async fn an_unknown_resume_revision_is_retried_without_one() {
    let mut server = Server::start().await;
    let (client, _stream) = server.watched(5, 5).await;
    server.answer(|request| match request.min_revision.as_str() {
        "" => Ok(active(0)),
        _ => Err(Status::out_of_range("not reached")),
    });
    let secret = secret();
    assert_eq!(ask(&client, &secret).await, (true, false));
    assert_eq!((server.asked(), client.entries()), (2, 0));
    let revision = at(99);
    let question = Question::new(&secret, KEY).since(&revision);
    let refused = client.introspect(&question).await.unwrap_err();
    assert!(
        matches!(refused, Error::RevisionUnknown { .. }),
        "{refused:?}"
    );
    assert_eq!(
        server.asked(),
        3,
        "the client does not drop the caller's own revision"
    );
}
