//! Tests `exchange` and related commands: where they take a workload's JWT from, and what they
//! print.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output},
    thread::{self, JoinHandle},
};

use prost::Message as _;
use stacktoken::grpc::pb::v1;

use crate::{
    program::{folder, program, text},
    stub::{Reply, Stub},
};

const STACK: &str = "blt00c0ffee00c0ffee";
const SECRET: &str = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZXBvOm9jdG8vYXBwIn0.c2ln";

async fn exchanging() -> Stub {
    let stub = Stub::start().await;
    let answer = v1::ExchangeResponse {
        secret: SECRET.into(),
        token_uid: "the-uid".into(),
        expires_at: Some(prost_types::Timestamp {
            seconds: 60,
            nanos: 0,
        }),
        ..Default::default()
    };
    stub.reply(Reply::Message(answer.encode_to_vec()));
    stub
}

async fn run(stub: &Stub, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = program();
    command.args([
        "exchange",
        "--stack",
        STACK,
        "--server",
        &stub.address.to_string(),
    ]);
    command.args(more);
    prepare(&mut command);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Serves one answer of GitHub's endpoint for JWTs. Returns the URL, and the request that was
/// received.
fn github(status: &str, body: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/jwt?api-version=2.0",
        listener.local_addr().unwrap()
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = vec![0; 8192];
        let length = stream.read(&mut head).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head[..length].to_vec()).unwrap()
    });
    (url, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_jwt_comes_from_a_variable_or_a_file_and_only_the_secret_is_printed() {
    let stub = exchanging().await;
    let folder = folder();
    let file = folder.path().join("token");
    fs::write(&file, format!("{JWT}\n")).unwrap();
    let named = |flag: &str| format!("{flag}={}", file.display());
    for more in [
        vec!["--gitlab".to_owned()],
        vec!["--gitlab=OTHER".to_owned()],
        vec![named("--kubernetes")],
        vec![named("--jwt-file")],
    ] {
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        let done = run(&stub, &more, |command| {
            command.env("STACKTOKEN_ID_TOKEN", JWT).env("OTHER", JWT);
        })
        .await;
        assert_eq!(text(&done.stdout), format!("{SECRET}\n"), "{done:?}");
        assert_eq!(stub.header("authorization"), format!("Bearer {JWT}"));
        let told = text(&done.stderr);
        assert_eq!(
            told,
            "the secret of token the-uid lives until 1970-01-01T00:01:00Z\n"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_github_requests_its_jwt_and_masks_the_secret() {
    let stub = exchanging().await;
    let body = format!(r#"{{"count":1,"value":"{JWT}"}}"#);
    let (url, asked) = github("200 OK", &body);
    let more = ["--github", "--audience", "https://tokens.example.com"];
    let done = run(&stub, &more, |command| {
        command.env("ACTIONS_ID_TOKEN_REQUEST_URL", url);
        command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job");
    })
    .await;
    let asked = asked.join().unwrap();
    let line = "GET /jwt?api-version=2.0&audience=https%3A%2F%2Ftokens.example.com HTTP/1.1\r\n";
    assert!(asked.starts_with(line), "{asked}");
    assert!(
        asked.contains("authorization: Bearer of-the-job\r\n"),
        "{asked}"
    );
    assert_eq!(text(&done.stdout), format!("{SECRET}\n"), "{done:?}");
    assert_eq!(stub.header("authorization"), format!("Bearer {JWT}"));
    let told = text(&done.stderr);
    assert!(
        told.starts_with(&format!("::add-mask::{SECRET}\n")),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_github_is_an_outage_and_a_refusal_is_none() {
    let stub = exchanging().await;
    for (status, body, code) in [
        ("500 Oops", "", 5),
        ("403 Forbidden", "", 1),
        ("200 OK", "{}", 1),
        (
            "200 OK",
            r#"{"value":"stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO"}"#,
            2,
        ),
    ] {
        let (url, asked) = github(status, body);
        let done = run(&stub, &["--github", "--audience", "x"], |command| {
            command.env("ACTIONS_ID_TOKEN_REQUEST_URL", url);
            command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job");
        })
        .await;
        asked.join().unwrap();
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        let told = text(&done.stderr);
        assert!(told.starts_with("stacktoken: --github"), "{told}");
        assert!(
            !told.contains("zzzz") && !told.contains("of-the-job"),
            "{told}"
        );
        assert_eq!(text(&done.stdout), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_github_has_no_default_audience() {
    let stub = exchanging().await;
    for more in [vec!["--github"], vec!["--github", "--audience", ""]] {
        let done = run(&stub, &more, |command| {
            command.env("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/jwt");
            command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-job");
        })
        .await;
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        let told = text(&done.stderr);
        assert!(told.contains("--audience is required"), "{told}");
        assert!(told.contains("STACKTOKEN_AUDIENCE"), "{told}");
    }
}

/// A server of the previous version does not know the field `federation`, so it drops the field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_token_in_place_of_a_federated_one_is_not_taken_for_one() {
    let stub = Stub::start().await;
    let answer = v1::IssueResponse {
        secret: SECRET.into(),
        token: Some(v1::Token {
            token_uid: "the-uid".into(),
            stack_api_key: STACK.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    stub.reply(Reply::Message(answer.encode_to_vec()));
    let server = stub.address.to_string();
    for output in ["text", "json"] {
        let mut command = program();
        command.args(["issue", "--stack", STACK, "--server", &server]);
        command.args(["--name", "ci", "--access", "read", "--expires", "1h"]);
        command.args(["--issuer", "ci", "--claim", "sub=publisher"]);
        command.args(["--output", output]);
        command.env("STACKTOKEN_JWT", JWT);
        let done = tokio::task::spawn_blocking(move || command.output().unwrap());
        let done = done.await.unwrap();
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert_eq!(text(&done.stdout), "");
        let told = text(&done.stderr);
        let revoke = format!("revoke it (stacktoken revoke --stack {STACK} --token the-uid)");
        assert!(told.contains(&revoke), "{told}");
        assert!(!told.contains(SECRET), "{told}");
    }
}
