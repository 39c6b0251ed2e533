//! Tests the plans of the statements that replicas really send, with enough rows to reveal a bad
//! plan. PostgreSQL logs the plans (`auto_explain`), so the test does not depend on a list of
//! statements, which could be incomplete.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stacktoken::{
    config::Tuning,
    domain::{entropy::OsEntropy, secret::Secret},
    grpc::pb::{
        audit::v1::{ActorFilter, AuditEventKind, AuditOutcome, ListRequest},
        v1,
    },
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    cluster::{Cluster, DATABASE},
    postgres::{self, Postgres},
    support::{
        ISSUER,
        database::eventually,
        methods,
        previews::{InspectTables, Rehearsal},
        raw::TestCaller,
        requests::{EVERY_TOKEN, batch_request, list_request, revoke_all_request},
    },
};

/// The number of rows in each large table.
const ROWS: u32 = 100_000;
/// The maximum number of rows that one node of a plan may read or sort; no statement here needs
/// more. A purge reads tables in batches of 2,000 rows, plus a few more rows for each batch.
const MOST: u64 = 4_000;
/// The tables whose number of rows is fixed.
const FIXED: [&str; 2] = ["meta", "incarnation"];

/// The planner statistics and the `plan_cache_mode` of each pass. Without statistics (as after a
/// restore), custom and generic plans use the same estimates, so one pass is enough.
const PASSES: [(&str, &str); 3] = [
    ("none", "force_generic_plan"),
    ("ANALYZE", "auto"),
    ("ANALYZE", "force_generic_plan"),
];

/// Two replicas on a database that logs the plan of each statement with the actual row counts.
struct PlanLog {
    cluster: Cluster,
}

impl PlanLog {
    async fn start() -> Option<Self> {
        let postgres = postgres::start()?;
        for setting in [
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_analyze = on",
            "auto_explain.log_timing = off",
            "log_line_prefix = '@@%a@@'",
            // Only the test itself updates the statistics.
            "autovacuum = off",
        ] {
            set(&postgres, setting);
        }
        let ports = (postgres.port(), postgres.port());
        // A database that logs every plan and writes many rows is slow to answer heartbeats.
        let patient = |tuning: &mut Tuning| tuning.freshness_bound = Duration::from_secs(8);
        let cluster = Cluster::start_through(postgres, ports, patient).await;
        Some(Self { cluster })
    }

    /// Calls everything that reads or changes what a verdict depends on.
    async fn use_all(&self, key: &str) {
        let rehearsal = Rehearsal::of(self).await;
        rehearsal.life_of_a_token().await;
        rehearsal.life_of_a_stack(key).await;
        self.use_and_revoke_all(key).await;
        self.search_audit().await;
        let (b, stack) = (&self.cluster.b, &self.cluster.stack);
        for count in [1, 4, 20, 100] {
            // A connection uses a generic plan only after five executions.
            for _ in 0..8 {
                let unknown: Vec<_> = (0..=count)
                    .map(|_| Secret::generate(&OsEntropy).unwrap().expose().to_owned())
                    .collect();
                let asked: Vec<_> = unknown[1..].iter().map(String::as_str).collect();
                let mut service = b.service.introspection.clone();
                let batch = batch_request(stack, &asked);
                service.batch_introspect(batch).await.unwrap();
                b.introspect(stack, &unknown[0]).await.unwrap();
            }
        }
    }

