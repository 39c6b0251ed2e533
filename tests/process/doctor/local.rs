//! Faults of settings, files, certificates, issuers and listeners, and of the SQLite file. All of
//! them need no other program.

use std::{fs, net::TcpListener};

use sea_orm::ConnectionTrait as _;

use super::setup::{PASSWORD, Setup, set_mode};
use crate::{
    program::text,
    served::{RunningServer, free_port, now},
    support::certificates::Ca,
};

const DAY: i64 = 86_400;

/// Changes the database file from outside.
fn change(setup: &Setup, sql: &str) {
    let url = format!("{}?mode=rw", setup.url.replace("sqlite:", "sqlite://"));
    let sql = sql.to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async move {
        let outside = sea_orm::Database::connect(url).await.unwrap();
        outside.execute_unprepared(&sql).await.unwrap();
        outside.close().await.unwrap();
    });
}

type Plant = fn(&mut Setup);

/// The codes that are expected, and how the fault is planted.
const FAULTS: &[(&[&str], Plant)] = &[
    (&["rules.invalid"], |setup| {
        setup.write("catalogue.toml", "[[actions]]\nmodule = 7\n", 0o644);
        setup.flag("catalogue", "catalogue.toml");
    }),
    (&["rules.invalid"], |setup| {
        setup.flag("authz-routes", "missing.toml")
    }),
    (&["guard.key"], |setup| {
        setup.flag("guard", setup.path("guard").display());
        setup.flag("guard-key-file", "missing");
    }),
    (&["database.url"], |setup| {
        setup.flag("database-url-file", "missing")
    }),
    (&["database.file-missing"], |setup| setup.url += "-mistyped"),
    (&["database.file-denied"], |setup| {
        // A folder, because the tests may run as root, whom no mode denies anything.
        fs::create_dir(setup.path("folder.db")).unwrap();
        set_mode(&setup.path("folder.db"), 0o700);
        setup.url = format!("sqlite:{}", setup.path("folder.db").display());
    }),
    (&["database.unusable"], |setup| {
        setup.write("stacktoken.db", &"not a database\n".repeat(100), 0o600);
    }),
    (&["schema.unreadable"], |setup| {
        change(setup, "DELETE FROM meta WHERE name = 'epoch'")
    }),
    (&["schema.pending"], |setup| {
        setup.write("stacktoken.db", "", 0o600)
    }),
    (&["schema.newer"], |setup| {
        let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m2999_later', 0)";
        change(setup, newer);
    }),
    (&["schema.drifted"], |setup| {
        change(setup, "DROP INDEX tokens_live_name")
    }),
    (&["clock.behind"], |setup| {
        let later = (now() + 3_600) * 1_000_000;
        change(
            setup,
            &format!("UPDATE meta SET value = {later} WHERE name = 'heartbeat'"),
        );
    }),
    (&["tls.settings"], |setup| setup.without("tls-key")),
    (&["tls.settings"], |setup| {
        let entry = "\n[[mtls]]\nidentity = \"content.cms.svc\"\ncaller = \"service\"\n";
        let issuers = fs::read_to_string(setup.path("issuers.toml")).unwrap();
        setup.write("issuers.toml", &(issuers + entry), 0o644);
    }),
    (&["tls.certificate"], |setup| {
        fs::remove_file(setup.path("tls.crt")).unwrap()
    }),
    (&["tls.certificate"], |setup| {
        setup.tls(&setup.ca.server_until(now() - DAY))
    }),
    (&["tls.key"], |setup| {
        setup.write("tls.key", &setup.ca.server().key, 0o600)
    }),
    (&["tls.client-ca"], |setup| {
        setup.write("ca.crt", &Ca::until("old", now() - DAY).pem(), 0o644);
        setup.flag("tls-client-ca", "ca.crt");
    }),
    (&["tls.expires-soon"], |setup| {
        setup.tls(&setup.ca.server_until(now() + 3 * DAY))
    }),
    (&["tls.chain"], |setup| {
        let chain = setup.ca.server().cert + &Ca::new("another CA").pem();
        let pair = setup.ca.server();
        setup.write(
            "tls.crt",
            &(pair.cert.clone() + &chain[chain.len() / 2..]),
            0o644,
        );
        setup.tls(&pair);
        let foreign = pair.cert + &Ca::new("another CA").pem();
        setup.write("tls.crt", &foreign, 0o644);
    }),
    (&["tls.chain"], |setup| setup.tls(&setup.ca.sign(|_| {}))),
    (&["tls.ca-ignored"], |setup| {
        let cas = setup.ca.pem() + &Ca::until("old", now() - DAY).pem();
        setup.write("ca.crt", &cas, 0o644);
        setup.flag("tls-client-ca", "ca.crt");
    }),
    (&["issuers.file"], |setup| setup.issuers("ES256", "HS256")),
    (&["issuers.file"], |setup| {
        setup.flag("issuers", "missing.toml")
    }),
    (&["issuers.keys"], |setup| setup.keys.close()),
    (&["issuers.keys"], |setup| {
        fs::remove_file(setup.path("jwks.json")).unwrap()
    }),
    (&["issuers.keyless"], |setup| {
        let sso = "jwks.json\"\nalgorithms = [\"ES256\"]\ncaller     = \"user\"\n\n[[issuers]]";
        setup.issuers(sso, &sso.replace("ES256", "RS256"));
    }),
    (&["issuers.algorithm"], |setup| {
        let sso = "jwks.json\"\nalgorithms = [\"ES256\"]\ncaller     = \"user\"\n\n[[issuers]]";
        setup.issuers(sso, &sso.replace("\"ES256\"", "\"ES256\", \"RS256\""));
    }),
    (&["issuers.key-skipped"], |setup| {
        let weak = r#"{"keys":[{"kty":"RSA","kid":"weak","n":"wzZPSW1Zb2I","e":"AQAB"},"#;
        let keys = setup.files.issuer.jwks().replace("{\"keys\":[", weak);
        assert!(keys.contains("weak"), "{keys}");
        setup.write("jwks.json", &keys, 0o644);
    }),
    (&["issuers.no-users"], |setup| {
        setup.issuers("caller     = \"user\"", "caller     = \"operator\"");
    }),
    (&["issuers.no-services"], |setup| {
        setup.issuers("\"gateway-*\"]", "\"gateway-*\"] #");
        setup.issuers("caller     = \"service\"", "caller     = \"operator\"");
        setup.issuers("subjects   = ", "# ");
    }),
    (&["listen.taken"], |setup| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        setup.flag("listen", taken.local_addr().unwrap());
        setup.held.push(Box::new(taken));
    }),
    (&["listen.running"], |setup| {
        let served = RunningServer::start(&setup.url, |_| {});
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(served.serves());
        setup.flag("listen", format!("127.0.0.1:{}", served.port));
        setup.flag("admin-listen", format!("127.0.0.1:{}", served.admin_port));
        setup.held.push(Box::new(served));
    }),
    (&["listen.plaintext"], |setup| {
        setup.without("tls-cert");
        setup.without("tls-key");
        setup.flag("reflection", false);
        setup.flag("listen", format!("0.0.0.0:{}", free_port()));
    }),
    (&["listen.admin"], |setup| {
        setup.flag("admin-listen", "0.0.0.0:0")
    }),
    (&["listen.reflection"], |setup| {
        setup.flag("listen", "0.0.0.0:0")
    }),
    (&["files.readable"], |setup| {
        set_mode(&setup.path("tls.key"), 0o644)
    }),
    (&["files.readable"], |setup| {
        set_mode(&setup.path("stacktoken.db"), 0o644)
    }),
    (&["files.writable"], |setup| {
        set_mode(&setup.path("issuers.toml"), 0o666)
    }),
    (&["files.writable"], |setup| {
        set_mode(&setup.path("jwks.json"), 0o666)
    }),
    (&["files.folder-writable"], |setup| {
        set_mode(setup.files.folder.path(), 0o777)
    }),
    (&["files.hard-links"], |setup| {
        fs::hard_link(setup.path("stacktoken.db"), setup.path("other.db")).unwrap();
    }),
    (&["limits.open-files"], |setup| {
        setup.flag("max-connections", 100_000_000)
    }),
];

