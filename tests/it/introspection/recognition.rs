//! Tests that a token works only with the API key of its own stack (R1), and that an answer reveals
//! nothing to a caller who guesses: three different causes give the same bytes.

use prost::Message as _;
use stacktoken::grpc::pb::v1;

use crate::support::{TestServer, frames, introspect_request, requests::INCLUDES};

const PATH: &str = "/stacktoken.v1.IntrospectionService/Introspect";
/// A well-formed secret that was never issued.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_only_with_the_key_of_its_own_stack() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let other = server.register("Other").await;
    let mut service = server.service().await;
    for (key, active) in [
        (server.stack.as_str(), true),
        (other.as_str(), false),
        ("blt00000000deadbeef", false),
        (server.stack.to_uppercase().as_str(), false),
        (format!(" {}", server.stack).as_str(), false),
        (format!("{}0", server.stack).as_str(), false),
        (&server.stack[..18], false),
        ("not a key at all", false),
    ] {
        let request = introspect_request(key, &token.secret, &[]);
        let answer = service.introspection.introspect(request).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.active, active, "{key:?}");
        if !active {
            assert_eq!(answer.reason(), v1::Reason::NotRecognized, "{key:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_answers_for_its_stack_and_for_no_person() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let request = v1::IntrospectRequest {
        include: INCLUDES.map(Into::into).to_vec(),
        ..introspect_request(&server.stack, &token.secret, &["entry.update"])
    };
    let mut service = server.service().await;
    let answer = service.introspection.introspect(request).await.unwrap();
    let answer = answer.into_inner();
    assert!(answer.active);
    assert_eq!(answer.decision(), v1::Decision::Allow);
    let stack = answer.stack.clone().unwrap();
    assert_eq!(stack.stack_api_key, server.stack);
    assert_eq!(stack.name, "Test stack");
    assert_eq!(stack.organization_uid, "org-1");
    assert_eq!(answer.token_uid, token.uid);
    assert_eq!(answer.token.as_ref().unwrap().name, "deploy");
    let bytes = answer.encode_to_vec();
    let words = String::from_utf8_lossy(&bytes);
    assert!(!words.contains("owner") && !words.contains("login.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_mistyped_and_misplaced_tokens_answer_with_the_same_bytes() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let revoked = server.token("revoked").await;
    server.revoke(&revoked.uid).await;
    let other = server.register("Other").await;
    // This text is close to the maximum size of a request.
    let long = "x".repeat(60_000);
    let mut mistyped = token.secret.clone();
    let last = if mistyped.ends_with('0') { "1" } else { "0" };
    mistyped.replace_range(50.., last);
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let authorization = format!("Bearer {jwt}");
    let channel = server.channel().await;
    for actions in [&[][..], &["entry.update"][..], &["token.create", "x.y"][..]] {
        let mut answers = Vec::new();
        for (stack, secret) in [
            (&server.stack, UNKNOWN),
            (&server.stack, mistyped.as_str()),
            (&other, token.secret.as_str()),
            (&other, revoked.secret.as_str()),
            (&server.stack, "junk"),
            (&server.stack, ""),
            (&server.stack, " "),
            (&server.stack, long.as_str()),
            (&long, token.secret.as_str()),
            (&String::new(), token.secret.as_str()),
            (&"no key: \n\u{202e}".to_owned(), token.secret.as_str()),
            (&String::new(), ""),
        ] {
            let request = introspect_request(stack, secret, actions);
            answers.push(frames::call(channel.clone(), &authorization, PATH, &request).await);
        }
        for answer in &answers[1..] {
            assert_eq!(answer, &answers[0], "{actions:?}");
        }
        assert_eq!(answers[0].status, 200);
        let decoded = v1::IntrospectResponse::decode(&answers[0].body[5..]).unwrap();
        let decision = match actions {
            [] => v1::Decision::Unspecified,
            _ => v1::Decision::Deny,
        };
        let bare = v1::IntrospectResponse {
            reason: v1::Reason::NotRecognized.into(),
            decision: decision.into(),
            ..Default::default()
        };
        assert_eq!(decoded, bare, "no other field is set");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_token_shows_only_to_who_has_its_stack_key_too() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let other = server.register("Other").await;
    let mut service = server.service().await;
    let mut ask = async |stack: &str| {
        let request = introspect_request(stack, &token.secret, &["entry.read"]);
        let answer = service.introspection.introspect(request).await.unwrap();
        answer.into_inner()
    };
    let bare = ask(&other).await;
    server.suspend().await;
    assert_eq!(ask(&other).await, bare);
    server.revoke(&token.uid).await;
    assert_eq!(ask(&other).await, bare);
    server.remove().await;
    assert_eq!(ask(&other).await, bare);
    assert_eq!(ask(&server.stack).await.reason(), v1::Reason::Revoked);
}
