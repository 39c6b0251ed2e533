//! Tests failover to a synchronous standby. There are two real PostgreSQL servers with streaming
//! replication, and two replicas whose database address moves from the former primary to the new
//! one. The former primary is not fenced and still answers reads.

mod commits;
mod durability;
mod moved;
mod observer;
mod promotion;

use std::time::{Duration, Instant};

use observer::{Token, Tokens};
use stacktoken::app::Safeguards;
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, Replica},
    postgres::Postgres,
    proxy::Link,
    support::issue_request,
};

/// Questions must be answered again within this time after the new primary accepts connections.
const RECOVERY: Duration = Duration::from_secs(3);

const STREAMING: &str = "SELECT count(*) FROM pg_stat_replication";

/// Returns how many failovers each test performs.
fn rounds() -> usize {
    let set = std::env::var("STACKTOKEN_TEST_FAILOVERS");
    set.map_or(2, |rounds| rounds.parse().unwrap())
}

/// Two replicas on a primary that commits nothing without its standby.
struct SyncReplicas {
    cluster: Cluster,
    standby: Option<Postgres>,
    /// The former primary after a failover. It is still running.
    former: Option<Postgres>,
}

impl SyncReplicas {
    /// Starts the cluster and its standby. Returns `None` if PostgreSQL is not installed.
    async fn start() -> Option<Self> {
        let cluster = Cluster::start_with(|_| {}, Safeguards::default()).await?;
        cluster.allow_tokens(1000).await;
        let standby = Some(cluster.postgres.synchronous_standby());
        Some(Self {
            cluster,
            standby,
            former: None,
        })
    }

    /// Promotes the standby. The addresses that the replicas use still lead to the former primary.
    fn promote(&mut self) -> Instant {
        let primary = self.standby.take().unwrap();
        primary.promote();
        let promoted = Instant::now();
        self.former = Some(std::mem::replace(&mut self.cluster.postgres, primary));
        promoted
    }

    /// Stops the replication to the standby, as if the link to it were cut.
    fn stop_streaming(&self) {
        let standby = self.standby.as_ref().unwrap();
        standby.set("primary_conninfo", "''");
        let until = Instant::now() + Duration::from_secs(5);
        while self.cluster.postgres.run("postgres", STREAMING) != "0" {
            assert!(Instant::now() < until, "the standby still streams");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the former primary and creates a standby for the new one.
    fn rebuild(&mut self) {
        self.former = None;
        self.standby = Some(self.cluster.postgres.synchronous_standby());
    }

    fn port(&self) -> u16 {
        self.cluster.postgres.port()
    }
}

/// Moves both database addresses of a replica to another server.
fn move_links(replica: &Replica, port: u16, standing: Link) {
    replica.link.move_to(port, standing);
    replica.control_link.move_to(port, standing);
}

/// Issues a token at A, as soon as A accepts changes.
async fn issue_when_possible(cluster: &Cluster, name: &str) -> Token {
    let until = Instant::now() + Duration::from_secs(10);
    for attempt in 0.. {
        // Each attempt uses another name, because an earlier one may have succeeded although it got
        // no answer.
        let request = issue_request(&cluster.stack, &format!("{name} {attempt}"));
        match cluster.a.owner.tokens.clone().issue(request).await {
            Ok(issued) => return Token::from(issued.into_inner()),
            Err(status) => assert!(Instant::now() < until, "{status:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    unreachable!()
}

/// Issues tokens and makes B cache them. The first token stays live; the test may revoke the
/// others.
async fn known_tokens(pair: &SyncReplicas, round: usize) -> (Vec<Token>, Tokens) {
    let mut tokens = Vec::new();
    for at in 0..=6 {
        let token = issue_when_possible(&pair.cluster, &format!("token {round}-{at}")).await;
        pair.cluster
            .b
            .warm(&pair.cluster.stack, &token.secret)
            .await;
        tokens.push(token);
    }
    let asked = Tokens::new(&pair.cluster.stack, tokens.clone());
    (tokens, asked)
}