/// Returns the codes that this file plants.
pub fn planted() -> Vec<&'static str> {
    FAULTS
        .iter()
        .flat_map(|(codes, _)| codes.iter().copied())
        .collect()
}

#[test]
fn a_good_set_up_on_a_file_has_no_findings() {
    let setup = Setup::on_sqlite();
    setup.run().is_exactly(&[]);
    let done = setup.command("text").output().unwrap();
    assert_eq!(text(&done.stdout), "0 errors, 0 warnings, 0 notes\n");
    assert_eq!(
        (done.status.code(), text(&done.stderr)),
        (Some(0), String::new())
    );
    // The check has changed nothing and left nothing behind.
    let mut names: Vec<_> = fs::read_dir(setup.files.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "issuers.toml",
        "jwks.json",
        "stacktoken.db",
        "tls.crt",
        "tls.key",
    ];
    assert_eq!(names, expected);
}

#[test]
fn each_planted_fault_of_files_and_settings_is_found_and_no_other() {
    let faults = FAULTS.iter().filter_map(|(expected, plant)| {
        let mut setup = Setup::on_sqlite();
        plant(&mut setup);
        setup.run().fault(expected)
    });
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn several_faults_are_found_at_once_the_worst_first() {
    let mut setup = Setup::on_sqlite();
    setup.flag("admin-listen", "0.0.0.0:0");
    set_mode(&setup.path("tls.key"), 0o644);
    change(&setup, "DROP INDEX tokens_live_name");
    setup.keys.close();
    let report = setup.run();
    report.is_exactly(&[
        "issuers.keys",
        "schema.drifted",
        "files.readable",
        "listen.admin",
    ]);
    let done = setup.command("text").output().unwrap();
    let shown = text(&done.stdout);
    assert!(shown.ends_with("2 errors, 1 warning, 1 note\n"), "{shown}");
    assert!(
        shown.contains("error schema.drifted\n") && shown.contains("\n  fix: "),
        "{shown}"
    );
}

#[test]
fn wrong_flags_are_refused_as_by_serve() {
    let mut setup = Setup::on_sqlite();
    setup.url = format!("mysql://app:{PASSWORD}@db/tokens");
    let done = setup.command("json").output().unwrap();
    let (shown, error) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(
        (done.status.code(), shown.as_str()),
        (Some(2), ""),
        "{error}"
    );
    assert!(
        error.contains("--database-url: ") && !error.contains(PASSWORD),
        "{error}"
    );
    setup.without("issuers");
    let done = setup.command("json").output().unwrap();
    let error = text(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{error}");
    assert!(error.contains("--issuers is required"), "{error}");
}
