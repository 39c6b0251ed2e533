//! Tests that a store that any earlier version filled can be migrated: no row is lost, and tokens
//! issued earlier still work.

use sea_orm_migration::{
    MigratorTrait as _,
    sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement},
};

use super::Migrator;
use crate::store::engine::schema::migrate_at_once;

/// A stack with its owner and a token, and the token's secret, change log row and audit row, as the
/// first version wrote them.
const FILLED: [&str; 6] = [
    "INSERT INTO stacks (uid, key, name, organization_uid, token_limit, registered_at) \
     VALUES (x'01', 'blt0123456789abcdef', 'Shop', 'org', 10, 1)",
    "INSERT INTO stack_members (stack_uid, issuer, subject, role, added_at) \
     VALUES (x'01', 'https://login.example.com', 'ann', 'OWNER', 1)",
    "INSERT INTO tokens (uid, stack_uid, name, description, permissions, generation, \
     secret_hint, issued_at, issued_by_kind, issued_by_issuer, issued_by_subject, revoke_reason) \
     VALUES (x'02', x'01', 'deploy', '', '{}', 1, 'abcd', 2, 'USER', \
     'https://login.example.com', 'ann', '')",
    "INSERT INTO token_secrets (digest, token_uid, generation, made_at) \
     VALUES (x'0303', x'02', 1, 2)",
    "INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
     VALUES (x'01', x'02', 'issued', 2)",
    "INSERT INTO audit_events (uid, occurred_at, actor_kind, actor_issuer, actor_subject, \
     action, count, request_id, details) \
     VALUES (x'04', 2, 'USER', 'https://login.example.com', 'ann', 'TOKEN_ISSUE', 1, 'r', '{}')",
];

const TABLES: [&str; 7] = [
    "stacks",
    "stack_members",
    "tokens",
    "token_secrets",
    "changes",
    "audit_events",
    "meta",
];

async fn number(store: &DatabaseConnection, sql: &str) -> i64 {
    let asked = Statement::from_string(store.get_database_backend(), sql);
    let row = store.query_one_raw(asked).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}

#[tokio::test]
async fn a_filled_store_of_every_version_before_is_brought_up_to_date() {
    let all = Migrator::migrations().len();
    for before in 1..all {
        let store = Database::connect("sqlite::memory:").await.unwrap();
        let steps = u32::try_from(before).unwrap();
        Migrator::up(&store, Some(steps)).await.unwrap();
        for statement in FILLED {
            store.execute_unprepared(statement).await.unwrap();
        }
        let epoch = "SELECT value AS n FROM meta WHERE name = 'epoch'";
        let epoch_before = number(&store, epoch).await;

        Migrator::up(&store, None).await.unwrap();

        for table in TABLES {
            let kept = number(&store, &format!("SELECT COUNT(*) AS n FROM {table}")).await;
            assert!(kept > 0, "{table} after {before} of {all} migrations");
        }
        assert_eq!(number(&store, epoch).await, epoch_before);
        let as_new = "SELECT COUNT(*) AS n FROM token_secrets WHERE NOT until_first_use \
                      AND ends_at IS NULL AND superseded_at IS NULL AND first_used_at IS NULL";
        assert_eq!(number(&store, as_new).await, 1);
        // A version that does not know the column leaves it empty. The newest secret then has the
        // hint of its token.
        let hint = "SELECT COUNT(*) AS n FROM token_secrets JOIN tokens ON tokens.uid = token_uid \
                    WHERE COALESCE(hint, secret_hint) = 'abcd'";
        assert_eq!(number(&store, hint).await, 1);
        let broken = "SELECT COUNT(*) AS n FROM pragma_foreign_key_check";
        assert_eq!(number(&store, broken).await, 0);
    }
}

#[tokio::test]
async fn a_migration_that_fails_halfway_leaves_the_file_as_it_was() {
    let store = Database::connect("sqlite::memory:").await.unwrap();
    Migrator::up(&store, Some(1)).await.unwrap();
    for statement in FILLED {
        store.execute_unprepared(statement).await.unwrap();
    }
    // This table has the name of one that a later migration creates, so that migration fails.
    store
        .execute_unprepared("CREATE TABLE replays (id INTEGER)")
        .await
        .unwrap();
    let objects = "SELECT COUNT(*) AS n FROM sqlite_schema";
    let columns = "SELECT COUNT(*) AS n FROM pragma_table_info('token_secrets')";
    let applied = "SELECT COUNT(*) AS n FROM seaql_migrations";
    let mut before = Vec::new();
    for count in [objects, columns, applied] {
        before.push(number(&store, count).await);
    }

    migrate_at_once(&store).await.unwrap_err();

    for (count, before) in [objects, columns, applied].into_iter().zip(before) {
        assert_eq!(number(&store, count).await, before, "{count}");
    }
    store
        .execute_unprepared("DROP TABLE replays")
        .await
        .unwrap();
    migrate_at_once(&store).await.unwrap();
    let all = i64::try_from(Migrator::migrations().len()).unwrap();
    assert_eq!(number(&store, applied).await, all);
}
