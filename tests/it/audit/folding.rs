//! Tests that audit rows of refusals survive a flood by one caller and a short outage of the store.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use stacktoken::{
    app::{About, App, Safeguards},
    domain::{
        audit::{AuditAction, Outcome},
        caller::{Actor, Call, Caller, CallerKind, Mode, Requirement},
        catalogue::Catalogue,
        clock::{Clock, SystemClock},
        entropy::{Entropy, OsEntropy},
        refusal::Refusal,
    },
    metrics::Metrics,
    server,
    store::{AuditFilter, Location, PoolSize, Store},
};

use crate::support::{TestServer, database::eventually, requests::list_request, tuning};

const REFUSALS: &str = "SELECT count(*) FROM audit_events WHERE refusal_reason IS NOT NULL";

fn caller(kind: CallerKind, subject: &str) -> Call {
    Call {
        caller: Arc::new(Caller {
            actor: Actor {
                kind,
                issuer: "https://login.test".into(),
                subject: subject.into(),
            },
            introspects: false,
            workload: None,
            stranger_in: None,
        }),
        requirement: Requirement {
            operator: true,
            ..Requirement::default()
        },
        received_at: SystemClock::new().now(),
        request_id: "flood".into(),
        mode: Mode::Apply,
    }
}

fn event_count(outcome: &Outcome) -> u32 {
    match outcome {
        Outcome::Refused { count, .. } => *count,
        other => panic!("{other:?}"),
    }
}

/// The flood of one caller: 15,000 refusals per second, for two seconds.
const BURSTS: u32 = 6;
const A_BURST: u32 = 5_000;
const EVERY: Duration = Duration::from_millis(333);
/// The number of other callers, each of which is refused once during the flood.
const OTHERS: u32 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_by_one_caller_costs_no_other_its_row() {
    let folder = tempfile::TempDir::new().unwrap();
    let location = Location::Sqlite(folder.path().join("stacktoken.db"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let size = PoolSize { connections: 1 };
    let store = Store::open(&location, size, (clock.clone(), entropy.clone())).await;
    let store = Arc::new(store.unwrap());
    store.migrate().await.unwrap();
    store.require_current_schema().await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let tuned = server::use_cases(&tuning(), Safeguards::default());
    let ambient = (clock, entropy);
    let (app, writer) = App::new(
        store.clone(),
        ambient,
        metrics.clone(),
        &tuned,
        Arc::new(Catalogue::builtin()),
    );
    let writing = tokio::spawn(writer.run());

    let flooder = caller(CallerKind::User, "flooder");
    let began = Instant::now();
    let (mut noted, mut singles) = (0_u32, 0);
    for burst in 1..=BURSTS {
        for _ in 0..A_BURST {
            let about = About::default();
            app.note_refusal(
                &flooder,
                AuditAction::TokenList,
                about,
                &Refusal::StackNotFound,
            );
            noted += 1;
        }
        for _ in 0..OTHERS / BURSTS {
            let other = caller(CallerKind::User, &format!("other-{singles}"));
            let about = About::default();
            app.note_refusal(
                &other,
                AuditAction::TokenIssue,
                about,
                &Refusal::StackNotFound,
            );
            singles += 1;
        }
        tokio::time::sleep((burst * EVERY).saturating_sub(began.elapsed())).await;
    }
    drop(app);
    writing.await.unwrap();
    let operator = caller(CallerKind::Operator, "operator");
    let filter = AuditFilter::default();
    let page = store.list_audit(&operator, &filter, (100, None));
    let mut counts = BTreeMap::<_, u32>::new();
    for event in page.await.unwrap().events {
        *counts.entry(event.actor.subject).or_default() += event_count(&event.outcome);
    }
    println!("{noted} refusals of one caller, {singles} of others");
    assert_eq!(
        counts.remove("flooder"),
        Some(noted),
        "every refusal is counted"
    );
    assert_eq!(u32::try_from(counts.len()).unwrap(), OTHERS, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(metrics.expose().contains("audit_refusals_dropped_total 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_whose_first_write_failed_is_written_without_another() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    outside
        .run("CREATE TRIGGER away BEFORE INSERT ON audit_events BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    let mut stranger = server.stranger().await;
    let refused = stranger.tokens.list(list_request(&server.stack)).await;
    refused.unwrap_err();
    // By then the first attempt to write the row has failed.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(outside.number(REFUSALS).await, 0);
    outside.run("DROP TRIGGER away").await;
    eventually("the row of the refusal", async || {
        (outside.number(REFUSALS).await == 1).then_some(())
    })
    .await;
}
