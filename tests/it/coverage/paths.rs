//! Tests other spellings of an RPC's path. The server must dispatch on exactly the path that the
//! policy has checked.

use tonic::Code;

use super::{
    FOREIGN, OPEN,
    table::{Fixture, TABLE, metadata_of, right_caller},
};
use crate::support::{
    TestServer,
    raw::{Metadata, call, outcome},
};

/// Returns other spellings that some servers would treat as this path.
fn spellings(path: &str) -> Vec<String> {
    let (service, method) = path[1..].split_once('/').unwrap();
    vec![
        format!("/{path}"),
        format!("{path}/"),
        format!("/{service}//{method}"),
        format!("/{service}/./{method}"),
        format!("/else/..{path}"),
        path.to_lowercase(),
        format!("/{service}/{}", method.to_lowercase()),
        format!("/{}/{method}", service.to_uppercase()),
        path.replacen('k', "%6b", 1).replacen('c', "%63", 1),
        path.replace('/', "%2f").replacen("%2f", "/", 1),
        format!("{path}?x=1"),
        format!("{path}?"),
        format!("{path};x=1"),
        format!("{path}%00"),
        format!("/{method}"),
        format!("/{service}"),
        format!("/{service}/"),
        format!("/{service}/{method}2"),
        format!("/{service}2/{method}"),
        "/".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_spelling_of_a_path_reaches_a_handler() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let fixture = Fixture::new(&server).await;
    let before = server.audit().await;
    let unknown = (Code::Unimplemented, "RPC_UNKNOWN".to_owned());
    for row in TABLE {
        for path in spellings(row.path) {
            for sent in [
                metadata_of(&server, right_caller(row.whom)),
                Metadata::nothing(),
            ] {
                let answered = call(&channel, &path, sent, (row.request)(&fixture)).await;
                assert_eq!(outcome(&answered), unknown, "{path}");
            }
        }
    }
    assert_eq!(server.audit().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_spelling_opens_health_or_reflection() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for open in OPEN {
        for path in spellings(open) {
            let answered = call(&channel, &path, Metadata::nothing(), Vec::new()).await;
            let unknown = (Code::Unimplemented, "RPC_UNKNOWN".to_owned());
            assert_eq!(outcome(&answered), unknown, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_or_method_that_is_not_there_is_unknown() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for path in [
        "/stacktoken.v1.TokenService/Forget",
        "/stacktoken.v1.Tokens/Issue",
        "/stacktoken.v2.TokenService/Issue",
        "/grpc.health.v1.Health/Forget",
        "/grpc.reflection.v2.ServerReflection/ServerReflectionInfo",
        "/envoy.service.auth.v3.Nothing/Check",
    ] {
        let sent = metadata_of(&server, crate::support::raw::TestCaller::Owner);
        let answered = call(&channel, path, sent, Vec::new()).await;
        let unknown = (Code::Unimplemented, "RPC_UNKNOWN".to_owned());
        assert_eq!(outcome(&answered), unknown, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_message_gets_an_error_in_the_form_of_the_contract() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    // `Check` is left out, because it is different: a message that cannot be decoded comes from one
    // of Envoy's clients, so it is denied and is not an error.
    for row in TABLE.iter().filter(|row| !FOREIGN.contains(&row.path)) {
        let sent = metadata_of(&server, right_caller(row.whom));
        // Field 1 declares two bytes, but only one follows.
        let answered = call(&channel, row.path, sent.clone(), vec![0x0a, 2, 0]).await;
        let unreadable = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
        assert_eq!(outcome(&answered), unreadable, "{}", row.path);
        let large = call(&channel, row.path, sent, vec![0; 64 * 1024 + 1]).await;
        assert_eq!(outcome(&large), unreadable, "{}", row.path);
    }
}
