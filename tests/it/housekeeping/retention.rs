//! Tests that each kind of row is kept for as long as the operator has configured.

use std::time::Duration;

use crate::support::TestServer;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_row_is_kept_for_as_long_as_the_operator_says() {
    let server = TestServer::start_with(|tuning| {
        tuning.keeping.housekeeping_every = Duration::from_millis(10);
        tuning.keeping.change_retention = 2 * HOUR;
        tuning.keeping.token_retention = 3 * HOUR;
        tuning.keeping.audit_retention = 4 * HOUR;
    })
    .await;
    let token = server.token("deploy").await;
    server.revoke(&token.uid).await;
    let database = server.outside().await;
    let all = database.number("SELECT count(*) FROM audit_events").await;
    let rows = async || {
        let mut counts = Vec::new();
        for table in ["changes", "tokens", "audit_events"] {
            let sql = format!("SELECT count(*) FROM {table}");
            counts.push(database.number(&sql).await);
        }
        counts
    };
    // The last row of the change log is always kept.
    for (hours, left) in [(2, [1, 1, all]), (3, [1, 0, all]), (4, [1, 0, 0])] {
        if hours == 2 {
            server.clock.advance(HOUR + HOUR / 2);
            server.cleaned().await;
            assert!(rows().await[0] > 1, "the change log is not old enough yet");
            server.clock.advance(HOUR / 2);
        } else {
            server.clock.advance(HOUR);
        }
        server.cleaned().await;
        server.cleaned().await;
        assert_eq!(rows().await, left, "after {hours} h");
    }
}
