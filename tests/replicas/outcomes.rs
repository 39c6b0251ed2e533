//! Tests changes whose COMMIT was sent, but whose outcome is unknown or was reported with a
//! warning.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic::{Code, Status};

use crate::{
    cluster::{Cluster, DATABASE},
    proxy::Link,
    support::reason,
};

impl Cluster {
    /// Makes commits wait for a standby that does not exist, or no longer wait.
    fn require_a_standby(&self, required: bool) {
        let sql = if required {
            "ALTER SYSTEM SET synchronous_standby_names = 'elsewhere'"
        } else {
            "ALTER SYSTEM RESET synchronous_standby_names"
        };
        self.postgres.run(DATABASE, sql);
        self.postgres.run(DATABASE, "SELECT pg_reload_conf()");
    }

    /// Starts a revoke whose COMMIT waits for the standby. Returns the token's id, the token's
    /// secret and the call.
    async fn revoke_without_commit(
        &self,
    ) -> (
        String,
        String,
        impl Future<Output = Result<(), Status>> + use<>,
    ) {
        let issued = self.issue("unsettled").await;
        let uid = issued.token.unwrap().token_uid;
        self.a.warm(&self.stack, &issued.secret).await;
        self.require_a_standby(true);
        let (mut owner, stack) = (self.a.owner.clone(), self.stack.clone());
        let request = crate::support::requests::revoke_request(&stack, &uid, "");
        let revoke = tokio::spawn(async move { owner.tokens.revoke(request).await.map(drop) });
        let until = Instant::now() + Duration::from_secs(10);
        while self.postgres.run(DATABASE, WAITING) != "1" {
            assert!(Instant::now() < until, "no COMMIT waits");
            sleep(Duration::from_millis(20)).await;
        }
        (uid, issued.secret, async move { revoke.await.unwrap() })
    }

    async fn is_revoked_for_good(&self, uid: &str, secret: &str) {
        let sql = format!("SELECT revoked_at IS NOT NULL FROM tokens WHERE uid = '{uid}'");
        let until = Instant::now() + Duration::from_secs(10);
        while self.postgres.run(DATABASE, &sql) != "t" {
            assert!(Instant::now() < until, "never committed");
            sleep(Duration::from_millis(20)).await;
        }
        // When the token is no longer barred from the cache, answers come from the cache again and
        // reflect the current state.
        let mut hits = self.a.metric("stacktoken_cache_hits_total").await;
        let begun = hits;
        while hits < begun + 3.0 {
            assert!(
                Instant::now() < until,
                "never answered from the cache again"
            );
            if let Ok(answer) = self.a.introspect(&self.stack, secret).await {
                assert!(!answer.active);
            }
            sleep(Duration::from_millis(20)).await;
            hits = self.a.metric("stacktoken_cache_hits_total").await;
        }
    }
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";

fn require_unknown(status: &Status) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::Unavailable, "STORE_UNAVAILABLE")
    );
    assert!(
        status
            .message()
            .contains("outcome of the change is unknown"),
        "{status:?}"
    );
}

/// PostgreSQL reports the commit as successful, but warns that it may not be replicated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_wait_for_the_standby_was_cancelled_is_not_acknowledged() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    // This default would suppress the warning.
    let silence = format!("ALTER DATABASE {DATABASE} SET client_min_messages = 'error'");
    cluster.postgres.run(DATABASE, &silence);
    crate::defaults::end_sessions(&cluster.postgres);
    cluster.allow_tokens_soon(10).await;
    let (uid, secret, revoke) = cluster.revoke_without_commit().await;
    let sql = WAITING.replace("count(*)", "pg_cancel_backend(pid)");
    cluster.postgres.run(DATABASE, &sql);
    require_unknown(&revoke.await.unwrap_err());
    cluster.require_a_standby(false);
    cluster.is_revoked_for_good(&uid, &secret).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_backend_was_terminated_is_not_acknowledged() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (uid, secret, revoke) = cluster.revoke_without_commit().await;
    let sql = WAITING.replace("count(*)", "pg_terminate_backend(pid)");
    cluster.postgres.run(DATABASE, &sql);
    require_unknown(&revoke.await.unwrap_err());
    cluster.require_a_standby(false);
    cluster.is_revoked_for_good(&uid, &secret).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_connection_is_lost_is_found_out_about() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (uid, secret, revoke) = cluster.revoke_without_commit().await;
    cluster.a.link.set(Link::Cut);
    require_unknown(&revoke.await.unwrap_err());
    cluster.a.link.set(Link::Up);
    sleep(Duration::from_millis(300)).await;
    cluster.require_a_standby(false);
    cluster.is_revoked_for_good(&uid, &secret).await;
}

/// The call stops waiting for COMMIT only when it gets the result, or when the database reports the
/// outcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_swallowed_is_found_out_about() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (uid, secret, revoke) = cluster.revoke_without_commit().await;
    cluster.a.link.set(Link::BlackHole);
    cluster.require_a_standby(false);
    let status = revoke.await.unwrap_err();
    assert!(
        [Code::DeadlineExceeded, Code::Unavailable].contains(&status.code()),
        "{status:?}"
    );
    cluster.a.link.set(Link::Up);
    cluster.is_revoked_for_good(&uid, &secret).await;
}
