//! Tests previews on PostgreSQL with the same scenarios as on SQLite. They notify no other replica
//! and have no effect on the token limit.

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, DbBackend, Statement};
use sqlx::postgres::PgListener;
use stacktoken::grpc::pb::v1;
use tonic::transport::{Channel, Endpoint};

use crate::{
    cluster::{Cluster, DATABASE},
    support::{
        issue_request,
        previews::{InspectTables, Rehearsal},
        raw::TestCaller,
        requests::{
            Issued, UNTIL_FIRST_USE, list_request, outcome, rename_request, revoke_request,
            rotate_request, set_expiry_request,
        },
    },
};

/// Two replicas, with a connection that reads their tables.
struct InspectedServer {
    cluster: Cluster,
    outside: DatabaseConnection,
    rows: String,
}

impl InspectedServer {
    async fn start() -> Option<Self> {
        let cluster = Cluster::start().await?;
        let url = cluster.postgres.url(cluster.postgres.port(), DATABASE);
        let tables = "SELECT table_name FROM information_schema.tables \
                      WHERE table_schema = 'public' ORDER BY 1";
        let tables = cluster.postgres.run(DATABASE, tables);
        let rows = tables.lines().map(|table| {
            let but = match table {
                "meta" => "WHERE name <> 'heartbeat'",
                "audit_events" => "WHERE refusal_reason IS NULL",
                _ => "",
            };
            format!("SELECT '{table}: ' || t::text AS row FROM {table} t {but}")
        });
        let rows = rows.collect::<Vec<_>>().join(" UNION ALL ");
        Some(Self {
            outside: Database::connect(url).await.unwrap(),
            rows: format!("{rows} ORDER BY 1"),
            cluster,
        })
    }
}

impl InspectTables for InspectedServer {
    const EXACT: bool = false;

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.cluster.a.address));
        endpoint.unwrap().connect().await.unwrap()
    }

    fn jwt(&self, part: TestCaller) -> String {
        part.jwt_of(&self.cluster.issuer, self.seconds())
    }

    async fn dump(&self) -> String {
        let statement = Statement::from_string(DbBackend::Postgres, &self.rows);
        let rows = self.outside.query_all_raw(statement).await.unwrap();
        let rows = rows.iter().map(|row| row.try_get_by_index(0).unwrap());
        rows.collect::<Vec<String>>().join("\n")
    }

    fn seconds(&self) -> i64 {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    }

    fn pass(&self, _: u64) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previews_match_their_changes_and_change_no_row() {
    let Some(world) = InspectedServer::start().await else {
        return;
    };
    let rehearsal = Rehearsal::of(&world).await;
    rehearsal.life_of_a_token().await;
    rehearsal.refusals_of_tokens().await;
    rehearsal.repetitions().await;
    rehearsal.life_of_a_stack("blt0123456789abcdef").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_match_their_previews() {
    let Some(world) = InspectedServer::start().await else {
        return;
    };
    let ended = Rehearsal::of(&world).await.walk(5, 100).await;
    let good = ended.iter().filter(|how| *how == "OK").count();
    assert!(good > 20 && good < 100, "{ended:?}");
}

/// Returns how many notifications arrive before this mark. Notifications are delivered in the order
/// of their commits, so the mark arrives after all of them.
async fn notices_before(listener: &mut PgListener, mark: &str) -> usize {
    let mut heard = 0;
    while listener.recv().await.unwrap().payload() != mark {
        heard += 1;
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_notifies_no_watcher() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let (stack, a) = (cluster.stack.as_str(), &cluster.a);
    let issued = Issued::from(cluster.issue("deploy").await);
    let url = cluster.postgres.url(cluster.postgres.port(), DATABASE);
    let mut listener = PgListener::connect(&url).await.unwrap();
    listener.listen("stacktoken_changes").await.unwrap();
    let mark = |name: &str| {
        let sql = format!("NOTIFY stacktoken_changes, '{name}'");
        cluster.postgres.run(DATABASE, &sql);
    };
    let update = |validate_only| v1::UpdateRequest {
        validate_only,
        ..rename_request(stack, &issued.uid, "renamed")
    };
    let redate = v1::SetExpiryRequest {
        validate_only: true,
        ..set_expiry_request(stack, &issued.uid, crate::support::now())
    };
    let rotate = v1::RotateRequest {
        validate_only: true,
        ..rotate_request(stack, &issued.uid, UNTIL_FIRST_USE)
    };
    let revoke = v1::RevokeRequest {
        validate_only: true,
        ..revoke_request(stack, &issued.uid, "")
    };
    let mut tokens = a.owner.tokens.clone();
    tokens.update(update(true)).await.unwrap();
    tokens.set_expiry(redate).await.unwrap();
    tokens.rotate(rotate).await.unwrap();
    tokens.revoke(revoke).await.unwrap();
    mark("previewed");
    assert_eq!(notices_before(&mut listener, "previewed").await, 0);
    tokens.update(update(false)).await.unwrap();
    mark("changed");
    assert_eq!(notices_before(&mut listener, "changed").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_previews_beside_fourteen_issues_leave_ten_tokens() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let calls = (0..64).map(|at| {
        // There is one `Issue` after every three or four previews.
        let preview = at * 14 / 64 == (at + 1) * 14 / 64;
        let replica = [&cluster.a, &cluster.b][at % 2];
        let request = v1::IssueRequest {
            validate_only: preview,
            ..issue_request(&cluster.stack, &format!("token {at}"))
        };
        let mut tokens = replica.owner.tokens.clone();
        async move { (preview, outcome(&tokens.issue(request).await)) }
    });
    let ended = join_all(calls).await;
    let issued = ended
        .iter()
        .filter(|(preview, refusal_text)| !preview && refusal_text == "OK");
    assert_eq!(issued.count(), 10);
    for (_, refusal_text) in &ended {
        let known = ["OK", "ResourceExhausted TOKEN_LIMIT_REACHED"];
        assert!(known.contains(&refusal_text.as_str()), "{refusal_text}");
    }
    let request = list_request(&cluster.stack);
    let listed = cluster.a.owner.tokens.clone().list(request).await.unwrap();
    let limit = listed.into_inner().limit.unwrap();
    assert_eq!((limit.used, limit.max), (10, 10));
}
