//! Tests that only the exact secret is recognized, and nothing similar to it.

use std::collections::BTreeSet;

use stacktoken::grpc::pb::v1;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    Client, TestServer,
    clients::details,
    introspect_request,
    requests::{outcome, refused},
};

/// Returns texts that resemble a secret: every truncation and extension, every change of one
/// character or of letter case, and the changes that people and parsers may make in transit.
fn corpus(secret: &str) -> BTreeSet<String> {
    let mut corpus = BTreeSet::new();
    for at in 1..secret.len() {
        corpus.insert(secret[..at].to_owned());
        corpus.insert(secret[at..].to_owned());
        corpus.insert(format!("{}{}", &secret[..at], &secret[at + 1..]));
        corpus.insert(format!("{} {}", &secret[..at], &secret[at..]));
    }
    for at in 0..secret.len() {
        for other in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-".chars() {
            let mut changed = secret.to_owned();
            changed.replace_range(at..=at, &other.to_string());
            corpus.insert(changed);
        }
    }
    for around in [
        " ", "\n", "\r\n", "\t", "\0", "\"", "'", "0", "=", "\u{feff}", "\u{200b}",
    ] {
        corpus.insert(format!("{around}{secret}"));
        corpus.insert(format!("{secret}{around}"));
    }
    corpus.insert(secret.to_uppercase());
    corpus.insert(secret.to_lowercase());
    corpus.insert(format!("Bearer {secret}"));
    corpus.insert(format!("{secret}{secret}"));
    corpus.insert(secret.replace('s', "ѕ"));
    corpus.insert(secret.replace("stk1_", "stk1＿"));
    corpus.insert(secret.replace("stk1_", "stk1%5F"));
    corpus.insert(secret.replace("stk1_", "stk2_"));
    corpus.insert(secret.replace("stk1_", ""));
    corpus.insert(secret.replace('0', "O"));
    corpus.insert(secret.replace('O', "0"));
    corpus.remove(secret);
    corpus
}

async fn ask(client: &mut Client, stack: &str, secret: &str) -> v1::IntrospectResponse {
    let request = introspect_request(stack, secret, &[]);
    client
        .introspection
        .introspect(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_merely_resembles_a_secret_is_active() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognized_per_second = 1_000_000.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await;
    let corpus: Vec<String> = corpus(&token.secret).into_iter().collect();
    assert!(corpus.len() > 3000, "{}", corpus.len());
    let service = server.service().await;
    let mut asking = JoinSet::new();
    for part in corpus.chunks(corpus.len().div_ceil(8)) {
        let (part, stack, mut service) = (part.to_vec(), server.stack.clone(), service.clone());
        asking.spawn(async move {
            for secret in part {
                let answer = ask(&mut service, &stack, &secret).await;
                assert!(!answer.active, "{secret:?}");
                assert_eq!(answer.reason(), v1::Reason::NotRecognized, "{secret:?}");
            }
        });
    }
    asking.join_all().await;
    assert_eq!(
        server.verdict(&token.secret).await,
        "OK",
        "the exact secret works"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unrecognized_tokens_is_refused_and_good_ones_are_not() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognized_per_second = 5.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await;
    let mut service = server.service().await;
    let mut unrecognized = 0;
    let status = loop {
        let request = introspect_request(&server.stack, "junk", &[]);
        match service.introspection.introspect(request).await {
            Ok(_) => unrecognized += 1,
            Err(status) => break status,
        }
        assert!(unrecognized < 200, "the rate limit never applies");
    };
    assert!(unrecognized >= 5, "{unrecognized}");
    assert_eq!(
        refused(&status),
        (Code::ResourceExhausted, "RATE_LIMITED".into())
    );
    let wait = details(&status).retry_info().unwrap().retry_delay.unwrap();
    assert!(!wait.is_zero() && wait.as_millis() <= 201, "{wait:?}");
    // gRPC libraries that retry automatically read the delay from this trailer.
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback.to_str().unwrap(), wait.as_millis().to_string());
    for _ in 0..20 {
        assert!(ask(&mut service, &server.stack, &token.secret).await.active);
    }
    let jwt = server.issuer.service("gateway-1", server.clock.seconds());
    let mut gateway = server.with_authorization(format!("Bearer {jwt}")).await;
    let request = introspect_request(&server.stack, "junk", &[]);
    let by_another = gateway.introspection.introspect(request).await;
    assert_eq!(
        outcome(&by_another),
        "OK",
        "another service has its own rate limit"
    );
}