    /// Searches the audit with each filter. Each filter gets several values: common ones, rare
    /// ones, and ones that match no row.
    async fn search_audit(&self) {
        let actor = |subject: &str| ActorFilter {
            issuer: ISSUER.into(),
            subject: subject.into(),
        };
        let uids = || [1, 2].map(|uid| uuid::Uuid::from_u128(uid).to_string());
        let filters = [
            ListRequest::default(),
            ListRequest {
                stack_api_key: self.cluster.stack.clone(),
                ..Default::default()
            },
            ListRequest {
                methods: vec![methods::ISSUE.into()],
                ..Default::default()
            },
            ListRequest {
                methods: vec![methods::REMOVE.into(), methods::RESUME.into()],
                ..Default::default()
            },
            ListRequest {
                kinds: vec![AuditEventKind::Superseded.into()],
                ..Default::default()
            },
            ListRequest {
                outcomes: vec![AuditOutcome::Done.into()],
                ..Default::default()
            },
            ListRequest {
                outcomes: vec![AuditOutcome::Refused.into()],
                ..Default::default()
            },
            ListRequest {
                error_reasons: vec!["NAME_TAKEN".into(), "TOKEN_EXPIRED".into()],
                ..Default::default()
            },
            ListRequest {
                token_uids: uids().into(),
                ..Default::default()
            },
            ListRequest {
                actors: vec![actor("owner"), actor("nobody")],
                ..Default::default()
            },
            ListRequest {
                request_id: "a-key".into(),
                ..Default::default()
            },
            ListRequest {
                call_id: "a-call".into(),
                ..Default::default()
            },
            ListRequest {
                occurred_from: Some(prost_types::Timestamp::default()),
                ..Default::default()
            },
        ];
        for filter in filters {
            // A connection uses a generic plan only after five executions.
            for _ in 0..8 {
                let mut operator = self.cluster.b.operator.clone();
                let page = operator.audit.list(filter.clone()).await.unwrap();
                let next = ListRequest {
                    page_token: page.into_inner().next_page_token,
                    ..filter.clone()
                };
                operator.audit.list(next).await.unwrap();
            }
        }
    }

    /// Records first uses, lists tokens with every filter, and revokes all tokens.
    async fn use_and_revoke_all(&self, name: &str) {
        let stack = &self.cluster.stack;
        for at in 0..4 {
            let issued = self.cluster.issue(&format!("{name} {at}")).await;
            self.cluster.b.warm(stack, &issued.secret).await;
        }
        let mut owner = self.cluster.a.owner.clone();
        for request in lists(stack) {
            // A connection uses a generic plan only after five executions.
            for _ in 0..8 {
                owner.tokens.list(request.clone()).await.unwrap();
            }
        }
        let mut operator = self.cluster.a.operator.clone();
        for request in lists_of_all_stacks() {
            for _ in 0..8 {
                operator.tokens.list(request.clone()).await.unwrap();
            }
        }
        let shown = revoke_all_request(stack, &EVERY_TOKEN, None);
        let shown = owner.tokens.revoke_all(shown).await.unwrap().into_inner();
        let all = revoke_all_request(stack, &EVERY_TOKEN, Some(&shown.preview_hash));
        owner.tokens.revoke_all(all).await.unwrap();
    }
}

impl InspectTables for PlanLog {
    const EXACT: bool = false;

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.cluster.a.address));
        endpoint.unwrap().connect().await.unwrap()
    }

    fn jwt(&self, part: TestCaller) -> String {
        part.jwt_of(&self.cluster.issuer, self.seconds())
    }

    /// Returns enough to detect that a change was made. Another test checks everything that a
    /// preview must not touch. The rows that [`fill`] has inserted are left out, because they are
    /// old and get purged.
    async fn dump(&self) -> String {
        let rows = format!(
            "SELECT count(*) FROM audit_events \
             WHERE refusal_reason IS NULL AND occurred_at > {ROWS}"
        );
        self.cluster.postgres.run(DATABASE, &rows)
    }

    fn seconds(&self) -> i64 {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    }

    fn pass(&self, _: u64) {}
}

/// Returns a list request for each filter, and one with all filters.
fn lists(stack: &str) -> Vec<v1::ListRequest> {
    let instant = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let each: [fn(&mut v1::ListRequest, &v1::ListRequest); 7] = [
        |one, all| one.name = all.name.clone(),
        |one, all| one.name_contains = all.name_contains.clone(),
        |one, all| one.issued_by = all.issued_by.clone(),
        |one, all| one.access = all.access,
        |one, all| one.labels = all.labels.clone(),
        |one, _| one.secret_hint = "abcd".into(),
        |one, all| one.expires_before = all.expires_before,
    ];
    let all = v1::ListRequest {
        states: vec![v1::TokenState::Active.into()],
        expires_from: instant(1),
        expires_before: instant(2),
        name_contains: "n".into(),
        unused_since: instant(1),
        issued_by: Some(v1::Actor {
            kind: v1::CallerKind::User.into(),
            issuer: "i".into(),
            subject: "s".into(),
        }),
        name: "n1".into(),
        access: v1::Access::Read.into(),
        issued_from: instant(1),
        issued_before: instant(2),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        ..list_request(stack)
    };
    let mut lists: Vec<_> = each
        .iter()
        .map(|by| {
            let mut one = list_request(stack);
            by(&mut one, &all);
            one
        })
        .collect();
    lists.push(all);
    lists
}

