//! `serve` and its helpers on an embedded store: what stops the start, what does not, and the
//! client verbs.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sea_orm::ConnectionTrait as _;
use stacktoken::grpc::pb::v1;
use tempfile::TempDir;

use crate::{
    program::{Dev, PROGRAM, folder, program, text},
    support::{TestIssuer, issuer::ISSUERS_FILE},
};

/// A folder with an issuers file, its keys and a migrated store.
fn ground() -> TempDir {
    let folder = folder();
    fs::write(folder.path().join("issuers.toml"), ISSUERS_FILE).unwrap();
    fs::write(folder.path().join("jwks.json"), TestIssuer::new().jwks()).unwrap();
    folder
}

fn in_folder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command
        .current_dir(folder)
        .args(arguments)
        .env("STACKTOKEN_DATABASE_URL", "sqlite:stacktoken.db")
        .env("STACKTOKEN_ISSUERS", "issuers.toml");
    command
}

fn said(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let done = in_folder(folder, arguments).output().unwrap();
    (
        done.status.code(),
        format!("{}{}", text(&done.stdout), text(&done.stderr)),
    )
}

const SERVE: [&str; 5] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
];

#[test]
fn a_schema_that_is_not_migrated_names_the_command() {
    let folder = ground();
    let (code, told) = said(folder.path(), &SERVE);
    assert_eq!(code, Some(1));
    assert!(told.contains("run `stacktoken migrate up` first"), "{told}");
    let (code, told) = said(folder.path(), &["migrate", "status"]);
    assert_eq!(
        (code, told.trim()),
        (
            Some(1),
            "pending m20261124_000001_first\npending m20261124_000002_rotation\n\
             pending m20261124_000003_usage\n\
             pending m20261129_000004_instants\n\
             pending m20261129_000005_origin\n\
             pending m20261129_000006_expiring\n\
             pending m20261129_000007_tables"
        )
    );
    let (code, told) = said(folder.path(), &["migrate", "up"]);
    assert_eq!(
        (code, told.trim()),
        (
            Some(0),
            "applied m20261124_000001_first\napplied m20261124_000002_rotation\n\
             applied m20261124_000003_usage\n\
             applied m20261129_000004_instants\n\
             applied m20261129_000005_origin\n\
             applied m20261129_000006_expiring\n\
             applied m20261129_000007_tables"
        )
    );
    let (code, told) = said(folder.path(), &["migrate", "up"]);
    assert_eq!((code, told.trim()), (Some(0), "the schema is up to date"));
    let (code, told) = said(folder.path(), &["migrate", "status"]);
    assert_eq!(
        (code, told.trim()),
        (
            Some(0),
            "applied m20261124_000001_first\napplied m20261124_000002_rotation\n\
             applied m20261124_000003_usage\n\
             applied m20261129_000004_instants\n\
             applied m20261129_000005_origin\n\
             applied m20261129_000006_expiring\n\
             applied m20261129_000007_tables"
        )
    );
    let (code, told) = said(folder.path(), &["migrate", "new-epoch"]);
    assert_eq!(code, Some(0), "{told}");
}

#[tokio::test]
async fn a_newer_schema_asks_for_a_newer_program() {
    let folder = ground();
    said(folder.path(), &["migrate", "up"]);
    let url = format!(
        "sqlite://{}?mode=rw",
        folder.path().join("stacktoken.db").display()
    );
    let store = sea_orm::Database::connect(url).await.unwrap();
    let newer =
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29990101_000001_later', 0)";
    store.execute_unprepared(newer).await.unwrap();
    store.close().await.unwrap();
    for arguments in [&SERVE[..], &["migrate", "up"]] {
        let (code, told) = said(folder.path(), arguments);
        assert_eq!(code, Some(1), "{told}");
        assert!(
            told.contains("m29990101_000001_later") && told.contains("run a newer stacktoken"),
            "{told}"
        );
    }
}

#[test]
fn a_missing_key_file_names_its_path() {
    let folder = ground();
    said(folder.path(), &["migrate", "up"]);
    fs::remove_file(folder.path().join("jwks.json")).unwrap();
    let (code, told) = said(folder.path(), &SERVE);
    assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
    assert!(
        told.contains("jwks.json") && told.contains("--issuers"),
        "{told}"
    );
}

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn healthcheck(port: u16) -> (Option<i32>, String) {
    let server = format!("http://127.0.0.1:{port}");
    let done = program()
        .args(["healthcheck", "--server", &server])
        .output()
        .unwrap();
    (done.status.code(), text(&done.stdout))
}

fn until(expected: (Option<i32>, &str), port: u16) {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let (code, told) = healthcheck(port);
        if (code, told.trim()) == expected {
            return;
        }
        assert!(Instant::now() < patience, "{code:?} {told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn keys_that_cannot_be_fetched_yet_do_not_stop_the_start() {
    let folder = ground();
    said(folder.path(), &["migrate", "up"]);
    let keys = free_port();
    let by_url = format!("jwks_url = \"http://127.0.0.1:{keys}/keys\"");
    let issuers = ISSUERS_FILE.replace("jwks_file  = \"jwks.json\"", &by_url);
    fs::write(folder.path().join("issuers.toml"), issuers).unwrap();
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let child = in_folder(
        folder.path(),
        &[
            "serve",
            "--listen",
            &listen,
            "--admin-listen",
            "127.0.0.1:0",
        ],
    )
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let _served = Served(child);
    assert_eq!(healthcheck(1).0, Some(1), "nobody is there");
    until((Some(1), "NOT_SERVING"), port);
    let jwks = fs::read_to_string(folder.path().join("jwks.json")).unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", keys)).unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = std::io::Read::read(&mut client, &mut request);
            let length = jwks.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = client.write_all(format!("{head}{jwks}").as_bytes());
        }
    });
    until((Some(0), "SERVING"), port);
}

