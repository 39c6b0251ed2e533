//! Tests when a use of a token is recorded: the first use at once, later uses in the background.

use std::time::Duration;

use prost_types::Timestamp;
use stacktoken::grpc::pb::v1::{self, TokenOrder};
use tonic::Code;

use crate::support::{
    TestServer,
    clients::fields,
    clock::START,
    database::{DirectConnection, eventually},
    introspect_request, never,
    requests::{
        Issued, batch_request, list_request, outcome, overlap_for, refused, rename_request,
        revoke_request,
    },
};

/// Starts a server that flushes token usage every 20 ms.
async fn eager() -> TestServer {
    TestServer::start_with(|tuning| tuning.usage_flush_every = Duration::from_millis(20)).await
}

/// Returns the last use of a token in seconds since the start of the test.
fn seconds(token: &v1::Token) -> Option<i64> {
    token.last_used_at.as_ref().map(|at| at.seconds - START)
}

fn instant(seconds: i64) -> Option<Timestamp> {
    let seconds = START + seconds;
    Some(Timestamp { seconds, nanos: 0 })
}

async fn used(server: &TestServer, token: &Issued) -> Option<i64> {
    seconds(&server.see(&token.uid).await)
}

fn pass(server: &TestServer, seconds: u64) {
    server.clock.advance(Duration::from_secs(seconds));
}

/// Returns the recorded last use in seconds since the start of the test, or -1 if none is recorded.
async fn on_record(outside: &DirectConnection, token: &Issued) -> i64 {
    let uid = token.uid.replace('-', "");
    let sql = format!(
        "SELECT COALESCE(MAX(last_used_at) / 1000000 - {START}, -1) FROM token_usage \
         WHERE token_uid = unhex('{uid}')"
    );
    outside.number(&sql).await
}

async fn recorded(outside: &DirectConnection, token: &Issued, at: i64) {
    let what = format!("{at} is recorded");
    eventually(&what, async || {
        (on_record(outside, token).await == at).then_some(())
    })
    .await;
}

async fn count(server: &TestServer, metric: &str) -> u64 {
    let text = server.metrics().await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{metric} ")));
    line.unwrap().trim().parse().unwrap()
}