/// Returns requests to list the tokens of all stacks, which must use an index.
fn lists_of_all_stacks() -> [v1::ListRequest; 3] {
    [
        list_request(""),
        v1::ListRequest {
            order: v1::TokenOrder::OldestFirst.into(),
            ..list_request("")
        },
        v1::ListRequest {
            secret_hint: "abcd".into(),
            ..list_request("")
        },
    ]
}

fn set(postgres: &Postgres, setting: &str) {
    postgres.run("postgres", &format!("ALTER SYSTEM SET {setting}"));
    postgres.run("postgres", "SELECT pg_reload_conf()");
}

/// Inserts rows into every table that grows.
pub fn fill(postgres: &Postgres, rows: u32) {
    let uid = |of: &str| format!("lpad(to_hex({of}), 32, '0')::uuid");
    let (one, its) = (uid("n"), uid("n % 1000 + 1"));
    let sql = format!(
        "INSERT INTO stacks (uid, key, name, organization_uid, token_limit, registered_at) \
         SELECT {one}, 'blt' || lpad(to_hex(n), 16, '0'), 'Filled', 'o', 1000, 0 \
         FROM generate_series(1, {rows}) n; \
         INSERT INTO stack_members (stack_uid, issuer, subject, role, added_at) \
         SELECT {one}, 'https://login.test', 'owner', 'OWNER', 0 \
         FROM generate_series(1, {rows}) n; \
         INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
         secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, \
         revoke_reason) SELECT {one}, {its}, 'n' || n, '', '{{\"access\":\"READ\"}}', \
         1, 'abcd', 0, 'USER', 'i', 's', '' FROM generate_series(1, {rows}) n; \
         INSERT INTO token_secrets (digest, token_uid, generation, made_at) \
         SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), {one}, 1, 0 \
         FROM generate_series(1, {rows}) n; \
         INSERT INTO requests (stack_uid, caller_issuer, caller_subject, rpc, request_id, \
         content, token_uid, generation, token_state, first_seen_at) SELECT {its}, 'i', 's', \
         'r', 'q' || n, '\\x00', {one}, 1, '\\x00', 0 FROM generate_series(1, {rows}) n; \
         INSERT INTO replays (stack_key, caller_issuer, caller_subject, rpc, request_id, content, \
         answer, first_seen_at) SELECT 'blt' || lpad(to_hex(n), 16, '0'), 'i', 's', 'r', 'q' || n, \
         '\\x00', '{{}}', 0 FROM generate_series(1, {rows}) n; \
         INSERT INTO sessions (digest, token_uid, subject, issued_at, expires_at) \
         SELECT decode(lpad(to_hex(n + 1099511627776), 64, '0'), 'hex'), {one}, 's', 0, 4000000000000000 + n \
         FROM generate_series(1, {rows}) n; \
         INSERT INTO assertions (key, content, session_digest, first_seen_at, expires_at) \
         SELECT decode(lpad(to_hex(n + 1099511627776), 64, '0'), 'hex'), '\\x00', '\\x00', 0, \
         4000000000000000 + n FROM generate_series(1, {rows}) n; \
         INSERT INTO token_usage SELECT {one}, 'i', 'a', 1 FROM generate_series(1, {rows}) n; \
         INSERT INTO audit_events (uid, occurred_at, actor_kind, actor_issuer, actor_subject, \
         action, count, request_id, details) SELECT {one}, n, 'USER', 'i', 's', 'token_issue', \
         1, 'r', '{{}}' FROM generate_series(1, {rows}) n"
    );
    postgres.run(DATABASE, &sql);
    fill_changes(postgres, rows);
}

