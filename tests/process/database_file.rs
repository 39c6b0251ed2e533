//! Tests the SQLite file. Only one process can open it, under any name; no other user can read it;
//! and no change is acknowledged after the file is removed from under the process.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use stacktoken::grpc::pb::v1;
use tempfile::TempDir;
use tonic::Status;

use crate::{
    program::{Dev, folder, program, scrape, text},
    support::{
        TestIssuer, database::DirectConnection, introspect_request, issue_request,
        issuer::ISSUERS_FILE, reason, requests::revoke_request,
    },
};

/// Creates links to a database file. Returns all names of the file.
fn other_names(database: &Path, folder: &Path) -> Vec<PathBuf> {
    let [soft, hard, twice] = ["soft.db", "hard.db", "twice.db"].map(|name| folder.join(name));
    symlink(database, &soft).unwrap();
    symlink(&soft, &twice).unwrap();
    fs::hard_link(database, &hard).unwrap();
    vec![database.to_owned(), soft, twice, hard]
}

/// Returns every command that opens a store, applied to this file.
fn commands(database: &Path, folder: &Path) -> Vec<Command> {
    let url = format!("sqlite:{}", database.display());
    let any_port = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut commands = Vec::new();
    for arguments in [
        &["migrate", "up"][..],
        &["migrate", "status"],
        &["migrate", "new-epoch"],
        &["serve", "--issuers", "issuers.toml"],
    ] {
        let mut command = program();
        command.args(arguments).args(["--database-url", &url]);
        if arguments[0] == "serve" {
            command.args(any_port);
        }
        commands.push(command);
    }
    // `dev` takes a directory and chooses the file name itself.
    let data = folder.join(format!("dev-{}", database.file_name().unwrap().display()));
    fs::create_dir_all(&data).unwrap();
    let _ = symlink(database, data.join("stacktoken.db"));
    let mut dev = program();
    dev.args(["dev", "--data-dir", data.to_str().unwrap()]);
    dev.args(any_port);
    commands.push(dev);
    for command in &mut commands {
        command.current_dir(folder);
    }
    commands
}

