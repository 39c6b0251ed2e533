//! Service account tokens of a real API server, recorded with its keys by `.ci/kubernetes --record`.
//! They have expired long ago, so the clock of the test is set to when they were issued.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde::Deserialize;
use serde_json::Value;
use stacktoken::grpc::pb::v1;
use tonic::Code;

use super::refusal;
use crate::support::{
    TestServer,
    federated::{exchange_request, rule},
};

/// The recorded tokens, each with a name that says what it is.
#[derive(Deserialize)]
struct Recorded {
    service_account_uid: String,
    exchanged: BTreeMap<String, String>,
    refused: BTreeMap<String, String>,
    invalid: BTreeMap<String, String>,
}

fn claims(jwt: &str) -> Value {
    let payload = BASE64.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn entry(keys: &Path) -> String {
    format!(
        "\n[[issuers]]\nissuer = \"https://kubernetes.default.svc.cluster.local\"\n\
         audience = \"https://tokens.example.com/east\"\njwks_file = \"{}\"\n\
         algorithms = [\"RS256\"]\ncaller = \"workload\"\nname = \"east\"\n\
         provider = \"kubernetes\"\n",
        keys.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_tokens_of_a_real_cluster_are_exchanged_by_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kubernetes");
    let recorded = fs::read(folder.join("tokens.json")).unwrap();
    let recorded: Recorded = serde_json::from_slice(&recorded).unwrap();
    let server = TestServer::start_trusting(&entry(&folder.join("jwks.json"))).await;
    let all = [&recorded.exchanged, &recorded.refused, &recorded.invalid];
    let issued = all.iter().flat_map(|named| named.values());
    let latest = issued.map(|jwt| claims(jwt)["iat"].as_i64().unwrap()).max();
    let ahead = latest.unwrap() - server.clock.seconds();
    let ahead = Duration::from_secs(ahead.try_into().unwrap());
    let federation = v1::Federation {
        issuer: "east".into(),
        rules: vec![
            rule(&["kubernetes.io", "namespace"], "cms"),
            rule(
                &["kubernetes.io", "serviceaccount", "uid"],
                &recorded.service_account_uid,
            ),
        ],
        session_for: None,
    };
    let uid = server.federated_as("publisher", federation).await;
    server.clock.advance(ahead);
    let exchange = async |jwt: &str| {
        let mut workload = server.with_authorization(format!("Bearer {jwt}")).await;
        let request = exchange_request(&server.stack, &uid);
        let exchanged = workload.exchange.exchange(request).await;
        exchanged.map(tonic::Response::into_inner)
    };
    for (name, jwt) in &recorded.exchanged {
        let session = exchange(jwt).await.unwrap();
        let answer = server.introspect(&session.secret, &["entry.read"]).await;
        assert_eq!(answer.decision(), v1::Decision::Allow, "{name}");
        let subject = answer.session.unwrap().subject;
        assert!(
            subject.starts_with("namespace cms service account publisher"),
            "{name}: {subject}"
        );
    }
    let refused = (Code::PermissionDenied, "EXCHANGE_REFUSED".to_owned());
    for (name, jwt) in &recorded.refused {
        let status = exchange(jwt).await.unwrap_err();
        assert_eq!(refusal(&status), refused, "{name}");
    }
    for (name, jwt) in &recorded.invalid {
        let status = exchange(jwt).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}");
    }
    // Without the recorded clock, none of them is a credential.
    server.clock.advance(Duration::from_hours(24));
    for (name, jwt) in &recorded.exchanged {
        let status = exchange(jwt).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}");
    }
}