/// Inserts rows into the change log. Their transactions ended long ago, but their dates are recent,
/// so they are not purged.
pub fn fill_changes(postgres: &Postgres, rows: u32) {
    let sql = format!(
        "INSERT INTO changes (stack_uid, kind, changed_at, xid) \
         SELECT gen_random_uuid(), 'issued', \
         (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint, (3 + n % 500)::text::xid8 \
         FROM generate_series(1, {rows}) n"
    );
    postgres.run(DATABASE, &sql);
}

/// Returns the plans in a log that belong to the replicas' statements.
fn plans(log: &str) -> Vec<&str> {
    let entries = log.split("@@stacktoken@@").skip(1);
    let own = entries.map(|entry| entry.split("@@").next().unwrap());
    own.filter(|entry| entry.contains("plan:\n")).collect()
}

/// Returns the nodes of a plan that read too much: a whole table that grows, or more than [`MOST`]
/// rows.
fn excesses(plan: &str) -> Vec<&str> {
    let lines = plan.lines().map(str::trim);
    let whole = |line: &&str| {
        line.contains("Seq Scan on ")
            && !FIXED
                .iter()
                .any(|table| line.contains(&format!("on {table} ")))
    };
    let many = |line: &&str| counts(line).any(|count| count > MOST);
    lines.filter(|line| whole(line) || many(line)).collect()
}

/// Returns the numbers of rows that a line of a plan reports as read or as removed.
fn counts(line: &str) -> impl Iterator<Item = u64> {
    let actual = line.split_once("(actual rows=").map(|(_, rest)| {
        let mut numbers = rest.split(|c: char| !c.is_ascii_digit() && c != '.');
        let rows: f64 = numbers.next().unwrap_or_default().parse().unwrap_or(0.0);
        let loops = rest.split_once("loops=").map(|(_, loops)| loops);
        let loops = loops.and_then(|l| l.trim_end_matches(')').parse::<f64>().ok());
        (rows * loops.unwrap_or(1.0)) as u64
    });
    let removed = line
        .strip_prefix("Rows Removed by ")
        .and_then(|rest| rest.rsplit(' ').next()?.parse().ok());
    actual.into_iter().chain(removed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_poll_a_look_up_a_change_or_a_search_of_the_audit_reads_a_whole_table() {
    let Some(explained) = PlanLog::start().await else {
        return;
    };
    let postgres = &explained.cluster.postgres;
    fill(postgres, ROWS);
    let (mut statements, mut wrong) = (BTreeSet::new(), BTreeMap::new());
    let mut pass = 1_000_000;
    for (statistics, plans_of) in PASSES {
        if statistics == "ANALYZE" {
            postgres.run(DATABASE, "ANALYZE");
        }
        set(postgres, &format!("plan_cache_mode = {plans_of}"));
        pass += 1;
        let before = postgres.log().len();
        explained.use_all(&format!("blt{pass:016x}")).await;
        eventually("the change log is polled", async || {
            let log = postgres.log();
            log[before..].contains("pg_snapshot_xmin").then_some(())
        })
        .await;
        let log = postgres.log();
        for plan in plans(&log[before..]) {
            let of = format!("statistics: {statistics}, plans: {plans_of}");
            for excess in excesses(plan) {
                wrong.insert(excess.to_owned(), format!("{of}\n{plan}"));
            }
            let text = plan.lines().find(|line| line.contains("Query Text:"));
            statements.extend(text.map(str::to_owned));
        }
    }
    for (excess, plan) in &wrong {
        println!("{excess}: {plan}");
    }
    assert!(wrong.is_empty(), "{:#?}", wrong.keys());
    let told = |text: &str| {
        statements
            .iter()
            .any(|statement: &String| statement.contains(text))
    };
    for text in [
        "pg_snapshot_xmin",
        "WHERE digest = $1",
        "WHERE digest IN",
        "INSERT INTO changes",
        "UPDATE \"tokens\" SET \"name\"",
        "UPDATE \"tokens\" SET \"revoked_at\"",
        "UPDATE \"token_secrets\" SET \"first_used_at\"",
        "UPDATE \"stacks\"",
        "INSERT INTO \"audit_events\"",
        "FROM \"audit_events\" WHERE \"audit_events\".\"action\" = $1",
        "jsonb_extract_path_text",
    ] {
        assert!(told(text), "no plan of {text} was logged");
    }
    println!("{} statements explained", statements.len());
}
