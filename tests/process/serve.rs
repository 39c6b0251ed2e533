//! Tests `serve` and related commands on SQLite: what prevents a start, what does not, and client
//! commands.

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
    support::{TestIssuer, http::HttpCall, issuer::ISSUERS_FILE},
};

/// Creates a directory with an issuers file and the keys of the issuer.
fn issuers_folder() -> TempDir {
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

fn run_serve(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let done = in_folder(folder, arguments).output().unwrap();
    (
        done.status.code(),
        format!("{}{}", text(&done.stdout), text(&done.stderr)),
    )
}

/// The arguments to serve on free ports.
pub const SERVE: [&str; 5] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--admin-listen",
    "127.0.0.1:0",
];

/// All migrations, in the order in which they are applied.
const MIGRATIONS: [&str; 13] = [
    "m20261124_000001_first",
    "m20261124_000002_rotation",
    "m20261124_000003_usage",
    "m20261129_000004_instants",
    "m20261129_000005_origin",
    "m20261129_000006_expiring",
    "m20261129_000007_tables",
    "m20261129_000008_hints",
    "m20261129_000009_replays",
    "m20261129_000010_audit",
    "m20261129_000011_labels",
    "m20261130_000012_everywhere",
    "m20261130_000013_federation",
];

/// Returns what `migrate` prints if it prints the same word for each migration.
fn each_migration(word: &str) -> String {
    MIGRATIONS.map(|name| format!("{word} {name}")).join("\n")
}

#[test]
fn a_schema_that_is_not_migrated_names_the_command() {
    let folder = issuers_folder();
    let file = folder.path().join("stacktoken.db");
    for command in [
        &SERVE[..],
        &["migrate", "status"],
        &["migrate", "new-epoch"],
    ] {
        let (code, run_command) = run_serve(folder.path(), command);
        assert_eq!(code, Some(1), "{command:?}");
        let cure = "does not exist: check the path, or create it with `stacktoken migrate up`";
        assert!(run_command.contains(cure), "{command:?}: {run_command}");
        assert!(
            !file.exists(),
            "{command:?} created an empty store at a mistyped path"
        );
    }
    std::fs::write(&file, "").unwrap();
    let (code, run_command) = run_serve(folder.path(), &SERVE);
    assert_eq!(code, Some(1));
    assert!(
        run_command.contains("run `stacktoken migrate up` first"),
        "{run_command}"
    );
    let (code, run_command) = run_serve(folder.path(), &["migrate", "status"]);
    assert_eq!(
        (code, run_command.trim().to_owned()),
        (Some(1), each_migration("pending"))
    );
    let (code, run_command) = run_serve(folder.path(), &["migrate", "up"]);
    assert_eq!(
        (code, run_command.trim().to_owned()),
        (Some(0), each_migration("applied"))
    );
    let (code, run_command) = run_serve(folder.path(), &["migrate", "up"]);
    assert_eq!(
        (code, run_command.trim()),
        (Some(0), "the schema is up to date")
    );
    let (code, run_command) = run_serve(folder.path(), &["migrate", "status"]);
    assert_eq!(
        (code, run_command.trim().to_owned()),
        (Some(0), each_migration("applied"))
    );
    let (code, run_command) = run_serve(folder.path(), &["migrate", "new-epoch"]);
    assert_eq!(code, Some(0), "{run_command}");
}

#[tokio::test]
async fn a_newer_schema_asks_for_a_newer_program() {
    let folder = issuers_folder();
    run_serve(folder.path(), &["migrate", "up"]);
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
        let (code, run_command) = run_serve(folder.path(), arguments);
        assert_eq!(code, Some(1), "{run_command}");
        assert!(
            run_command.contains("m29990101_000001_later")
                && run_command.contains("run a newer stacktoken"),
            "{run_command}"
        );
    }
}

