//! Tests changes that wait for each other on SQLite and are committed together.

use std::{fs, path::Path, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use crate::support::{TestServer, database::DirectConnection, issue_request};

/// The number of stacks in which a change waits.
const STACKS: usize = 16;

/// A token with this name takes long to insert, so that other changes have to wait.
const SLOW: &str = "CREATE TRIGGER slow BEFORE INSERT ON tokens WHEN NEW.name = 'slow' BEGIN \
    SELECT (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500000) \
    SELECT max(i) FROM n); END";

/// Returns how many transactions the write-ahead log of a database contains, by counting the frames
/// that end a transaction (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
fn commits(database: &Path) -> usize {
    let log = fs::read(format!("{}-wal", database.display())).unwrap();
    let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
    let (page, salt) = (number(8) as usize, &log[16..24]);
    let frames = log[32..].chunks_exact(24 + page);
    let current = frames.filter(|frame| frame[8..16] == *salt);
    current.filter(|frame| frame[4..8] != [0; 4]).count()
}

/// Issues a token slowly and, at the same time, one token in each other stack. Returns the name of
/// each token, and whether the call to issue it succeeded.
async fn issue_together(server: &TestServer, name_of: fn(usize) -> String) -> Vec<(String, bool)> {
    let mut stacks = Vec::new();
    for at in 0..STACKS {
        stacks.push(server.register(&format!("stack {at}")).await);
    }
    let owner = server.owner().await;
    let issue = |stack: String, name: String| {
        let mut tokens = owner.tokens.clone();
        async move {
            let issued = tokens.issue(issue_request(&stack, &name)).await;
            (name, issued.is_ok())
        }
    };
    let mut all = JoinSet::new();
    all.spawn(issue(server.stack.clone(), "slow".to_owned()));
    sleep(Duration::from_millis(50)).await;
    for (at, stack) in stacks.into_iter().enumerate() {
        all.spawn(issue(stack, name_of(at)));
    }
    all.join_all().await
}

async fn exists(outside: &DirectConnection, name: &str) -> bool {
    let sql = format!("SELECT COUNT(*) FROM tokens WHERE name = '{name}'");
    outside.number(&sql).await == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_wait_together_are_committed_together_and_one_that_fails_undoes_only_itself() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    outside.run(SLOW).await;
    // The transaction fails after it has inserted the row of the token.
    outside
        .run(
            "CREATE TRIGGER bad BEFORE INSERT ON audit_events \
             WHEN EXISTS (SELECT 1 FROM tokens WHERE name LIKE 'bad%') \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .await;
    let before = commits(&server.database());
    let told = issue_together(&server, |at| {
        let kind = if at % 4 == 1 { "bad" } else { "good" };
        format!("{kind} {at}")
    })
    .await;
    // The registrations of the stacks are not counted, because they were made one after the other.
    let made = commits(&server.database()).saturating_sub(before + STACKS);
    // There are fewer transactions than changes. How many depends on the speed of the machine.
    assert!(made < STACKS - STACKS / 4, "{made} transactions");
    for (name, issued) in told {
        assert_eq!(issued, !name.starts_with("bad"), "{name}");
        assert_eq!(exists(&outside, &name).await, issued, "{name}");
    }
    let audited = "SELECT COUNT(*) FROM audit_events WHERE action = 'token_issue'";
    let wanted = 1 + (STACKS - STACKS / 4) as i64;
    assert_eq!(outside.number(audited).await, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_fails_all_its_changes_and_keeps_no_lock() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    outside.run(SLOW).await;
    // The trigger violates a constraint that is checked only by COMMIT.
    outside
        .run(
            "CREATE TABLE poison (id INTEGER PRIMARY KEY, \
             of INTEGER REFERENCES poison (id) DEFERRABLE INITIALLY DEFERRED); \
             CREATE TRIGGER poisoned AFTER INSERT ON tokens WHEN NEW.name LIKE 'poison%' \
             BEGIN INSERT INTO poison (of) VALUES (-1); END",
        )
        .await;
    let told = issue_together(&server, |at| {
        let kind = if at == 5 { "poison" } else { "good" };
        format!("{kind} {at}")
    })
    .await;
    for (name, issued) in &told {
        assert_eq!(exists(&outside, name).await, *issued, "{name}: {issued}");
    }
    let failed = told.iter().filter(|(_, issued)| !issued).count();
    assert!(failed > 1, "{failed} failed together");
    assert!(
        told.iter()
            .any(|(name, issued)| name == "poison 5" && !issued)
    );
    server.issue("afterwards").await;
    assert!(exists(&outside, "afterwards").await);
}

/// One change makes SQLite roll the whole transaction back, as it does when the disk is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_ends_the_transaction_of_a_group_fails_no_other_change() {
    let server = TestServer::start().await;
    let outside = server.outside().await;
    outside.run(SLOW).await;
    outside
        .run(
            "CREATE TRIGGER full AFTER INSERT ON tokens WHEN NEW.name LIKE 'full%' \
             BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        )
        .await;
    let told = issue_together(&server, |at| {
        let kind = if at == 9 { "full" } else { "good" };
        format!("{kind} {at}")
    })
    .await;
    for (name, issued) in told {
        assert_eq!(issued, !name.starts_with("full"), "{name}");
        assert_eq!(exists(&outside, &name).await, issued, "{name}");
    }
}