fn issuers_folder() -> TempDir {
    let folder = folder();
    fs::write(folder.path().join("issuers.toml"), ISSUERS_FILE).unwrap();
    fs::write(folder.path().join("jwks.json"), TestIssuer::new().jwks()).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_second_process_opens_the_file_under_another_name() {
    let folder = issuers_folder();
    let mut dev = Dev::start(folder.path());
    let database = folder.path().join(".stacktoken/stacktoken.db");
    // A lock file that an earlier version has left has no effect.
    fs::write(database.with_extension("db.lock"), "").unwrap();
    let names = other_names(&database, folder.path());
    for round in ["with a lock file", "without"] {
        for name in &names {
            for mut command in commands(name, folder.path()) {
                let refused = command.output().unwrap();
                let error_text = text(&refused.stderr);
                assert_eq!(
                    refused.status.code(),
                    Some(1),
                    "{round}: {command:?}: {error_text}"
                );
                assert!(
                    error_text.contains("is in use by another stacktoken process"),
                    "{round}: {command:?}: {error_text}"
                );
            }
        }
        let _ = fs::remove_file(database.with_extension("db.lock"));
    }
    // As a control, the same commands succeed once the process has ended.
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    for name in &names {
        let mut status = commands(name, folder.path()).remove(1);
        let done = status.output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_refused_or_only_reads_leaves_the_log_in_its_place() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let database = folder.path().join(".stacktoken/stacktoken.db");
    let stack = dev.get("stack_api_key").to_owned();
    let mut owner = dev.client("owner_jwt").await;
    for round in 0..3 {
        let issued = owner
            .tokens
            .issue(issue_request(&stack, &format!("t{round}")));
        issued.await.unwrap();
        // Closing the last connection that SQLite can see deletes the log. If the server had lost
        // its locks on the file, this would delete the log that the server still uses.
        let outside = DirectConnection::of(&database).await;
        assert!(outside.dump().await.contains(&format!("t{round}")));
        outside.close().await;
        let wal = fs::metadata(format!("{}-wal", database.display()));
        assert!(wal.unwrap().len() > 0, "round {round}");
    }
}

#[test]
fn files_are_for_their_owner_alone_whatever_the_umask() {
    for umask in ["000", "022", "0277", "0777"] {
        let folder = folder();
        let data = folder.path().join("data");
        // An earlier version or a restore may have left the file readable for everyone.
        if umask == "000" {
            fs::create_dir(&data).unwrap();
            fs::write(data.join("stacktoken.db"), "").unwrap();
            let open = fs::Permissions::from_mode(0o666);
            fs::set_permissions(data.join("stacktoken.db"), open).unwrap();
        }
        let database = data.join("stacktoken.db");
        let script = format!("umask {umask}; exec \"$@\"");
        let mut dev = Command::new("sh");
        dev.args(["-c", &script, "sh", crate::program::PROGRAM, "dev"])
            .args(["--data-dir", data.to_str().unwrap()])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args([
                "--ready-file",
                folder.path().join("ready").to_str().unwrap(),
            ])
            .stdout(std::process::Stdio::null());
        let _dev = crate::program::ChildGuard(dev.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while !folder.path().join("ready").exists() {
            assert!(Instant::now() < until, "umask {umask}: dev did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut seen = Vec::new();
        for entry in data.read_dir().unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let name = entry.file_name().into_string().unwrap();
            assert_eq!(mode & 0o177, 0, "umask {umask}: {name} has {mode:o}");
            seen.push(name);
        }
        let mode = |ending: &str| {
            let path = format!("{}{ending}", database.display());
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(["", "-wal", "-shm"].map(mode), [0o600; 3], "umask {umask}");
        assert!(seen.contains(&"signing-key".to_owned()), "{seen:?}");
    }
}

/// What happens to the database files while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    DatabaseDeleted,
    DatabaseReplaced,
    DatabaseRenamed,
    LinkTurned,
    WalDeleted,
    WalReplaced,
    WalRenamed,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::None,
        Self::DatabaseDeleted,
        Self::DatabaseReplaced,
        Self::DatabaseRenamed,
        Self::LinkTurned,
        Self::WalDeleted,
        Self::WalReplaced,
        Self::WalRenamed,
    ];

    fn apply(self, database: &Path) {
        let wal = PathBuf::from(format!("{}-wal", real(database).display()));
        let aside = |path: &Path| path.with_extension("aside");
        let replace = |path: &Path| {
            fs::copy(path, aside(path)).unwrap();
            fs::rename(aside(path), path).unwrap();
        };
        match self {
            Self::None => {}
            Self::DatabaseDeleted => fs::remove_file(real(database)).unwrap(),
            Self::DatabaseReplaced => replace(&real(database)),
            Self::DatabaseRenamed => fs::rename(real(database), aside(database)).unwrap(),
            Self::LinkTurned => {
                fs::copy(database, aside(database)).unwrap();
                fs::remove_file(database).unwrap();
                symlink(aside(database), database).unwrap();
            }
            Self::WalDeleted => fs::remove_file(wal).unwrap(),
            Self::WalReplaced => replace(&wal),
            Self::WalRenamed => fs::rename(&wal, aside(&wal)).unwrap(),
        }
    }

    /// Undoes the fault. Returns whether that was possible, which it is only if the original file
    /// still exists.
    fn undo(self, database: &Path) -> bool {
        let wal = PathBuf::from(format!("{}-wal", database.display()));
        let aside = |path: &Path| path.with_extension("aside");
        match self {
            Self::DatabaseRenamed => fs::rename(aside(database), database).unwrap(),
            Self::WalRenamed => {
                // The rename overwrites a file that a connection may have created in its place.
                fs::rename(aside(&wal), &wal).unwrap();
            }
            _ => return false,
        }
        true
    }
}

fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap()
}

fn error_text<T>(answered: Result<T, Status>) -> String {
    answered.map_or_else(|status| reason(&status), |_| "OK".into())
}

async fn serving(dev: &Dev) -> bool {
    scrape(dev, "")
        .await
        .1
        .contains("stacktoken_serving{service=\"\"} 1\n")
}

async fn until_serving(dev: &Dev, wanted: bool) -> Duration {
    let began = Instant::now();
    while serving(dev).await != wanted {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "serving: {}",
            !wanted
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_taken_away_under_the_process_ends_its_answers() {
    for fault in Fault::ALL {
        let folder = folder();
        let database = folder.path().join(".stacktoken/stacktoken.db");
        if fault == Fault::LinkTurned {
            fs::create_dir(folder.path().join(".stacktoken")).unwrap();
            fs::write(folder.path().join("elsewhere.db"), "").unwrap();
            symlink(folder.path().join("elsewhere.db"), &database).unwrap();
        }
        let dev = Dev::start(folder.path());
        let stack = dev.get("stack_api_key").to_owned();
        let mut owner = dev.client("owner_jwt").await;
        let mut service = dev.client("service_jwt").await;
        let issued = owner.tokens.issue(issue_request(&stack, "kept")).await;
        let v1::IssueResponse { secret, token, .. } = issued.unwrap().into_inner();
        let ask = || introspect_request(&stack, &secret, &[]);
        assert_eq!(
            error_text(service.introspection.introspect(ask()).await),
            "OK"
        );

        fault.apply(&database);
        // These changes start before any periodic check can notice the fault.
        let issued = owner.tokens.issue(issue_request(&stack, "lost")).await;
        let uid = token.unwrap().token_uid;
        let revoked = owner.tokens.revoke(revoke_request(&stack, &uid, ""));
        if fault == Fault::None {
            assert_eq!(error_text(issued), "OK");
            assert_eq!(
                error_text(service.introspection.introspect(ask()).await),
                "OK"
            );
            assert_eq!(error_text(revoked.await), "OK");
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(serving(&dev).await);
            continue;
        }
        assert_eq!(error_text(issued), "STORE_UNAVAILABLE", "{fault:?}");
        assert_eq!(error_text(revoked.await), "STORE_UNAVAILABLE", "{fault:?}");
        let took = until_serving(&dev, false).await;
        assert!(took < Duration::from_secs(2), "{fault:?}: {took:?}");
        // The answer must not use cached facts either.
        let answer = service.introspection.introspect(ask()).await;
        assert_eq!(error_text(answer), "STORE_UNAVAILABLE", "{fault:?}");
        let metrics = scrape(&dev, "").await.1;
        assert!(
            metrics.contains("stacktoken_store_file_lost 1\n"),
            "{fault:?}"
        );
        let log = fs::read_to_string(folder.path().join("stderr")).unwrap();
        let lines = log.matches("deleted or replaced under this process");
        assert_eq!(lines.count(), 1, "{fault:?}: {log}");

        if fault.undo(&database) {
            until_serving(&dev, true).await;
            let answer = service.introspection.introspect(ask()).await;
            assert_eq!(error_text(answer), "OK", "{fault:?}");
            let again = owner.tokens.issue(issue_request(&stack, "again")).await;
            assert_eq!(error_text(again), "OK", "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_under_way_when_the_file_goes_is_not_acknowledged() {
    for fault in [Fault::None, Fault::DatabaseDeleted, Fault::WalDeleted] {
        let folder = folder();
        let dev = Dev::start(folder.path());
        let database = folder.path().join(".stacktoken/stacktoken.db");
        let stack = dev.get("stack_api_key").to_owned();
        let mut owner = dev.client("owner_jwt").await;
        let outside = DirectConnection::of(&database).await;
        outside.run("BEGIN IMMEDIATE").await;
        let issue = issue_request(&stack, "waits");
        let waits = tokio::spawn(async move { owner.tokens.issue(issue).await });
        // By now the call waits for the lock. It checked the files before it began to wait.
        tokio::time::sleep(Duration::from_millis(500)).await;
        fault.apply(&database);
        outside.run("ROLLBACK").await;
        let expected = if fault == Fault::None {
            "OK"
        } else {
            "STORE_UNAVAILABLE"
        };
        assert_eq!(error_text(waits.await.unwrap()), expected, "{fault:?}");
    }
}
