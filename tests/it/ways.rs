//! Tests that responses are identical on both paths. A call that the cache can answer is handled on
//! the thread of its connection, and every other call takes the ordinary path.

use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use prost::{Message as _, bytes::Bytes};
use stacktoken::grpc::pb::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    Client, TestServer,
    clock::PANIC,
    frames::{Answer, RawRequest, framed},
    introspect_request,
    raw::TestCaller,
    requests::revoke_request,
};

const INTROSPECT: &str = "/stacktoken.v1.IntrospectionService/Introspect";
const BATCH: &str = "/stacktoken.v1.IntrospectionService/BatchIntrospect";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Makes a call three times: with the whole message at once, with a late message in two pieces, and
/// with a header that only the ordinary path reads.
async fn on_every_way(server: &TestServer, path: &'static str, message: &[u8]) -> [Answer; 3] {
    let sending = || {
        let sending = RawRequest::to(path).bearer(&TestCaller::Introspector.jwt(server));
        sending.header("x-request-id", Some("the-id"))
    };
    let whole = framed(message);
    let (first, second) = whole.split_at(whole.len() / 2);
    let pieces = [first, second].map(Bytes::copy_from_slice).to_vec();
    let late = sending().pausing(Duration::from_millis(30)).chunks(pieces);
    let ordinary = sending()
        .header("grpc-encoding", Some("identity"))
        .message(message);
    [
        sending().message(message).send(&server.address).await,
        late.send(&server.address).await,
        ordinary.send(&server.address).await,
    ]
}

/// Returns every kind of question for each of these secrets.
fn questions(server: &TestServer, secrets: &[&str]) -> Vec<v1::IntrospectRequest> {
    let include = [
        v1::IntrospectInclude::Permissions,
        v1::IntrospectInclude::Stack,
        v1::IntrospectInclude::Token,
        v1::IntrospectInclude::Labels,
    ];
    let mut questions = Vec::new();
    for secret in secrets {
        for actions in [&[][..], &["entry.update"], &["entry.read", "no.such"]] {
            let plain = introspect_request(&server.stack, secret, actions);
            let mut wide = plain.clone();
            wide.include = include.map(Into::into).to_vec();
            questions.extend([plain, wide]);
        }
        questions.push(introspect_request("blt0000000000000000", secret, &[]));
    }
    questions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_the_same_on_every_way() {
    for threads in [0, 2] {
        let server = TestServer::start_with(|tuning| {
            tuning.connection_threads = Some(threads);
        })
        .await;
        let (live, revoked) = (server.token("live").await, server.token("revoked").await);
        let mut owner = server.owner().await;
        let revoke = revoke_request(&server.stack, &revoked.uid, "a test");
        owner.tokens.revoke(revoke).await.unwrap();
        let unknown = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";
        let secrets = [&live.secret, &revoked.secret, unknown, "junk"];
        let questions = questions(&server, &secrets);
        let messages = questions
            .iter()
            .map(|asked| (INTROSPECT, asked.encode_to_vec()));
        let batch = v1::BatchIntrospectRequest {
            questions: questions
                .iter()
                .map(|asked| v1::IntrospectQuestion {
                    token: asked.token.clone(),
                    stack_api_key: asked.stack_api_key.clone(),
                    actions: asked.actions.clone(),
                    include: asked.include.clone(),
                })
                .collect(),
            ..Default::default()
        };
        let check = |secret: &str, path: &str| {
            let request = CheckRequest::from(server.request("GET", path, secret));
            (CHECK, request.encode_to_vec())
        };
        let others = [
            (BATCH, batch.encode_to_vec()),
            check(&live.secret, "/v3/content_types"),
            check(&live.secret, "/v3/nothing"),
            check("junk", "/v3/content_types"),
            // These messages are malformed or empty.
            (INTROSPECT, b"\xff".to_vec()),
            (BATCH, Vec::new()),
            (CHECK, b"\xff".to_vec()),
        ];
        for (path, message) in messages.chain(others) {
            // The first calls may read the store and record the first use, so they are not
            // compared.
            on_every_way(&server, path, &message).await;
            let [direct, late, ordinary] = on_every_way(&server, path, &message).await;
            assert_eq!(direct, late, "{path}");
            assert_eq!(direct, ordinary, "{path}");
            assert_eq!(direct.headers["x-request-id"], "the-id", "{path}");
        }
        server.stop().await.unwrap();
    }
}

async fn assert_active(client: &mut Client, question: &v1::IntrospectRequest) {
    let answer = client
        .introspection
        .introspect(question.clone())
        .await
        .unwrap();
    assert!(answer.into_inner().active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_the_cache_answers_is_a_fault_of_its_call() {
    let server = TestServer::start().await;
    let token = server.token("used").await;
    let question = introspect_request(&server.stack, &token.secret, &[]);
    let mut client = server.service().await;
    assert_active(&mut client, &question).await;
    // A call reads the clock when it arrives, and again for its verdict.
    for readings in [1, 2] {
        server.clock.panic_after_readings(readings);
        let answered = client.introspection.introspect(question.clone()).await;
        match answered {
            // If reading the clock on arrival panics, the call takes the ordinary path.
            Ok(answer) => assert!(readings == 1 && answer.into_inner().active),
            Err(status) => {
                assert_eq!((readings, status.code()), (2, Code::Internal));
                assert!(!format!("{status:?}").contains(PANIC));
                // The client sent no request id, so the server has generated one. The headers and
                // the details contain the same id.
                let info = status.get_details_request_info().unwrap();
                assert_eq!(
                    status.metadata().get("x-request-id").unwrap(),
                    &*info.request_id
                );
            }
        }
        // The connection is still usable.
        assert_active(&mut client, &question).await;
    }
    server.stop().await.unwrap();
}
