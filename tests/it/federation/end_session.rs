//! `EndSession`: whoever has the secret of a session may end it, and learns nothing by that.

use std::time::{Duration, Instant};

use prost::Message as _;
use stacktoken::grpc::pb::{
    admin::v1::SuspendRequest,
    audit::v1::{AuditEvent, ListRequest},
    v1,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    task::JoinSet,
};
use tonic::Code;

use super::{live, refusal};
use crate::support::{
    TestServer,
    clients::fields,
    raw::{Metadata, TestCaller, call},
    requests::{overlap_for, rotate_request},
    watching::{Watching, subject},
};

const PATH: &str = "/stacktoken.v1.ExchangeService/EndSession";
/// A secret that no server has issued, with a right checksum.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

fn request(secret: &str) -> v1::EndSessionRequest {
    v1::EndSessionRequest {
        secret: secret.into(),
    }
}

async fn rows(server: &TestServer) -> Vec<AuditEvent> {
    let mut events = server.audit().await;
    events.retain(|event| event.method == PATH[1..]);
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_ends_its_own_session_with_its_secret_alone() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let (own, other) = (server.session(&uid).await, server.session(&uid).await);
    assert_eq!(server.inactive(&own.secret).await, "");
    let mut watching = Watching::open(&server.service().await, "").await.unwrap();
    let mut job = server.anonymous().await;
    let spaced = request(&format!(" {}\n", own.secret));
    let ended = job.exchange.end_session(spaced).await.unwrap();
    assert!(ended.into_inner().ended);
    assert_eq!(server.inactive(&own.secret).await, "REVOKED");
    assert_eq!(server.inactive(&other.secret).await, "");
    assert_eq!(live(&server, &uid).await, 1);
    assert_eq!(server.see(&uid).await.state(), v1::TokenState::Active);
    assert_eq!(subject(&watching.changed().await), format!("token {uid}"));
    let rows = rows(&server).await;
    let [row] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    let actor = row.actor.clone().unwrap();
    assert_eq!(actor.kind(), v1::CallerKind::Workload);
    assert_eq!(
        (actor.issuer.as_str(), actor.subject.as_str()),
        ("session", "repo octo/app run 7")
    );
    assert_eq!(row.token_uid, uid);
    let names: Vec<_> = row.details.keys().map(String::as_str).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let [issued_at, expires_at] = ["issued_at", "expires_at"].map(|name| &row.details[name]);
    let start = server.audit().await.into_iter();
    let mut start = start.filter(|event| event.method.ends_with("/Exchange"));
    assert!(start.any(|event| event.details["expires_at"] == *expires_at));
    assert!(issued_at < expires_at, "{issued_at} {expires_at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_tells_what_the_text_was_and_nothing_but_a_live_session_ends() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let uid = server.federated("ci").await;
    let session = server.session(&uid).await.secret;
    let rotated = server.issue("rotated").await;
    let rotate = rotate_request(
        &server.stack,
        &rotated.token.unwrap().token_uid,
        overlap_for(3600),
    );
    let newer = server.owner().await.tokens.rotate(rotate).await.unwrap();
    let newer = newer.into_inner().secret;
    let revoked = server.issue("revoked").await;
    server.revoke(&revoked.token.unwrap().token_uid).await;
    let expired = server.session(&uid).await.secret;
    server.clock.advance(Duration::from_mins(14));
    let late = server.session(&uid).await.secret;
    server.clock.advance(Duration::from_mins(2));
    let texts = [
        late.as_str(),
        late.as_str(),
        session.as_str(),
        expired.as_str(),
        rotated.secret.as_str(),
        newer.as_str(),
        revoked.secret.as_str(),
        UNKNOWN,
        "junk",
        " ",
    ];
    let before = server.audit().await.len();
    for text in texts {
        let message = request(text).encode_to_vec();
        let answer = call(&channel, PATH, Metadata::nothing(), message).await;
        assert_eq!(answer.unwrap(), [8, 1], "{text}");
    }
    assert_eq!(server.inactive(&late).await, "REVOKED");
    for secret in [&rotated.secret, &newer] {
        assert_eq!(server.inactive(secret).await, "", "an ordinary token");
    }
    assert_eq!(rows(&server).await.len(), 1, "what ended one session");
    assert_eq!(server.audit().await.len(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_beside_the_secret_is_not_read() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let uid = server.federated("ci").await;
    for sent in [
        Metadata::bearer("not a JWT"),
        Metadata::bearer(UNKNOWN),
        Metadata::bearer(&TestCaller::Operator.jwt(&server)),
        Metadata::bearer(&TestCaller::Workload.jwt(&server)),
    ] {
        let secret = server.session(&uid).await.secret;
        let message = request(&secret).encode_to_vec();
        call(&channel, PATH, sent, message).await.unwrap();
        assert_eq!(server.inactive(&secret).await, "REVOKED");
    }
    let actors = rows(&server).await.into_iter();
    let issuers: Vec<_> = actors.map(|row| row.actor.unwrap().issuer).collect();
    assert_eq!(issuers, ["session"; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_a_suspended_stack_can_be_ended_and_a_missing_secret_is_named() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let session = server.session(&uid).await;
    let suspend = SuspendRequest {
        stack_api_key: server.stack.clone(),
        ..Default::default()
    };
    let mut operator = server.operator().await;
    operator.stacks.suspend(suspend).await.unwrap();
    let mut job = server.anonymous().await;
    job.exchange
        .end_session(request(&session.secret))
        .await
        .unwrap();
    assert_eq!(live(&server, &uid).await, 0);
    let missing = job.exchange.end_session(request("")).await.unwrap_err();
    assert_eq!(fields(&missing), ["secret"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_one_network_have_a_rate_limit_and_leave_no_rows() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 30.try_into().unwrap();
    })
    .await;
    let mut job = server.anonymous().await;
    for _ in 0..30 {
        job.exchange.end_session(request("junk")).await.unwrap();
    }
    let refused = job.exchange.end_session(request("junk")).await.unwrap_err();
    let expected = (Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    assert_eq!(refusal(&refused), expected);
    // Others keep their own limits, and the refusal has no row, which a graceful stop would write.
    server.issue("by the owner").await;
    let (data_dir, clock) = (server.data_dir.clone(), server.clock.clone());
    let stack = server.stack.clone();
    server.stop().await.unwrap();
    let mut server = TestServer::start_in(data_dir, clock, |_| {}).await;
    server.stack = stack;
    assert_eq!(rows(&server).await, []);
    let mut operator = server.operator().await;
    let all = operator.audit.list(ListRequest::default()).await.unwrap();
    let mut events = all.into_inner().events.into_iter();
    assert!(events.all(|event| event.method != PATH[1..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_a_network_of_strangers_stays_low_if_that_of_callers_is_high() {
    let server = TestServer::start().await;
    let mut job = server.anonymous().await;
    let mut refused = None;
    for _ in 0..400 {
        if let Err(status) = job.exchange.end_session(request("junk")).await {
            refused = Some(status);
            break;
        }
    }
    let expected = (Code::ResourceExhausted, "RATE_LIMITED".to_owned());
    assert_eq!(refusal(&refused.expect("a limit")), expected);
    server.issue("by the owner").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_has_expired_costs_no_transaction() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let session = server.session(&uid).await;
    server.clock.advance(Duration::from_secs(15 * 60 + 3));
    let mut job = server.anonymous().await;
    let outside = server.outside().await;
    // As long as this lock is held, a transaction would wait.
    outside.run("BEGIN IMMEDIATE").await;
    let expired = job.exchange.end_session(request(&session.secret));
    let ended = tokio::time::timeout(Duration::from_secs(2), expired).await;
    ended.expect("an answer without a transaction").unwrap();
    outside.run("COMMIT").await;
}

/// Sends a secret to `/oauth2/revoke` from an address of this machine. Returns the line with the
/// status.
async fn revoke_from(from: [u8; 4], address: String, secret: String) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let (form, kind) = (format!("token={secret}"), crate::support::http::FORM);
    let length = form.len();
    let head = format!(
        "POST /oauth2/revoke HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(form.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_secret_that_is_replayed_holds_up_no_other_change_of_the_stack() {
    let server = TestServer::start().await;
    let uid = server.federated("ci").await;
    let (dead, fresh) = (server.session(&uid).await, server.session(&uid).await);
    let mut job = server.anonymous().await;
    let end = request(&dead.secret);
    job.exchange.end_session(end).await.unwrap();
    let outside = server.outside().await;
    // As long as this lock is held, no change is committed, so all of them wait.
    outside.run("BEGIN IMMEDIATE").await;
    let began = Instant::now();
    let mut replays = JoinSet::new();
    for number in 0..200_u8 {
        let (address, secret) = (server.http_address.clone(), dead.secret.clone());
        replays.spawn(revoke_from([127, 0, 0, 2 + number / 40], address, secret));
    }
    for _ in 0..191 {
        let refused = replays.join_next().await.unwrap().unwrap();
        assert!(refused.contains(" 503 "), "{refused}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let unlock = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        outside.run("COMMIT").await;
    };
    let (first_use, _, ()) =
        tokio::join!(server.inactive(&fresh.secret), server.session(&uid), unlock);
    assert_eq!(first_use, "");
    assert_eq!(rows(&server).await.len(), 1);
}