/// Runs a client verb against a `dev`, with this on standard input.
fn verb(dev: &Dev, jwt: &str, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .args(["--server", &format!("http://{}", dev.get("grpc_address"))])
        .env("STACKTOKEN_JWT", dev.get(jwt))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A verb that reads none may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_verbs_issue_and_introspect() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let stack = dev.get("stack_api_key");
    let issue = [
        "issue",
        "--stack",
        stack,
        "--name",
        "verb",
        "--access",
        "read",
        "--expires",
        "9999-12-31",
        "--module",
        "entry:read",
        "--branch",
        "main",
    ];
    let (code, secret, told) = verb(&dev, "owner_jwt", &issue, "");
    assert_eq!(code, Some(0), "{told}");
    assert!(
        secret.trim().len() == 51 && secret.lines().count() == 1,
        "the secret alone"
    );
    assert!(!told.contains("stk1_"), "{told}");
    let ask = |action: &'static str| {
        [
            "introspect",
            "--stack",
            stack,
            "--branch",
            "main",
            "--action",
            action,
        ]
    };
    let (code, answer, told) = verb(&dev, "service_jwt", &ask("entry.read"), &secret);
    assert_eq!(code, Some(0), "{answer}{told}");
    let (code, answer, _) = verb(&dev, "service_jwt", &ask("entry.update"), &secret);
    assert_eq!(code, Some(4), "{answer}");
    assert!(
        answer.contains("REASON_READ_ONLY") && answer.contains("access:READ_WRITE"),
        "{answer}"
    );
    let (code, _, told) = verb(&dev, "stranger_jwt", &issue, "");
    assert_eq!(code, Some(3), "{told}");
    let (code, _, told) = verb(&dev, "developer_jwt", &issue, "");
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("PERMISSION_DENIED/ROLE_REQUIRED: ") && told.contains(" [request id "),
        "{told}"
    );
    let (code, _, told) = verb(&dev, "service_jwt", &ask("entry.read"), "");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no secret on standard input"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_verb_revokes_by_id_and_by_name() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let stack = dev.get("stack_api_key").to_owned();
    let call = |words: &[&str]| {
        let words = [&words[..1], &["--stack", &stack], &words[1..]].concat();
        verb(&dev, "owner_jwt", &words, "")
    };
    let issue = |name: &str| {
        let (code, _, told) = call(&[
            "issue",
            "--name",
            name,
            "--access",
            "read",
            "--expires",
            "1h",
        ]);
        assert_eq!(code, Some(0), "{told}");
        told.split([' ', ';']).nth(2).unwrap().to_owned()
    };
    let (uid, longer) = (issue("a name"), issue("a name too"));
    let revoked = |uid: &str| (Some(0), format!("revoked token {uid}\n"), String::new());
    assert_eq!(call(&["revoke", "--name", "a name"]), revoked(&uid));
    let (code, output, told) = call(&["revoke", "--name", "a name"]);
    assert_eq!((code, output.as_str()), (Some(3), ""), "{told}");
    assert_eq!(
        told,
        "stacktoken: --name \"a name\": the stack has no live token of this name\n"
    );
    let by_id = ["revoke", "--token", &longer, "--reason", "moved"];
    assert_eq!(call(&by_id), revoked(&longer));
    // Again: the token stays as it was revoked at first.
    let again = ["revoke", "--token", &longer, "--reason", "another"];
    assert_eq!(call(&again), revoked(&longer));
    let request = v1::GetRequest {
        stack_api_key: stack.clone(),
        token_uid: longer.clone(),
    };
    let mut owner = dev.client("owner_jwt").await;
    let token = owner.tokens.get(request).await.unwrap().into_inner();
    assert_eq!(token.token.unwrap().revoke_reason, "moved");
    // A secret in a flag is refused without being shown.
    let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
    for flag in [["--name", secret], ["--reason", secret]] {
        let token = if flag[0] == "--name" {
            &[][..]
        } else {
            &["--token", &longer]
        };
        let (code, _, told) = call(&[&["revoke"][..], token, &flag].concat());
        assert_eq!(code, Some(2), "{told}");
        assert!(!told.contains("stk1_z"), "{told}");
    }
}

#[test]
fn a_route_table_that_cannot_be_used_stops_the_start_and_names_the_setting() {
    let folder = ground();
    let arguments = [&SERVE[..], &["--authz-routes", "routes.toml"]].concat();
    let (code, told) = said(folder.path(), &arguments);
    assert_eq!(code, Some(1));
    assert!(told.contains("--authz-routes routes.toml: "), "{told}");
    let entry = "[[routes]]\nmethod = \"GET\"\npath = \"/a\"\nactions = [\"entry.peel\"]\n";
    fs::write(folder.path().join("routes.toml"), entry).unwrap();
    for command in [&arguments[..], &["dev", "--authz-routes", "routes.toml"]] {
        let (code, told) = said(folder.path(), command);
        assert_eq!(code, Some(1));
        let wanted = "--authz-routes routes.toml: routes entry 1: `actions` holds \"entry.peel\"";
        assert!(told.contains(wanted), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
}