#[test]
fn a_missing_key_file_names_its_path() {
    let folder = issuers_folder();
    run_serve(folder.path(), &["migrate", "up"]);
    fs::remove_file(folder.path().join("jwks.json")).unwrap();
    let (code, run_command) = run_serve(folder.path(), &SERVE);
    assert_eq!(
        (code, run_command.lines().count()),
        (Some(1), 1),
        "{run_command}"
    );
    assert!(
        run_command.contains("jwks.json") && run_command.contains("--issuers"),
        "{run_command}"
    );
}

struct RunningServer(Child);

impl Drop for RunningServer {
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
        let (code, run_command) = healthcheck(port);
        if (code, run_command.trim()) == expected {
            return;
        }
        assert!(Instant::now() < patience, "{code:?} {run_command}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn keys_that_cannot_be_fetched_yet_do_not_stop_the_start() {
    let folder = issuers_folder();
    run_serve(folder.path(), &["migrate", "up"]);
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
    let _served = RunningServer(child);
    assert_eq!(healthcheck(1).0, Some(1), "no server is running");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_port_is_off_unless_it_is_set() {
    let folder = issuers_folder();
    run_serve(folder.path(), &["migrate", "up"]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let http = format!("127.0.0.1:{}", free_port());
    let serve = [
        "serve",
        "--listen",
        &listen,
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let url = "https://tokens.example.com";
    let with_http = ["--http-listen", &http, "--http-public-url", url];
    for (arguments, is_open) in [
        (&[][..], false),
        (&["--http-public-url", url], false),
        (&with_http, true),
    ] {
        let arguments = [&serve[..], arguments].concat();
        let mut command = in_folder(folder.path(), &arguments);
        let _served = RunningServer(command.stderr(Stdio::null()).spawn().unwrap());
        until((Some(0), "SERVING"), port);
        let connected = std::net::TcpStream::connect(&http);
        assert_eq!(connected.is_ok(), is_open, "{arguments:?}");
        if is_open {
            let path = "/.well-known/oauth-authorization-server";
            let call = HttpCall::new(&http, http::Method::GET, path);
            assert_eq!(call.send().await.json()["issuer"], url);
        }
    }
}

/// Runs a client command against a `dev` with this standard input. Returns the exit code, the
/// output and the error.
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
    // The write may fail, because a command that does not read its input may have ended already.
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
        "--label",
        "team=shop",
    ];
    let (code, secret, run_command) = verb(&dev, "owner_jwt", &issue, "");
    assert_eq!(code, Some(0), "{run_command}");
    assert!(
        secret.trim().len() == 51 && secret.lines().count() == 1,
        "only the secret is printed"
    );
    assert!(!run_command.contains("stk1_"), "{run_command}");
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
    let (code, answer, run_command) = verb(&dev, "service_jwt", &ask("entry.read"), &secret);
    assert_eq!(code, Some(0), "{answer}{run_command}");
    let (code, answer, _) = verb(&dev, "service_jwt", &ask("entry.update"), &secret);
    assert_eq!(code, Some(4), "{answer}");
    assert!(
        answer.contains("REASON_READ_ONLY") && answer.contains("\"access\": \"ACCESS_READ_WRITE\""),
        "{answer}"
    );
    let (code, _, run_command) = verb(&dev, "stranger_jwt", &issue, "");
    assert_eq!(code, Some(3), "{run_command}");
    let (code, _, run_command) = verb(&dev, "developer_jwt", &issue, "");
    assert_eq!(code, Some(1), "{run_command}");
    assert!(
        run_command.contains("PERMISSION_DENIED/ROLE_REQUIRED: ")
            && run_command.contains(" [request id "),
        "{run_command}"
    );
    let (code, _, run_command) = verb(&dev, "service_jwt", &ask("entry.read"), "");
    assert_eq!(code, Some(2), "{run_command}");
    assert!(
        run_command.contains("no secret on standard input"),
        "{run_command}"
    );
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
        let (code, _, run_command) = call(&[
            "issue",
            "--name",
            name,
            "--access",
            "read",
            "--expires",
            "1h",
        ]);
        assert_eq!(code, Some(0), "{run_command}");
        run_command.split([' ', ';']).nth(2).unwrap().to_owned()
    };
    let (uid, longer) = (issue("a name"), issue("a name too"));
    let revoked = |uid: &str| (Some(0), format!("revoked token {uid}\n"), String::new());
    assert_eq!(call(&["revoke", "--name", "a name"]), revoked(&uid));
    let (code, output, run_command) = call(&["revoke", "--name", "a name"]);
    assert_eq!((code, output.as_str()), (Some(3), ""), "{run_command}");
    assert_eq!(
        run_command,
        "stacktoken: --name \"a name\": the stack has no live token of this name; `list --name` \
         shows revoked and expired ones\n"
    );
    let by_id = ["revoke", "--token", &longer, "--reason", "moved"];
    assert_eq!(call(&by_id), revoked(&longer));
    // A repeated revoke changes nothing, so the first reason stays.
    let again = ["revoke", "--token", &longer, "--reason", "another"];
    assert_eq!(call(&again), revoked(&longer));
    let request = v1::GetRequest {
        stack_api_key: stack.clone(),
        token_uid: longer.clone(),
    };
    let mut owner = dev.client("owner_jwt").await;
    let token = owner.tokens.get(request).await.unwrap().into_inner();
    assert_eq!(token.token.unwrap().revoke_reason, "moved");
    // A secret in a flag is refused and not printed.
    let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
    for flag in [["--name", secret], ["--reason", secret]] {
        let token = if flag[0] == "--name" {
            &[][..]
        } else {
            &["--token", &longer]
        };
        let (code, _, run_command) = call(&[&["revoke"][..], token, &flag].concat());
        assert_eq!(code, Some(2), "{run_command}");
        assert!(!run_command.contains("stk1_z"), "{run_command}");
    }
}

#[test]
fn a_route_table_that_cannot_be_used_stops_the_start_and_names_the_setting() {
    let folder = issuers_folder();
    let arguments = [&SERVE[..], &["--authz-routes", "routes.toml"]].concat();
    let (code, run_command) = run_serve(folder.path(), &arguments);
    assert_eq!(code, Some(1));
    assert!(
        run_command.contains("--authz-routes routes.toml: "),
        "{run_command}"
    );
    let entry = "[[routes]]\nmethod = \"GET\"\npath = \"/a\"\nactions = [\"entry.peel\"]\n";
    fs::write(folder.path().join("routes.toml"), entry).unwrap();
    for command in [&arguments[..], &["dev", "--authz-routes", "routes.toml"]] {
        let (code, run_command) = run_serve(folder.path(), command);
        assert_eq!(code, Some(1));
        let wanted = "--authz-routes routes.toml: line 4: `actions` contains \"entry.peel\"";
        assert!(run_command.contains(wanted), "{run_command}");
        assert_eq!(run_command.trim().lines().count(), 1, "{run_command}");
    }
}

#[test]
fn a_catalogue_that_cannot_be_used_stops_the_start_and_names_the_setting() {
    let folder = issuers_folder();
    let file = "modules = [\n  \"ape\",\n  \"entry\",\n]\n";
    fs::write(folder.path().join("catalogue.toml"), file).unwrap();
    let serve = [&SERVE[..], &["--catalogue", "catalogue.toml"]].concat();
    for command in [&serve[..], &["dev", "--catalogue", "catalogue.toml"]] {
        let (code, run_command) = run_serve(folder.path(), command);
        assert_eq!(code, Some(1));
        let wanted =
            "--catalogue catalogue.toml: line 3: `modules` contains \"entry\", which is built in";
        assert!(run_command.contains(wanted), "{run_command}");
        assert_eq!(run_command.trim().lines().count(), 1, "{run_command}");
    }
}
