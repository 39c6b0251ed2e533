//! Tests PgBouncer in session mode between the replicas and PostgreSQL, with and without a direct
//! connection for the poller and LISTEN.

use std::time::{Duration, Instant};

use crate::{cluster::Cluster, pgbouncer, postgres};

async fn revokes_are_seen(cluster: &Cluster) {
    for at in 0..5 {
        let issued = cluster.issue(&format!("pooled {at}")).await;
        cluster.b.warm(&cluster.stack, &issued.secret).await;
        cluster
            .revoke(&issued.token.unwrap().token_uid)
            .await
            .unwrap();
        let revoked = Instant::now();
        while cluster
            .b
            .introspect(&cluster.stack, &issued.secret)
            .await
            .unwrap()
            .active
        {
            assert!(
                revoked.elapsed() <= Duration::from_secs(1),
                "active past the bound"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_pooler_in_session_mode_revokes_are_seen_within_the_bound() {
    let Some(program) = pgbouncer::find() else {
        return;
    };
    for past_it in [true, false] {
        let Some(postgres) = postgres::start() else {
            return;
        };
        let pooler = pgbouncer::start(&program, &postgres, "session", pgbouncer::IGNORED);
        let direct = if past_it {
            postgres.port()
        } else {
            pooler.port
        };
        let cluster = Cluster::start_through(postgres, (pooler.port, direct), |_| {}).await;
        revokes_are_seen(&cluster).await;
    }
}
