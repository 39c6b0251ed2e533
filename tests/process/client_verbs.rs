//! Tests how client commands end: in time, whatever the server does, and with an exit code that
//! distinguishes an outage from a refusal.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use prost::Message as _;
use rustix::net::{AddressFamily, SocketType};
use stacktoken::grpc::{code::name_of, pb::v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    program::{program, text},
    stub::{Reply, Stub, answers_with},
};

const STACK: &str = "blt00c0ffee00c0ffee";
const ISSUE: &[&str] = &[
    "issue",
    "--stack",
    STACK,
    "--name",
    "x",
    "--access",
    "read",
    "--expires",
    "1h",
];
const INTROSPECT: &[&str] = &["introspect", "--stack", STACK];
/// A well-formed secret that was never issued.
const SECRET: &str = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
const UID: &str = "019ecbf1-3c52-7a7d-9be6-6e0a5f2d7c11";
const REVOKE: &[&str] = &["revoke", "--stack", STACK, "--token", UID];
const REVOKE_BY_NAME: &[&str] = &["revoke", "--stack", STACK, "--name", "x"];
const LIST: &[&str] = &["list", "--stack", STACK];
const GET: &[&str] = &["get", "--stack", STACK, "--token", UID];
const ROTATE: &[&str] = &[
    "rotate",
    "--stack",
    STACK,
    "--token",
    UID,
    "--until-first-use",
];
const SET_EXPIRY: &[&str] = &[
    "set-expiry",
    "--stack",
    STACK,
    "--token",
    UID,
    "--expires",
    "90d",
];
const UPDATE: &[&str] = &[
    "update",
    "--stack",
    STACK,
    "--token",
    UID,
    "--new-name",
    "y",
];
const END_OVERLAP: &[&str] = &["end-overlap", "--stack", STACK, "--token", UID];
const LIST_STACKS: &[&str] = &["stacks", "list"];
const EXCHANGE: &[&str] = &["exchange", "--stack", STACK, "--gitlab=STACKTOKEN_JWT"];
const EXPLAIN_EXCHANGE: &[&str] = &[
    "explain-exchange",
    "--stack",
    STACK,
    "--token",
    UID,
    "--subject-token-file",
    "tests/data/form_of_a_jwt",
];
const END_SESSIONS: &[&str] = &["end-sessions", "--stack", STACK, "--token", UID];
const LIST_ISSUERS: &[&str] = &["list-issuers", "--stack", STACK];
const CALLS: [&[&str]; 15] = [
    ISSUE,
    INTROSPECT,
    REVOKE,
    REVOKE_BY_NAME,
    LIST,
    GET,
    ROTATE,
    SET_EXPIRY,
    UPDATE,
    END_OVERLAP,
    LIST_STACKS,
    EXCHANGE,
    EXPLAIN_EXCHANGE,
    END_SESSIONS,
    LIST_ISSUERS,
];
const HEALTHCHECK: &[&str] = &["healthcheck"];
/// The reasons of outages after which it is certain that nothing was changed.
const NOTHING_DONE: [&str; 4] = ["DRAINING", "RATE_LIMITED", "OVERLOADED", "STORAGE_FULL"];

/// The output and the exit code of a command, and how long it ran.
#[derive(Debug)]
struct CommandOutput {
    code: Option<i32>,
    output: String,
    error: String,
    took: Duration,
}

