//! Tests that housekeeping deletes dead tokens with their rows, audit rows (which are kept longer)
//! and stale usage rows.

use std::time::Duration;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use stacktoken::grpc::pb::v1;

use super::{DAY, start_with_housekeeping};
use crate::support::{
    TestServer, at,
    clock::START,
    database::eventually,
    issue_request,
    requests::{list_request, overlap_for, rotate_request},
};

async fn listed(server: &TestServer) -> Vec<String> {
    let mut owner = server.owner().await;
    let page = owner.tokens.list(list_request(&server.stack)).await;
    let tokens = page.unwrap().into_inner().tokens;
    let mut names: Vec<_> = tokens.into_iter().map(|token| token.name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_tokens_are_deleted_after_their_time_and_not_before() {
    let server = start_with_housekeeping().await;
    let live = server.token("live").await;
    let revoked = server.token("revoked").await;
    server.token_until("expired", at(START + 3600)).await;
    server.revoke(&revoked.uid).await;
    server.clock.advance(DAY);
    let found = server.token_until("ended", at(START + 2 * 24 * 3600)).await;
    server.clock.advance(2 * DAY);
    // This `Issue` finds that two tokens have expired and records their end. Each is kept for the
    // retention time from this instant.
    server.token("another").await;
    server.clock.advance(87 * DAY - Duration::from_secs(60));
    server.cleaned().await;
    let all = ["another", "ended", "expired", "live", "revoked"];
    assert_eq!(listed(&server).await, all);
    assert_eq!(server.verdict(&revoked.secret).await, "REVOKED");
    server.clock.advance(Duration::from_secs(120));
    server.cleaned().await;
    assert_eq!(
        listed(&server).await,
        ["another", "ended", "expired", "live"]
    );
    assert_eq!(server.verdict(&revoked.secret).await, "NOT_RECOGNIZED");
    assert_eq!(server.verdict(&found.secret).await, "EXPIRED");
    server.clock.advance(3 * DAY);
    server.cleaned().await;
    assert_eq!(listed(&server).await, ["another", "live"]);
    assert_eq!(server.verdict(&found.secret).await, "NOT_RECOGNIZED");
    assert_eq!(server.verdict(&live.secret).await, "OK");
    assert_eq!(server.purged("tokens").await, 3.0);
    assert_eq!(server.purged("token_secrets").await, 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_expired_unnoticed_is_dead_since_then() {
    let server = start_with_housekeeping().await;
    server.token_until("unnoticed", at(START + 3600)).await;
    server.clock.advance(90 * DAY + Duration::from_secs(3590));
    server.cleaned().await;
    assert_eq!(listed(&server).await, ["unnoticed"]);
    server.clock.advance(Duration::from_secs(10));
    server.cleaned().await;
    assert!(listed(&server).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_a_tokens_own_goes_with_it_and_the_audit_stays() {
    let server = start_with_housekeeping().await;
    let request = v1::IssueRequest {
        request_id: "once".into(),
        ..issue_request(&server.stack, "deploy")
    };
    let mut owner = server.owner().await;
    let issued = owner.tokens.issue(request.clone()).await.unwrap();
    let uid = issued.into_inner().token.unwrap().token_uid;
    let rotate = rotate_request(&server.stack, &uid, overlap_for(60));
    let rotated = owner.tokens.rotate(rotate).await.unwrap().into_inner();
    assert_eq!(server.verdict(&rotated.secret).await, "OK");
    server.revoke(&uid).await;
    let kept = server.token("kept").await;
    server.verdict(&kept.secret).await;
    let database = server.outside().await;
    let rows = async |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        database.number(&sql).await
    };
    let before = server.audit().await;
    assert_eq!(
        (rows("token_secrets").await, rows("requests").await),
        (3, 1)
    );
    server.clock.advance(91 * DAY);
    server.cleaned().await;
    assert_eq!((rows("tokens").await, rows("token_secrets").await), (1, 1));
    assert_eq!((rows("requests").await, rows("token_usage").await), (0, 1));
    assert_eq!(server.audit().await, before);
    // An idempotency key is kept as long as its token.
    let mut owner = server.owner().await;
    let anew = owner.tokens.issue(request).await.unwrap().into_inner();
    assert_ne!(anew.token.unwrap().token_uid, uid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_is_kept_for_its_own_time() {
    let server = start_with_housekeeping().await;
    server.token("old").await;
    let rows = server.audit().await.len();
    server.clock.advance(400 * DAY - Duration::from_secs(60));
    server.cleaned().await;
    server.token("young").await;
    assert_eq!(server.audit().await.len(), rows + 1);
    server.clock.advance(Duration::from_secs(120));
    server.cleaned().await;
    let left = server.audit().await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(server.purged("audit_events").await, rows as f64);
}

/// Returns SQL that inserts a token with a secret, an idempotency key and two rows of usage.
fn row(at: u32, keep: bool, times: [Option<i64>; 3]) -> String {
    let time = |at: Option<i64>| at.map_or("NULL".into(), |at| at.to_string());
    let [revoked, ended, expires] = times.map(time);
    let (uid, fate) = (format!("x'{at:032x}'"), if keep { "keep" } else { "go" });
    let stack = "(SELECT uid FROM stacks LIMIT 1)";
    format!(
        "INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
         secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, \
         expires_at, ended_at, revoked_at, revoke_reason) VALUES ({uid}, {stack}, 'n{at}', \
         '{fate}', '{{\"access\":\"READ\"}}', 1, 'abcd', 0, 'USER', 'i', 's', {expires}, {ended}, {revoked}, ''); \
         INSERT INTO token_secrets (digest, token_uid, generation, made_at) \
         VALUES (x'{at:064x}', {uid}, 1, 0); \
         INSERT INTO requests (stack_uid, caller_issuer, caller_subject, rpc, request_id, content, \
         token_uid, generation, token_state, first_seen_at) \
         VALUES ({stack}, 'i', 's', 'r', 'q{at}', x'00', {uid}, 1, x'00', 0); \
         INSERT INTO token_usage (token_uid, service_issuer, service_subject, last_used_at) \
         VALUES ({uid}, 'i', 'a', 1), ({uid}, 'i', 'b', 2);"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_random_lot_nothing_live_or_young_is_lost() {
    let server = start_with_housekeeping().await;
    let database = server.outside().await;
    let seed = 11;
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let now = server.clock.micros();
    let cutoff = now - 90 * 24 * 3_600_000_000;
    let mut sql = String::from("BEGIN IMMEDIATE; ");
    let (mut kept, total) = (0, 3000);
    for at in 1..=total {
        // The time is within an hour of the cutoff, unset, or far in the future.
        let mut time = || match random.next_u32() % 4 {
            0 => None,
            1 => Some(now + 1_000_000_000_000),
            _ => Some(cutoff + i64::from(random.next_u32() % 7_200) * 1_000_000 - 3_600_000_000),
        };
        let (expires, ended, revoked) = (time(), time(), time());
        // `revoked_at` and `ended_at` are never in the future.
        let past = |at: Option<i64>| at.filter(|at| *at <= now);
        let (ended, revoked) = (past(ended), past(revoked));
        let dead = revoked.or(ended).or(expires);
        // The clock advances a few seconds before housekeeping runs, so tokens close to the cutoff
        // are skipped.
        let near = dead.is_some_and(|at| at > cutoff && at <= cutoff + 60_000_000);
        if near {
            continue;
        }
        let keep = dead.is_none_or(|at| at > cutoff);
        kept += i64::from(keep);
        sql += &row(at, keep, [revoked, ended, expires]);
    }
    sql += "COMMIT;";
    database.run(&sql).await;
    server.cleaned().await;
    let count = async |sql: &str| database.number(&format!("SELECT count(*) {sql}")).await;
    assert!(kept > 100 && kept < 2900, "{kept}");
    assert_eq!(count("FROM tokens WHERE description = 'go'").await, 0);
    assert_eq!(count("FROM tokens WHERE description = 'keep'").await, kept);
    assert_eq!(count("FROM token_secrets").await, kept);
    assert_eq!(count("FROM requests").await, kept);
    // The last use of each token is kept, no matter how old it is.
    assert_eq!(count("FROM token_usage").await, kept);
    let last = count("FROM token_usage WHERE service_subject = 'b'").await;
    assert_eq!(last, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recent_use_by_a_service_is_kept() {
    let server = start_with_housekeeping().await;
    let token = server.token("used").await;
    server.verdict(&token.secret).await;
    let database = server.outside().await;
    let now = server.clock.micros();
    let day = 24 * 3_600_000_000_i64;
    let rows = [("stale", now - 91 * day), ("late", now - 89 * day)];
    for (service, at) in rows {
        let sql = format!(
            "INSERT INTO token_usage SELECT uid, 'i', '{service}', {at} FROM tokens LIMIT 1"
        );
        database.run(&sql).await;
    }
    server.cleaned().await;
    let sql = "SELECT count(*) FROM token_usage WHERE service_subject";
    assert_eq!(database.number(&format!("{sql} = 'stale'")).await, 0);
    assert_eq!(database.number(&format!("{sql} <> 'stale'")).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_in_the_middle_undoes_its_batch_keeps_nothing_else_and_is_made_up_for() {
    let server = start_with_housekeeping().await;
    let database = server.outside().await;
    let mut sql = String::from("BEGIN IMMEDIATE; ");
    for at in 1..=1200 {
        sql += &row(at, false, [Some(i64::from(at)), None, None]);
    }
    // Tokens are deleted oldest first, so the row of token 700 is in the second batch and makes
    // this batch fail.
    sql += "CREATE TRIGGER fault BEFORE DELETE ON tokens WHEN old.revoked_at = 700 \
            BEGIN SELECT RAISE(ABORT, 'a fault'); END; COMMIT;";
    database.run(&sql).await;
    let failures = "stacktoken_housekeeping_failures_total";
    let failed = async || (server.metric(failures).await >= 2.0).then_some(());
    eventually("a failure", failed).await;
    let rows = async |table: &str| {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE token_uid < x'00000000000000000000000000010000'"
        );
        database.number(&sql).await
    };
    assert_eq!(database.number("SELECT count(*) FROM tokens").await, 700);
    // The rollback of the failed batch also restored its secrets and requests.
    assert_eq!(
        (rows("token_secrets").await, rows("requests").await),
        (700, 700)
    );
    // Everything outside the failed batch is still deleted.
    assert_eq!(rows("token_usage").await, 700);
    database.run("DROP TRIGGER fault").await;
    server.cleaned().await;
    assert_eq!(database.number("SELECT count(*) FROM tokens").await, 0);
    assert_eq!(rows("token_secrets").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_server_deletes_no_more() {
    let server = TestServer::start_with(|tuning| {
        tuning.keeping.housekeeping_every = Duration::from_millis(10);
        tuning.drain_delay = Some(Duration::from_secs(1));
    })
    .await;
    let database = server.outside().await;
    server.cleaned().await;
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sql = row(1, false, [Some(1), None, None]);
    database.run(&sql).await;
    stopping.await.unwrap().unwrap();
    assert_eq!(database.number("SELECT count(*) FROM tokens").await, 1);
}
