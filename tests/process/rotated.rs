//! Tests that changed files with database URLs are reloaded, and the TLS settings in the URLs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    time::Duration,
};

use crate::{
    database_down::{DATABASE, database, wait_for_log},
    postgres::Postgres,
    served::{IssuersFolder, RunningServer},
    support::{certificates::Ca, database::eventually, issue_request},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_rotated_in_its_file_needs_no_restart() {
    let Some((postgres, _)) = database() else {
        return;
    };
    postgres.run(
        DATABASE,
        "CREATE ROLE app LOGIN SUPERUSER PASSWORD 'before'",
    );
    postgres.ask_for_passwords_of("app");
    let url = |password: &str| {
        format!(
            "postgres://app:{password}@127.0.0.1:{}/{DATABASE}",
            postgres.port()
        )
    };
    let issuers_folder = IssuersFolder::new();
    issuers_folder.write("url", &url("before"));
    let file = issuers_folder.folder.path().join("url");
    let served = RunningServer::start_on(issuers_folder, "", |command| {
        command
            .env_remove("STACKTOKEN_DATABASE_URL")
            .args(["--database-url-file", "url"]);
    });
    served.serves().await;
    let stack = served.register().await;
    postgres.run(DATABASE, "ALTER ROLE app PASSWORD 'after'");
    fs::write(file, url("after")).unwrap();
    wait_for_log(&served, "the database URL was reloaded").await;
    let ended =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'";
    postgres.run(DATABASE, ended);
    tokio::time::sleep(Duration::from_secs(2)).await;
    served.serves().await;
    let mut owner = served.user("owner").await;
    owner
        .tokens
        .issue(issue_request(&stack, "after"))
        .await
        .unwrap();
    let log = served.log();
    assert!(!log.contains("before@") && !log.contains("after@"), "{log}");
}

/// `--database-url` and `--database-direct-url` log in as different roles, and only the password of
/// the direct URL is rotated. Polls and heartbeats use the direct URL, and there is no verdict
/// without them. So an answer proves that the new password is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_rotated_in_the_direct_urls_file_needs_no_restart() {
    let Some((postgres, _)) = database() else {
        return;
    };
    for role in ["app", "feed"] {
        let create = format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'before'");
        postgres.run(DATABASE, &create);
        postgres.ask_for_passwords_of(role);
    }
    let url = |role: &str, password: &str| {
        let port = postgres.port();
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{DATABASE}")
    };
    let issuers_folder = IssuersFolder::new();
    issuers_folder.write("url", &url("app", "before"));
    issuers_folder.write("direct", &url("feed", "before"));
    let file = issuers_folder.folder.path().join("direct");
    let served = RunningServer::start_on(issuers_folder, "", |command| {
        command
            .env_remove("STACKTOKEN_DATABASE_URL")
            .args(["--database-url-file", "url"])
            .args(["--database-direct-url-file", "direct"]);
    });
    served.serves().await;
    let stack = served.register().await;
    let of_feed = "FROM pg_stat_activity WHERE usename = 'feed'";
    let began = || postgres.run(DATABASE, &format!("SELECT max(backend_start) {of_feed}"));
    let first = began();
    assert_ne!(first, "", "the direct URL is not used");
    postgres.run(DATABASE, "ALTER ROLE feed PASSWORD 'after'");
    let end = format!("SELECT count(pg_terminate_backend(pid)) {of_feed}");
    postgres.run(DATABASE, &end);
    // The file still contains the former password.
    served.is_ready(false).await;
    fs::write(file, url("feed", "after")).unwrap();
    wait_for_log(&served, "the database URL was reloaded").await;
    served.serves().await;
    let mut owner = served.user("owner").await;
    let issued = owner.tokens.issue(issue_request(&stack, "after")).await;
    issued.unwrap();
    let again = began();
    assert!(
        again > first,
        "{again}: the direct URL has no new connections"
    );
    let log = served.log();
    assert!(!log.contains("before@") && !log.contains("after@"), "{log}");
}

/// Enables TLS on the PostgreSQL server, with a certificate for 0.0.0.0. This address leads to
/// loopback but is not a loopback address. Returns the CA in PEM.
fn speak_tls(postgres: &Postgres) -> String {
    let ca = Ca::new("database");
    let pair = ca.sign(|params| {
        let any = rcgen::SanType::IpAddress("0.0.0.0".parse().unwrap());
        params.subject_alt_names.push(any);
    });
    for (setting, text) in [("ssl_cert_file", pair.cert), ("ssl_key_file", pair.key)] {
        let path = postgres.folder().join(setting);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = postgres.user() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        let set = format!("ALTER SYSTEM SET {setting} = '{}'", path.display());
        postgres.run("postgres", &set);
    }
    postgres.run("postgres", "ALTER SYSTEM SET ssl = on");
    postgres.run("postgres", "SELECT pg_reload_conf()");
    ca.pem()
}

const UNVERIFIED: &str = "stacktoken_database_without_verified_tls";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unverified_link_to_the_database_is_reported_until_it_is_verified() {
    let Some((postgres, _)) = database() else {
        return;
    };
    let ca = speak_tls(&postgres);
    let url = |parameters: &str| {
        let port = postgres.port();
        format!("postgres://postgres@0.0.0.0:{port}/{DATABASE}?{parameters}")
    };
    let issuers_folder = IssuersFolder::new();
    issuers_folder.write("ca.pem", &ca);
    issuers_folder.write("url", &url("sslmode=require"));
    let file = issuers_folder.folder.path().join("url");
    let served = RunningServer::start_on(issuers_folder, "", |command| {
        command
            .env_remove("STACKTOKEN_DATABASE_URL")
            .args(["--database-url-file", "url"]);
    });
    served.serves().await;
    assert_eq!(
        served.counted(UNVERIFIED).await,
        1,
        "TLS without verification is counted"
    );
    wait_for_log(&served, "the database is not verified").await;
    let encrypted = || {
        let sessions = "SELECT count(*) FILTER (WHERE ssl), count(*) \
             FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = 'stacktoken'";
        let counts = postgres.run(DATABASE, sessions);
        let (tls, all) = counts.split_once('|').unwrap();
        tls == all && all != "0"
    };
    assert!(encrypted());
    // From now on the connection is verified, without a restart.
    fs::write(file, url("sslmode=verify-full&sslrootcert=ca.pem")).unwrap();
    wait_for_log(&served, "the database URL was reloaded").await;
    eventually("the connection is verified", async || {
        (served.counted(UNVERIFIED).await == 0).then_some(())
    })
    .await;
    served.serves().await;
    served.register().await;
    assert!(encrypted());
}

/// A connection with TLS but without verification is not private, so it is reported.
#[test]
fn an_unverified_link_is_not_private() {
    use stacktoken::store::Location;
    for (url, private) in [
        ("postgres://u@db.example/x", false),
        ("postgres://u@db.example/x?sslmode=require", false),
        ("postgres://u@db.example/x?sslmode=verify-full", true),
        ("postgres://u@db.example/x?sslmode=verify-ca", false),
        ("postgres://u@127.0.0.1/x", true),
        ("postgres://u@localhost/x", true),
        ("postgres://%2Frun%2Fpostgresql/x", true),
        ("sqlite:x.db", true),
    ] {
        let location: Location = url.parse().unwrap();
        assert_eq!(location.is_private(), private, "{url}");
    }
}
