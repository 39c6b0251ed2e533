//! Tests edge cases of the protocol: requests that are not gRPC calls, superfluous messages, and
//! errors that must fit the header limits of clients and proxies.

use http::{HeaderMap, Method};
use prost::{Message as _, bytes::Bytes};
use stacktoken::auth::policy::{self, RULES};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    coverage::table::{Fixture, TABLE, right_caller},
    support::{
        TestServer,
        clients::reason,
        database::eventually,
        frames::{Answer, RawRequest, framed},
        introspect_request, issue_request,
        raw::{TestCaller, methods, path_of},
        requests::{list_request, update_request},
    },
    wire::{self, RawConnection},
};
use stacktoken::grpc::pb::{audit, v1};

const INTROSPECT: &str = "/stacktoken.v1.IntrospectionService/Introspect";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// The maximum size of an error's trailers, as HTTP/2 counts it (RFC 9113 §6.5.2).
const MOST: usize = 8_000;

/// Returns the sum of `rpc_server_call_duration_seconds_count` over the lines with these labels.
async fn counted(server: &TestServer, labels: &[(&str, &str)]) -> u64 {
    let text = server.metrics().await;
    let lines = text.lines().filter(|line| {
        line.starts_with("rpc_server_call_duration_seconds_count{")
            && labels
                .iter()
                .all(|(name, value)| line.contains(&format!("{name}=\"{value}\"")))
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn status(answer: &Answer) -> Status {
    let headers = answer.trailers.as_ref().unwrap_or(&answer.headers);
    Status::from_header_map(headers).expect("a gRPC status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_no_grpc_call_gets_an_http_status() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let call = |path| RawRequest::to(path).bearer(&jwt).message(&[]);
    for path in [
        INTROSPECT,
        HEALTH,
        "/",
        "/stacktoken.v1.TokenService/Nothing",
    ] {
        for method in [Method::GET, Method::PUT, Method::OPTIONS, Method::DELETE] {
            let sending = call(path).method(method.clone());
            let answer = sending.send(&server.address).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], "POST");
            assert!(!answer.headers.contains_key("grpc-status"));
        }
        for content_type in [
            None,
            Some("application/json"),
            Some("application/grpc-web+proto"),
            Some("application/grpc+json"),
            Some("text/html"),
        ] {
            let sending = call(path).header("content-type", content_type);
            let answer = sending.send(&server.address).await;
            assert_eq!(answer.status, 415, "{content_type:?} {path}");
            assert_eq!(answer.headers["accept"], "application/grpc");
            assert!(!answer.headers.contains_key("grpc-status"));
        }
    }
    for content_type in ["application/grpc+proto", "application/grpc; charset=utf-8"] {
        let sending = call(HEALTH).header("content-type", Some(content_type));
        let answer = sending.send(&server.address).await;
        assert_eq!(
            answer.trailers.unwrap()["grpc-status"],
            "0",
            "{content_type}"
        );
    }
    let other = |why| [("rpc_method", "_OTHER"), ("error_type", why)];
    assert_eq!(counted(&server, &other("HTTP_405")).await, 16);
    assert_eq!(counted(&server, &other("HTTP_415")).await, 20);
}

/// Returns the RPCs to which a client sends exactly one message.
fn unary() -> Vec<&'static str> {
    let rules = RULES.iter().filter(|rule| !rule.takes_stream);
    rules.map(|rule| rule.path).collect()
}

#[test]
fn the_policy_knows_to_which_rpcs_a_client_sends_a_stream() {
    for method in methods() {
        let rule = policy::rule(&path_of(&method)).unwrap();
        assert_eq!(
            rule.takes_stream,
            method.is_client_streaming(),
            "{}",
            rule.path
        );
    }
    let streams = RULES.len() - unary().len();
    // The streaming RPCs are `Watch` and both versions of reflection.
    assert_eq!(streams, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_message_in_a_unary_call_is_refused_and_nothing_is_done() {
    let server = TestServer::start().await;
    let world = Fixture::new(&server).await;
    let outside = server.outside().await;
    let before = outside.dump().await;
    for path in unary() {
        let row = TABLE.iter().find(|row| row.path == path);
        let message = row.map_or_else(Vec::new, |row| (row.request)(&world));
        let jwt = row.map(|row| right_caller(row.whom).jwt(&server));
        let jwt = jwt.unwrap_or_default();
        let (one, two) = (framed(&message), framed(&[]));
        let at_once = Bytes::from([&one[..], &two[..]].concat());
        let apart = [one.clone(), two];
        let cut = [
            at_once.slice(..one.len() + 2),
            at_once.slice(one.len() + 2..),
        ];
        for chunks in [vec![at_once.clone()], apart.to_vec(), cut.to_vec()] {
            let sending = RawRequest::to(path).bearer(&jwt).chunks(chunks);
            let status = status(&sending.send(&server.address).await);
            assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
            assert_eq!(reason(&status), "INVALID_FIELD", "{path}");
            assert!(
                status.message().contains("more than one message"),
                "{path}: {status:?}"
            );
        }
    }
    assert_eq!(outside.dump().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoding_that_is_not_read_is_named_with_those_that_are() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let with = async |path: &'static str, encoding: &str| {
        let sending = RawRequest::to(path).bearer(&jwt).message(&[]);
        let sending = sending.header("grpc-encoding", Some(encoding));
        sending.send(&server.address).await
    };
    for path in [INTROSPECT, HEALTH] {
        for encoding in ["gzip", "zstd", "x-own.1"] {
            let answer = with(path, encoding).await;
            let status = status(&answer);
            assert_eq!(status.code(), Code::Unimplemented, "{path} {encoding}");
            assert_eq!(reason(&status), "ENCODING_UNSUPPORTED");
            assert!(
                status.message().contains(&format!(" {encoding},")),
                "{status:?}"
            );
            assert_eq!(answer.headers["grpc-accept-encoding"], "identity");
            crate::support::raw::require_form(&status, path);
        }
        let identity = with(path, "identity").await;
        assert_eq!(status(&identity).code(), Code::Ok, "{path}");
    }
    // If the value is not a valid name, the error does not repeat it.
    let token = server.token("sent in the wrong place").await;
    for odd in [token.secret.as_str(), "g zip", &"z".repeat(33)] {
        let status = status(&with(INTROSPECT, odd).await);
        assert_eq!(reason(&status), "ENCODING_UNSUPPORTED");
        assert!(!status.message().contains(odd), "{status:?}");
    }
    // An unknown RPC is reported as such, no matter which encoding the call uses.
    let unknown = with("/stacktoken.v1.TokenService/Nothing", "gzip").await;
    assert_eq!(reason(&status(&unknown)), "RPC_UNKNOWN");
}

/// Returns the size of headers as HTTP/2 counts it, including `:status`.
fn size(headers: &HeaderMap) -> usize {
    let size = |name: &str, value: usize| name.len() + value + 32;
    let fields = headers.iter();
    let sizes = fields.map(|(name, value)| size(name.as_str(), value.len()));
    sizes.sum::<usize>() + size(":status", 3)
}

/// Returns requests with as many violations as possible. Each violation has the longest path or
/// text.
fn faulty(server: &TestServer) -> Vec<(&'static str, TestCaller, Vec<u8>)> {
    let many = |text: &str| vec![text.to_owned(); 100];
    let odd = "é".repeat(40);
    let audit = audit::v1::ListRequest {
        methods: many(&odd),
        kinds: vec![99; 100],
        outcomes: vec![99; 100],
        error_reasons: many(&odd),
        token_uids: many(&odd),
        actors: vec![audit::v1::ActorFilter::default(); 100],
        page_token: "ÿ".repeat(1000),
        request_id: odd.clone(),
        call_id: odd.clone(),
        ..Default::default()
    };
    let paths = vec!["permissions.other"; 2000];
    let update = update_request(&server.stack, "", &paths, v1::Token::default());
    let actions = vec!["%%%"; 20];
    let mut introspect = introspect_request(&server.stack, "x", &actions);
    for action in &mut introspect.actions {
        action.branch = "{\"'`<>?#%}".repeat(20);
        action.branch_alias = "日本".repeat(50);
    }
    introspect.min_revision = "漢".repeat(500);
    let mut issue = issue_request(&server.stack, &"漢".repeat(500));
    // The path of the violation quotes the key, and percent-encoding takes twelve bytes per
    // character.
    let label = |at: usize| (format!("{}{at}", "\u{1f980}".repeat(61)), "\n".to_owned());
    issue.labels = (0..40).map(label).collect();
    vec![
        (
            "/stacktoken.audit.v1.AuditService/List",
            TestCaller::Operator,
            audit.encode_to_vec(),
        ),
        (
            "/stacktoken.v1.TokenService/Update",
            TestCaller::Owner,
            update.encode_to_vec(),
        ),
        (
            INTROSPECT,
            TestCaller::Introspector,
            introspect.encode_to_vec(),
        ),
        (
            "/stacktoken.v1.TokenService/Issue",
            TestCaller::Owner,
            issue.encode_to_vec(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trailers_of_an_error_fit_whatever_is_wrong_and_say_how_much_more_there_is() {
    let server = TestServer::start().await;
    for (path, part, message) in faulty(&server) {
        let sending = RawRequest::to(path)
            .bearer(&part.jwt(&server))
            .message(&message);
        let sending = sending.header("x-request-id", Some(&"r".repeat(64)));
        let answer = sending.send(&server.address).await;
        let size = size(&answer.headers) + answer.trailers.as_ref().map_or(0, size);
        assert!(size < MOST, "{path}: {size}");
        let status = status(&answer);
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
        let bad = status.get_details_bad_request().unwrap();
        let told = bad.field_violations.len();
        assert!(told >= 3, "{path}: {told}");
        let last = &bad.field_violations[told - 1].description;
        assert!(last.contains("more faults"), "{path}: {last}");
        assert!(status.message().contains(" more"), "{path}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_message_of_an_error_is_percent_encoded_once() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Owner.jwt(&server);
    // tonic itself creates these errors, and the server adds details to them.
    let unreadable = [&[0x0a, 2, 0][..], &[0xff; 9], &[0; 64 * 1024 + 1]];
    for message in unreadable {
        let sending = RawRequest::to("/stacktoken.v1.TokenService/Issue");
        let sending = sending.bearer(&jwt).message(message);
        let answer = sending.send(&server.address).await;
        let status = status(&answer);
        assert_eq!(reason(&status), "INVALID_FIELD");
        assert!(!status.message().contains('%'), "{status:?}");
        let sent = answer.headers["grpc-message"].to_str().unwrap();
        assert!(sent.contains("%20") && !sent.contains("%25"), "{sent}");
    }
}

/// Returns how many `Introspect` calls were counted with this status code.
async fn introspections(server: &TestServer, code: &str) -> u64 {
    let method = ("rpc_method", &INTROSPECT[1..]);
    counted(server, &[method, ("rpc_response_status_code", code)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_client_cancels_is_counted_as_cancelled() {
    let server = TestServer::start().await;
    let jwt = TestCaller::Introspector.jwt(&server);
    let cancelled = async |count| {
        eventually("it is counted", async || {
            (introspections(&server, "CANCELLED").await == count).then_some(())
        })
        .await;
    };
    // The client cancels before the message, in the middle of the message, and by closing the
    // connection.
    let mut wire = RawConnection::connected(&server.address).await;
    wire.send(&wire::call_as(1, INTROSPECT, &jwt)).await;
    wire.send(&wire::reset(1)).await;
    cancelled(1).await;
    wire.send(&wire::call_as(3, INTROSPECT, &jwt)).await;
    wire.send(&wire::data(3, &[0, 0, 0, 0, 9, 1])).await;
    wire.send(&wire::reset(3)).await;
    cancelled(2).await;
    wire.send(&wire::call_as(5, INTROSPECT, &jwt)).await;
    wire.send(&wire::ping()).await;
    wire.next_frame_of(wire::PING).await.unwrap();
    drop(wire);
    cancelled(3).await;
    // A change whose message is complete continues after the cancellation, and is counted once.
    let outside = server.outside().await;
    outside.run("BEGIN IMMEDIATE").await;
    let issue = issue_request(&server.stack, "left alone").encode_to_vec();
    let path = "/stacktoken.v1.TokenService/Issue";
    let mut wire = RawConnection::connected(&server.address).await;
    wire.send(&wire::call_as(1, path, &TestCaller::Owner.jwt(&server)))
        .await;
    wire.send(&wire::message(1, &issue)).await;
    wire.send(&wire::ping()).await;
    wire.next_frame_of(wire::PING).await.unwrap();
    // The change runs on a different thread than the connection, and nothing shows that it has
    // begun.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    wire.send(&wire::reset(1)).await;
    let issues = [("rpc_method", &path[1..])];
    eventually("it is counted", async || {
        (counted(&server, &issues).await == 1).then_some(())
    })
    .await;
    outside.run("COMMIT").await;
    eventually("the token is issued", async || {
        let mut owner = server.owner().await;
        let listed = owner
            .tokens
            .list(list_request(&server.stack))
            .await
            .unwrap();
        (listed.into_inner().tokens.len() == 1).then_some(())
    })
    .await;
    let all = [("rpc_response_status_code", "CANCELLED")];
    assert_eq!(counted(&server, &all).await, 4);
    assert_eq!(introspections(&server, "INVALID_ARGUMENT").await, 0);
}
