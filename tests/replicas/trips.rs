//! Tests how many round trips to PostgreSQL each change makes, from BEGIN to COMMIT.

use std::collections::HashMap;

use crate::{
    cluster::Cluster,
    support::{
        never,
        requests::{
            overlap_for, rename_request, revoke_request, rotate_request, set_expiry_request,
            until_first_use_at_most,
        },
    },
};

/// Returns for each change in a log how many messages it has sent. A change comprises the messages
/// of one session from the lock of a stack to COMMIT.
fn trips(log: &str) -> Vec<usize> {
    let (mut open, mut done) = (HashMap::<&str, Option<usize>>::new(), Vec::new());
    for entry in log.split("@@stacktoken ").skip(1) {
        let (session, text) = entry.split_once("@@").unwrap();
        let text = text.split("@@").next().unwrap();
        if !text.starts_with("LOG:  statement:") && !text.starts_with("LOG:  execute ") {
            continue;
        }
        let count = open.entry(session).or_default();
        if text.contains("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout") {
            *count = (!text.contains("; COMMIT")).then_some(0);
        }
        let Some(trips) = count else {
            continue;
        };
        *trips += 1;
        if text.contains("statement: COMMIT") {
            done.extend(count.take());
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_makes_few_round_trips() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let postgres = &cluster.postgres;
    for setting in ["log_statement = 'all'", "log_line_prefix = '@@%a %p@@'"] {
        postgres.run("postgres", &format!("ALTER SYSTEM SET {setting}"));
        postgres.run("postgres", "SELECT pg_reload_conf()");
    }
    let stack = &cluster.stack;
    let mut tokens = cluster.a.owner.tokens.clone();
    let mut counted = Vec::new();
    // The first round also prepares statements.
    for round in 0..2 {
        let mut from = postgres.log().len();
        let mut note = |change: &'static str| {
            let log = postgres.log();
            let of_change = trips(&log[from..]);
            assert_eq!(of_change.len(), 1, "{change}: {of_change:?}");
            counted.push((change, of_change[0]));
            from = log.len();
        };
        let issued = cluster.issue(&format!("token {round}")).await;
        note("Issue");
        let uid = issued.token.unwrap().token_uid;
        cluster.a.introspect(stack, &issued.secret).await.unwrap();
        note("first use");
        let request = set_expiry_request(stack, &uid, never());
        tokens.set_expiry(request).await.unwrap();
        note("SetExpiry");
        let request = rename_request(stack, &uid, &format!("other {round}"));
        tokens.update(request).await.unwrap();
        note("Update");
        let request = rotate_request(stack, &uid, until_first_use_at_most(3600));
        let rotated = tokens.rotate(request).await.unwrap().into_inner();
        note("Rotate");
        cluster.a.introspect(stack, &rotated.secret).await.unwrap();
        note("first use that ends a secret");
        let request = rotate_request(stack, &uid, overlap_for(0));
        tokens.rotate(request).await.unwrap();
        note("Rotate, no overlap");
        let request = revoke_request(stack, &uid, "not needed");
        tokens.revoke(request).await.unwrap();
        note("Revoke");
        println!("{counted:?}");
        if round == 0 {
            counted.clear();
        }
    }
    let most = [
        ("Issue", 5),
        ("first use", 5),
        ("SetExpiry", 6),
        ("Update", 8),
        ("Rotate", 6),
        ("first use that ends a secret", 6),
        ("Rotate, no overlap", 6),
        ("Revoke", 6),
    ];
    assert_eq!(counted, most);
}
