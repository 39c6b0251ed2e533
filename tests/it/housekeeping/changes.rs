//! Tests that housekeeping deletes rows of the change log only from the beginning, keeps the last
//! row, and records the last purged id in the same transaction.

use std::time::Duration;

use super::{DAY, start_with_housekeeping};
use crate::support::TestServer;

async fn history(server: &TestServer) -> [i64; 4] {
    let database = server.outside().await;
    let mut found = [0; 4];
    let asked = [
        "SELECT count(*) FROM changes",
        "SELECT min(id) FROM changes",
        "SELECT max(id) FROM changes",
        "SELECT value FROM meta WHERE name = 'purged'",
    ];
    for (found, sql) in found.iter_mut().zip(asked) {
        *found = database.number(sql).await;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_beginning_of_the_change_log_is_deleted_when_it_is_old() {
    let server = start_with_housekeeping().await;
    server.token("a").await;
    let [old, first, last, purged] = history(&server).await;
    assert_eq!((first, purged), (1, 0));
    server.clock.advance(7 * DAY - Duration::from_secs(60));
    server.cleaned().await;
    assert_eq!(history(&server).await, [old, first, last, 0]);
    server.token("b").await;
    server.clock.advance(Duration::from_secs(120));
    server.cleaned().await;
    assert_eq!(history(&server).await, [1, last + 1, last + 1, last]);
    assert_eq!(server.purged("changes").await, last as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_row_of_the_change_log_stays_however_old_it_is() {
    let server = start_with_housekeeping().await;
    let [_, _, last, _] = history(&server).await;
    server.clock.advance(700 * DAY);
    server.cleaned().await;
    server.cleaned().await;
    assert_eq!(history(&server).await, [1, last, last, last - 1]);
    // The next ids follow the deleted ones, and none of the deleted ones is used again.
    server.token("next").await;
    server.cleaned().await;
    let next = last + 1;
    assert_eq!(history(&server).await, [1, next, next, last]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_behind_a_young_row_is_deleted_and_what_was_purged_never_goes_back() {
    let server = start_with_housekeeping().await;
    let database = server.outside().await;
    let now = server.clock.micros();
    let old = now - 8 * 24 * 3_600_000_000;
    database.run("DELETE FROM changes").await;
    let mut rows = Vec::new();
    // A clock was ahead for a while: row 1,301 appears young, and the rows around it appear old.
    for id in 1..=1500 {
        let at = if id == 1301 { now } else { old };
        rows.push(format!("({id}, x'00', 'issued', {at})"));
    }
    let insert = "INSERT INTO changes (id, stack_uid, kind, changed_at) VALUES ";
    let sql = format!(
        "BEGIN IMMEDIATE; UPDATE meta SET value = 1200 WHERE name = 'purged'; DELETE FROM changes; {insert}{}; COMMIT",
        rows.join(",")
    );
    database.run(&sql).await;
    server.cleaned().await;
    assert_eq!(history(&server).await, [200, 1301, 1500, 1300]);
    // A row with a lower id should never appear. If it does, it must not move the purged id back.
    database
        .run(&format!("{insert}(7, x'00', 'issued', {old})"))
        .await;
    server.cleaned().await;
    assert_eq!(history(&server).await, [200, 1301, 1500, 1300]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_not_deleted_where_that_cannot_be_written_down() {
    let server = start_with_housekeeping().await;
    let database = server.outside().await;
    let fault = "CREATE TRIGGER fault BEFORE UPDATE ON meta WHEN old.name = 'purged' \
                 BEGIN SELECT RAISE(ABORT, 'a fault'); END";
    database.run(fault).await;
    let before = history(&server).await;
    server.clock.advance(8 * DAY);
    let failures = "stacktoken_housekeeping_failures_total";
    let failed = async || (server.metric(failures).await >= 1.0).then_some(());
    crate::support::database::eventually("a failure", failed).await;
    assert_eq!(history(&server).await, before);
    database.run("DROP TRIGGER fault").await;
    server.cleaned().await;
    let [rows, .., last, purged] = history(&server).await;
    assert_eq!((rows, purged), (1, last - 1));
}