async fn nothing_waits(server: &TestServer) {
    eventually("all uses are recorded", async || {
        let waiting = count(server, "stacktoken_usage_waiting").await;
        (waiting == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_use_is_exact_and_in_every_answer() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    assert_eq!(used(&server, &token).await, None);
    pass(&server, 5);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let outside = server.outside().await;
    assert_eq!(on_record(&outside, &token).await, 5);
    let (mut owner, stack) = (server.owner().await, &server.stack);
    let listed = owner.tokens.list(list_request(stack)).await.unwrap();
    let renamed = rename_request(stack, &token.uid, "deployed");
    let renamed = owner.tokens.update(renamed).await.unwrap().into_inner();
    let rotated = server.rotate(&token.uid, overlap_for(60)).await;
    let redated = server.set_expiry(&token.uid, never()).await;
    let revoked = revoke_request(stack, &token.uid, "");
    let revoked = owner.tokens.revoke(revoked).await.unwrap().into_inner();
    for answer in [
        &server.see(&token.uid).await,
        &listed.into_inner().tokens[0],
        &renamed.token.unwrap(),
        &rotated.token.unwrap(),
        &redated,
        &revoked.token.unwrap(),
    ] {
        assert_eq!(seconds(answer), Some(5), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_that_a_token_is_active_is_a_use_and_no_other_is() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.verdict(&token.secret).await;
    let mut service = server.service().await;
    pass(&server, 1);
    let denied = server.introspect(&token.secret, &["token.create"]).await;
    assert_eq!(denied.decision(), v1::Decision::Deny);
    assert_eq!(used(&server, &token).await, Some(1), "denied, but active");
    pass(&server, 1);
    let batch = batch_request(&server.stack, &[&token.secret, "junk"]);
    service.introspection.batch_introspect(batch).await.unwrap();
    assert_eq!(used(&server, &token).await, Some(2), "one of a batch");
    pass(&server, 1);
    let asked = server.request("GET", "/v3/content_types", &token.secret);
    assert_eq!(server.outcome_of(asked).await, "OK");
    assert_eq!(used(&server, &token).await, Some(3), "by Envoy");
    pass(&server, 1);
    let wrong = introspect_request("blt00c0ffee00c0ffee", &token.secret, &[]);
    let answer = service.introspection.introspect(wrong).await.unwrap();
    assert!(!answer.into_inner().active);
    server.suspend().await;
    assert_eq!(server.verdict(&token.secret).await, "STACK_SUSPENDED");
    server.revoke(&token.uid).await;
    assert_eq!(server.verdict(&token.secret).await, "REVOKED");
    assert_eq!(used(&server, &token).await, Some(3), "not active");
}

/// Creates triggers that record every write except heartbeats.
async fn watch_writes(outside: &DirectConnection) {
    outside.run("CREATE TABLE written (what TEXT)").await;
    for table in [
        "tokens",
        "token_secrets",
        "token_usage",
        "changes",
        "audit_events",
    ] {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let sql = format!(
                "CREATE TRIGGER {table}_{event} AFTER {event} ON {table} \
                 BEGIN INSERT INTO written VALUES ('{table}'); END"
            );
            outside.run(&sql).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_written_once_a_minute_at_most_and_never_by_a_verdict() {
    let server = eager().await;
    let (one, two) = (server.token("one").await, server.token("two").await);
    let outside = server.outside().await;
    server.verdict(&one.secret).await;
    pass(&server, 30);
    server.verdict(&two.secret).await;
    watch_writes(&outside).await;
    for _ in 0..29 {
        pass(&server, 1);
        server.verdict(&one.secret).await;
        server.verdict(&two.secret).await;
    }
    let written = outside.number("SELECT COUNT(*) FROM written").await;
    assert_eq!(written, 0, "58 verdicts within a minute write nothing");
    assert_eq!(
        used(&server, &one).await,
        Some(59),
        "the use is visible before it is recorded"
    );
    pass(&server, 1);
    recorded(&outside, &one, 59).await;
    assert_eq!(
        on_record(&outside, &two).await,
        30,
        "recorded half a minute ago"
    );
    pass(&server, 30);
    recorded(&outside, &two, 59).await;
    let written = outside.number("SELECT COUNT(*) FROM written").await;
    assert_eq!(written, 2, "each use is recorded once");
    assert_eq!(count(&server, "stacktoken_usage_writes_total").await, 2);
    assert_eq!(
        count(&server, "stacktoken_usage_rows_written_total").await,
        2
    );
    assert_eq!(count(&server, "stacktoken_usage_waiting").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_has_its_own_record_and_the_latest_counts() {
    let server = eager().await;
    let token = server.token("shared").await;
    let outside = server.outside().await;
    server.verdict(&token.secret).await;
    pass(&server, 60);
    nothing_waits(&server).await;
    pass(&server, 60);
    let jwt = server.issuer.service("gateway-1", server.clock.seconds());
    let mut gateway = server.with_authorization(format!("Bearer {jwt}")).await;
    let question = introspect_request(&server.stack, &token.secret, &[]);
    let asked = gateway.introspection.introspect(question).await;
    assert!(asked.unwrap().into_inner().active);
    recorded(&outside, &token, 120).await;
    let rows = outside.number("SELECT COUNT(*) FROM token_usage").await;
    assert_eq!(rows, 2);
    let earliest = outside.number("SELECT MIN(last_used_at) FROM token_usage");
    assert_eq!(earliest.await, START * 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_writes_what_waits() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server.verdict(&token.secret).await;
    pass(&server, 7);
    server.verdict(&token.secret).await;
    let outside = server.outside().await;
    assert_eq!(on_record(&outside, &token).await, 0);
    let folder = server.data_dir.clone();
    server.stop().await.unwrap();
    assert_eq!(on_record(&outside, &token).await, 7);
    drop(folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_no_record_costs_no_verdict_and_no_use() {
    let server = eager().await;
    let token = server.token("deploy").await;
    server.verdict(&token.secret).await;
    let outside = server.outside().await;
    outside
        .run("ALTER TABLE token_usage RENAME TO elsewhere")
        .await;
    pass(&server, 60);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    eventually("a failed write", async || {
        let failed = count(&server, "stacktoken_usage_write_failures_total").await;
        (failed > 1).then_some(())
    })
    .await;
    assert_eq!(count(&server, "stacktoken_usage_waiting").await, 1);
    pass(&server, 5);
    assert_eq!(server.verdict(&token.secret).await, "OK");
    outside
        .run("ALTER TABLE elsewhere RENAME TO token_usage")
        .await;
    recorded(&outside, &token, 65).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uses_beyond_the_queue_are_dropped_and_counted() {
    let server = TestServer::start_with(|tuning| {
        tuning.usage_flush_every = Duration::from_millis(20);
        tuning.usage_pairs = 2;
    })
    .await;
    let mut tokens = Vec::new();
    for name in ["one", "two", "three"] {
        let token = server.token(name).await;
        assert_eq!(server.verdict(&token.secret).await, "OK");
        tokens.push(token);
    }
    assert_eq!(count(&server, "stacktoken_usage_dropped_total").await, 1);
    pass(&server, 30);
    assert_eq!(server.verdict(&tokens[2].secret).await, "OK");
    assert_eq!(count(&server, "stacktoken_usage_dropped_total").await, 2);
    assert_eq!(
        used(&server, &tokens[2]).await,
        Some(0),
        "only the first use is known"
    );
    // Entries that were flushed more than a minute ago are evicted, so the tracker has space again.
    pass(&server, 60);
    nothing_waits(&server).await;
    pass(&server, 60);
    let outside = server.outside().await;
    eventually("the tracker has space again", async || {
        server.verdict(&tokens[2].secret).await;
        (on_record(&outside, &tokens[2]).await == 150).then_some(())
    })
    .await;
}

async fn unused(server: &TestServer, since: i64) -> Vec<String> {
    let request = v1::ListRequest {
        unused_since: instant(since),
        order: TokenOrder::Name.into(),
        ..list_request(&server.stack)
    };
    let listed = server.owner().await.tokens.list(request).await.unwrap();
    let tokens = listed.into_inner().tokens;
    tokens.into_iter().map(|token| token.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_unused_since_an_instant_are_found_and_newer_ones_are_not() {
    let server = TestServer::start().await;
    server.token("a: never used").await;
    let once = server.token("b: used once").await;
    let again = server.token("c: used again").await;
    pass(&server, 10);
    server.verdict(&once.secret).await;
    server.verdict(&again.secret).await;
    pass(&server, 10);
    server.token("d: never used, newer").await;
    pass(&server, 10);
    // This use is not recorded yet, so only this server knows of it.
    server.verdict(&again.secret).await;
    let table: [(i64, &[&str]); 7] = [
        (0, &[]),
        (1, &["a: never used"]),
        (10, &["a: never used"]),
        (11, &["a: never used", "b: used once"]),
        (20, &["a: never used", "b: used once"]),
        (
            30,
            &["a: never used", "b: used once", "d: never used, newer"],
        ),
        (
            31,
            &[
                "a: never used",
                "b: used once",
                "c: used again",
                "d: never used, newer",
            ],
        ),
    ];
    for (since, expected) in table {
        assert_eq!(unused(&server, since).await, expected, "{since}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_unused_tokens_goes_on_with_the_same_question_only() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c"] {
        server.token(name).await;
    }
    let mut owner = server.owner().await;
    let request = v1::ListRequest {
        unused_since: instant(1),
        page_size: 2,
        order: TokenOrder::Name.into(),
        ..list_request(&server.stack)
    };
    let first = owner.tokens.list(request.clone()).await.unwrap();
    let page_token = first.into_inner().next_page_token;
    let next = v1::ListRequest {
        page_token,
        ..request
    };
    let second = owner.tokens.list(next.clone()).await.unwrap().into_inner();
    assert_eq!(
        (second.tokens.len(), second.tokens[0].name.as_str()),
        (1, "c")
    );
    for unused_since in [None, instant(2)] {
        let other = v1::ListRequest {
            unused_since,
            ..next.clone()
        };
        let status = owner.tokens.list(other).await.unwrap_err();
        assert_eq!(fields(&status), ["page_token"]);
    }
    for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000)] {
        let bad = v1::ListRequest {
            unused_since: Some(Timestamp { seconds, nanos }),
            ..list_request(&server.stack)
        };
        let status = owner.tokens.list(bad).await.unwrap_err();
        assert_eq!(
            refused(&status),
            (Code::InvalidArgument, "INVALID_FIELD".into())
        );
        assert_eq!(fields(&status), ["unused_since"]);
    }
    let edge = v1::ListRequest {
        unused_since: Some(Timestamp {
            seconds: 253_402_300_799,
            nanos: 999_999_999,
        }),
        ..list_request(&server.stack)
    };
    assert_eq!(outcome(&owner.tokens.list(edge).await), "OK");
}
