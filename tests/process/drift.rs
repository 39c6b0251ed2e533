//! Tests a schema in which tables or indexes of its migrations are missing, and a database file
//! that cannot be written. `serve` and `migrate` must name the problem.

use std::{fs, os::unix::process::CommandExt as _, process::Command};

use sea_orm::ConnectionTrait as _;

use crate::{
    database_down::{DATABASE, database},
    program::{PROGRAM, text},
    served::IssuersFolder,
};

const COMMANDS: [&[&str]; 3] = [
    &["migrate", "status"],
    &["migrate", "up"],
    &[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ],
];

/// Asserts that each command names the table or index that was dropped.
fn is_named(issuers_folder: &IssuersFolder, url: &str, dropped: &str) {
    for command in COMMANDS {
        let (code, run_command) = issuers_folder.run_command(url, command);
        assert_eq!(code, Some(1), "{command:?} {dropped}: {run_command}");
        assert_eq!(
            run_command.matches(dropped).count(),
            1,
            "{command:?}: {run_command}"
        );
        if command[1] == "status" {
            let line = format!("missing {dropped}");
            assert!(
                run_command.lines().any(|run_command| run_command == line),
                "{run_command}"
            );
        } else {
            assert_eq!(run_command.lines().count(), 1, "{command:?}: {run_command}");
            assert!(
                run_command.contains("restore a backup"),
                "{command:?}: {run_command}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_table_or_index_of_a_file_is_named() {
    for (drop, dropped) in [
        ("DROP INDEX tokens_live_name", "index tokens_live_name"),
        ("DROP TABLE replays", "table replays"),
    ] {
        let issuers_folder = IssuersFolder::new();
        let url = issuers_folder.sqlite();
        let (code, run_serve) = issuers_folder.run_command(&url, &["migrate", "up"]);
        assert_eq!(code, Some(0), "{run_serve}");
        let (code, run_serve) = issuers_folder.run_command(&url, &["migrate", "status"]);
        assert_eq!(code, Some(0), "{run_serve}");
        let file = format!("{}?mode=rw", url.replace("sqlite:", "sqlite://"));
        let outside = sea_orm::Database::connect(file).await.unwrap();
        outside.execute_unprepared(drop).await.unwrap();
        outside.close().await.unwrap();
        is_named(&issuers_folder, &url, dropped);
    }
}

#[test]
fn a_missing_table_or_an_invalid_index_of_postgresql_is_named() {
    let Some((postgres, url)) = database() else {
        return;
    };
    let issuers_folder = IssuersFolder::new();
    let (code, run_serve) = issuers_folder.run_command(&url, &["migrate", "status"]);
    assert_eq!(code, Some(0), "{run_serve}");
    let invalid = "UPDATE pg_index SET indisvalid = false \
                   WHERE indexrelid = 'tokens_live_name'::regclass";
    postgres.run(DATABASE, invalid);
    is_named(&issuers_folder, &url, "index tokens_live_name");
    postgres.run(DATABASE, &invalid.replace("false", "true"));
    for (kind, name) in [
        ("index", "changes_by_xid"),
        ("table", "incarnation"),
        ("table", "replays"),
    ] {
        let rename = |from: &str, to: &str| {
            let sql = format!("ALTER {kind} {from} RENAME TO {to}");
            postgres.run(DATABASE, &sql);
        };
        rename(name, "elsewhere");
        is_named(&issuers_folder, &url, &format!("{kind} {name}"));
        rename("elsewhere", name);
    }
    let (code, run_serve) = issuers_folder.run_command(&url, &["migrate", "status"]);
    assert_eq!(code, Some(0), "{run_serve}");
}

/// The uid of a user who is not root and so has no special privileges.
const NOBODY: u32 = 65_534;

#[test]
fn a_database_file_that_takes_no_changes_is_named() {
    let issuers_folder = IssuersFolder::new();
    let (code, run_serve) =
        issuers_folder.run_command(&issuers_folder.sqlite(), &["migrate", "up"]);
    assert_eq!(code, Some(0), "{run_serve}");
    let folder = issuers_folder.folder.path();
    let open = |path: &std::path::Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(folder, 0o755);
    for name in ["stacktoken.db", "issuers.toml", "jwks.json"] {
        open(&folder.join(name), 0o444);
    }
    // The program is copied to a folder where another user can execute it.
    let program = folder.join("stacktoken");
    fs::copy(PROGRAM, &program).unwrap();
    open(&program, 0o755);
    for command in COMMANDS {
        let mut command = {
            let mut started = Command::new(&program);
            started.args(command).current_dir(folder);
            started
        };
        command
            .env("STACKTOKEN_DATABASE_URL", issuers_folder.sqlite())
            .env("STACKTOKEN_ISSUERS", "issuers.toml");
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY);
        }
        let done = command.output().unwrap();
        let run_serve = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{run_serve}");
        assert_eq!(run_serve.lines().count(), 1, "{run_serve}");
        assert_eq!(
            run_serve.matches("Permission denied").count(),
            1,
            "{run_serve}"
        );
        assert!(run_serve.contains("--database-url: "), "{run_serve}");
    }
}