fn end(command: &mut Command) -> CommandOutput {
    let began = Instant::now();
    let mut child = command
        .env("STACKTOKEN_JWT", "a.b.c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The write may fail, because a command that does not read its input may have ended already.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(format!("{SECRET}\n").as_bytes());
    let done = child.wait_with_output().unwrap();
    CommandOutput {
        code: done.status.code(),
        output: text(&done.stdout),
        error: text(&done.stderr),
        took: began.elapsed(),
    }
}

/// Runs a command in another thread, so that servers in the test's own process can answer it.
async fn call(server: impl ToString, verb: &[&str], more: &[&str]) -> CommandOutput {
    let mut command = program();
    command.args(verb).args(more);
    command.args(["--server", &server.to_string()]);
    tokio::task::spawn_blocking(move || end(&mut command))
        .await
        .unwrap()
}

fn with_reason(code: Code, reason: &str, retry: bool) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "stacktoken", []);
    details.set_request_info("the-server's-id", "");
    if retry {
        details.set_retry_info(Some(Duration::from_secs(1)));
    }
    Status::with_error_details(code, "in\nwords", details)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_has_the_exit_code_of_the_manual() {
    use Code::*;
    let stub = Stub::start().await;
    let table = [
        (Unavailable, "", false, 5),
        (Unavailable, "STORE_UNAVAILABLE", true, 5),
        (Unavailable, "DRAINING", true, 5),
        (DeadlineExceeded, "", false, 5),
        (DeadlineExceeded, "DEADLINE", false, 5),
        (Cancelled, "", false, 5),
        (ResourceExhausted, "", false, 5),
        (ResourceExhausted, "RATE_LIMITED", true, 5),
        (ResourceExhausted, "RATE_LIMITED", false, 5),
        (ResourceExhausted, "OVERLOADED", false, 5),
        (ResourceExhausted, "STORAGE_FULL", false, 5),
        (ResourceExhausted, "ANYTHING_THAT_PASSES", true, 5),
        (ResourceExhausted, "TOKEN_LIMIT_REACHED", false, 4),
        (ResourceExhausted, "SESSION_LIMIT", false, 4),
        (FailedPrecondition, "STACK_SUSPENDED", false, 4),
        (FailedPrecondition, "", false, 4),
        (AlreadyExists, "NAME_TAKEN", false, 4),
        (Aborted, "PREVIEW_CHANGED", false, 4),
        (Aborted, "ETAG_MISMATCH", false, 4),
        (NotFound, "STACK_NOT_FOUND", false, 3),
        (InvalidArgument, "INVALID_FIELD", false, 2),
        (Unauthenticated, "CREDENTIAL_INVALID", false, 1),
        (PermissionDenied, "ROLE_REQUIRED", false, 1),
        (OutOfRange, "REVISION_UNKNOWN", false, 1),
        (Unimplemented, "RPC_UNKNOWN", false, 1),
        (Internal, "INTERNAL", false, 1),
        (Internal, "", false, 1),
        (Unknown, "", false, 1),
        (DataLoss, "", false, 1),
    ];
    for number in 1..=16 {
        let code = Code::from_i32(number);
        let has_row = table.iter().any(|(listed, ..)| *listed == code);
        assert!(has_row, "no row for {code:?}");
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, (code, reason, retry, expected)) in table.into_iter().enumerate() {
        let named = !reason.is_empty();
        stub.reply(Reply::Status(if named {
            with_reason(code, reason, retry)
        } else {
            Status::new(code, "in\nwords")
        }));
        // All commands run for the first row of each exit code, and only a few for the other rows.
        let verbs = if seen.insert(expected) {
            CALLS.to_vec()
        } else {
            vec![ISSUE, CALLS[index % CALLS.len()]]
        };
        for verb in verbs {
            let ended = call(stub.address, verb, &[]).await;
            let told = (code, reason, &ended);
            assert_eq!(ended.code, Some(expected), "{told:?}");
            assert_eq!(ended.output, "", "{told:?}");
            let (name, id) = if named {
                (
                    format!("{}/{reason}", name_of(code)),
                    "the-server's-id".into(),
                )
            } else {
                (name_of(code).to_owned(), stub.header("x-request-id"))
            };
            let line = format!("stacktoken: {name}: in words [request id {id}]");
            let rest = ended.error.strip_prefix(&line);
            let rest = rest.unwrap_or_else(|| panic!("no {line}: {told:?}"));
            // The outcome is unknown. A call that creates a secret can be repeated, and any other
            // change can be checked with `get`.
            let advice = match verb {
                _ if expected != 5 || NOTHING_DONE.contains(&reason) => "",
                _ if [ISSUE, ROTATE].contains(&verb) => {
                    "within 10 minutes, repeat the command with --request-id "
                }
                _ if [REVOKE, SET_EXPIRY, UPDATE, END_OVERLAP, END_SESSIONS].contains(&verb) => {
                    "look with get --token "
                }
                _ => "",
            };
            let advised = rest.strip_prefix("; the outcome is unknown: ");
            assert_eq!(advised.is_some(), !advice.is_empty(), "{told:?}");
            assert!(advised.unwrap_or_default().starts_with(advice), "{told:?}");
            assert!(advised.is_some() || rest == "\n", "{told:?}");
            assert!(id.len() >= 15, "{told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_about_a_field_names_the_flag() {
    let stub = Stub::start().await;
    let mut details = ErrorDetails::with_bad_request_violation("stack_api_key", "is wrong");
    for (field, problem) in [
        ("labels[\"team\"]", "is long"),
        ("of_a_later_version", "is new"),
    ] {
        details.add_bad_request_violation(field, problem);
    }
    let status = Status::with_error_details(Code::InvalidArgument, "in words", details);
    stub.reply(Reply::Status(status));
    for verb in CALLS {
        let ended = call(stub.address, verb, &[]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let has_label = [ISSUE, LIST, REVOKE_BY_NAME].contains(&verb);
        if verb != LIST_STACKS {
            let said = "INVALID_ARGUMENT: --stack is wrong; ";
            assert!(ended.error.contains(said), "{ended:?}");
        }
        assert_eq!(ended.error.contains("--label"), has_label, "{ended:?}");
        assert!(
            ended.error.contains("of_a_later_version is new ["),
            "{ended:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_a_yes_is_exit_code_4() {
    let stub = Stub::start().await;
    for (active, decision, asked, expected) in [
        (true, 0, false, 0),
        (true, v1::Decision::Allow as i32, true, 0),
        (true, v1::Decision::Deny as i32, true, 4),
        (true, v1::Decision::Unspecified as i32, true, 4),
        // 77 is a value that a later version may add.
        (true, 77, true, 4),
        (false, 0, false, 4),
        (false, v1::Decision::Allow as i32, true, 4),
    ] {
        let answer = v1::IntrospectResponse {
            active,
            decision,
            ..Default::default()
        };
        stub.reply(Reply::Message(answer.encode_to_vec()));
        let more: &[&str] = if asked {
            &["--action", "entry.read"]
        } else {
            &[]
        };
        let ended = call(stub.address, INTROSPECT, more).await;
        assert_eq!(ended.code, Some(expected), "{answer:?} {ended:?}");
    }
}

/// Returns a listener that accepts no connections and whose queue is already full.
fn full() -> (rustix::fd::OwnedFd, Vec<TcpStream>, SocketAddr) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let address = rustix::net::getsockname(&socket).unwrap();
    let address = SocketAddr::try_from(address).unwrap();
    let waiting: Vec<_> = (0..8)
        .map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok())
        .collect();
    assert!(waiting.len() < 8, "the queue did not fill up");
    (socket, waiting, address)
}

/// Asserts that each command ends at its `--timeout` and reports the timeout.
async fn times_out(what: &str, address: SocketAddr) {
    let calls = CALLS.map(|verb| (verb, 5));
    for (verb, expected) in calls.into_iter().chain([(HEALTHCHECK, 1)]) {
        let ended = call(address, verb, &["--timeout", "400ms"]).await;
        assert_eq!(ended.code, Some(expected), "{what}: {ended:?}");
        let run_serve =
            format!("stacktoken: --server http://{address}: no answer within --timeout 400ms");
        assert!(ended.error.starts_with(&run_serve), "{what}: {ended:?}");
        assert!(
            ended.took >= Duration::from_millis(400),
            "{what}: {ended:?}"
        );
        assert!(ended.took < Duration::from_secs(4), "{what}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_makes_a_verb_wait_for_ever() {
    let (_socket, _waiting, full) = full();
    times_out("a listener that accepts nothing", full).await;
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    times_out("a listener that sends nothing", mute.local_addr().unwrap()).await;
    let stub = Stub::start().await;
    times_out("a server that never answers", stub.address).await;
    stub.reply(Reply::HeadersOnly);
    times_out("a server that stops within its answer", stub.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_is_sent_to_the_server() {
    let stub = Stub::start().await;
    stub.reply(Reply::Status(Status::new(Code::Internal, "")));
    for (more, most) in [(&[][..], 5_000_000), (&["--timeout", "2m"], 120_000_000)] {
        for verb in CALLS {
            call(stub.address, verb, more).await;
            let sent = stub.header("grpc-timeout");
            let (number, unit) = sent.split_at(sent.len() - 1);
            let unit = match unit {
                "u" => 1,
                "m" => 1000,
                _ => panic!("{sent}"),
            };
            let micros = number.parse::<u64>().unwrap() * unit;
            assert!((most / 2..most).contains(&micros), "{more:?}: {sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_is_an_outage_and_a_foreign_server_is_not() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    // This server closes each connection at once, during the call.
    let broken = TcpListener::bind("127.0.0.1:0").unwrap();
    let broken_address = broken.local_addr().unwrap();
    std::thread::spawn(move || broken.incoming().for_each(drop));
    let stub = Stub::start().await;
    let web = crate::stub::web().await;
    // These servers answer plaintext HTTP/2 like a server that speaks only HTTP/1.1, and like one
    // that expects TLS (with a fatal alert).
    let bad_request = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    let http1 = answers_with(bad_request, true);
    let silent = answers_with(bad_request, false);
    let tls = answers_with(&[21, 3, 3, 0, 2, 2, 10], true);
    let other = "answers in another protocol than gRPC: check the port, and use https://";
    for (server, expected, run_serve) in [
        (format!("http://{nobody}"), 5, "Connection refused"),
        (
            "http://no-such-host.invalid:1".to_owned(),
            5,
            "no-such-host",
        ),
        (format!("http://{broken_address}"), 5, ""),
        // This server has no TLS, so the client cannot verify a certificate.
        (format!("https://{}", stub.address), 1, "--server https://"),
        (format!("http://{web}"), 1, ""),
        (format!("http://{http1}"), 1, other),
        (format!("http://{silent}"), 1, other),
        (format!("http://{tls}"), 1, other),
    ] {
        for verb in CALLS {
            let ended = call(&server, verb, &[]).await;
            assert_eq!(ended.code, Some(expected), "{server}: {ended:?}");
            assert!(ended.error.contains(run_serve), "{server}: {ended:?}");
            assert_eq!(ended.error.lines().count(), 1, "{server}: {ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_cannot_be_written_is_a_failure_that_names_its_token() {
    let stub = Stub::start().await;
    let issued = v1::IssueResponse {
        token: Some(v1::Token {
            token_uid: "the-uid".into(),
            ..Default::default()
        }),
        secret: "the-secret".into(),
        ..Default::default()
    };
    stub.reply(Reply::Message(issued.encode_to_vec()));
    let mut command = program();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command
        .args(ISSUE)
        .args(["--server", &stub.address.to_string()]);
    command.env("STACKTOKEN_JWT", "a.b.c").stdout(writer);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap());
    let done = done.await.unwrap();
    let run_serve = text(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{run_serve}");
    assert!(
        run_serve.contains("token the-uid is issued") && run_serve.contains("revoke it"),
        "{run_serve}"
    );
    assert!(!run_serve.contains("the-secret"), "{run_serve}");
}
