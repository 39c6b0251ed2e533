//! Tests that the reason why a credential was refused is logged at the default level for the
//! operator, but not disclosed to the caller.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tonic::{Code, Request};

use crate::{
    database_down::wait_for_log,
    served::{IssuersFolder, RunningServer, migrate, now},
    support::{ISSUER, clients::details, requests::list_request},
};

/// Returns the claims of a user with these claims added or replaced.
fn claims(other: &Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "stacktoken", "sub": "alice@example.com", "kind": "user",
        "exp": now() + 3600, "groups": ["a-group-of-hers"],
    });
    let others = other.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(others);
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_at_the_default_level_why_a_credential_was_refused() {
    let issuers_folder = IssuersFolder::new();
    let url = issuers_folder.sqlite();
    migrate(&url);
    let served = RunningServer::start_on(issuers_folder, &url, |_| {});
    served.serves().await;
    let (mut jwts, mut texts) = (Vec::new(), BTreeSet::new());
    for (at, (other, reason)) in [
        (json!({"aud": "account"}), "not for this audience"),
        (
            json!({"iss": "https://login.test/"}),
            "no entry for its issuer",
        ),
        (json!({"exp": now() - 60}), "expired"),
        (
            json!({"sub": "x".repeat(256)}),
            "sub is longer than 255 characters",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let claims = claims(&other);
        let jwt = served.issuer.sign(&claims);
        let mut client = served.client(jwt.clone()).await;
        jwts.push(jwt);
        // The credential is sent twice. The second refusal within a minute is not logged.
        let mut ids = Vec::new();
        for again in [0, 1] {
            let id = format!("refused-{at}-{again}");
            let mut request = Request::new(list_request("blt00c0ffee00c0ffee"));
            request
                .metadata_mut()
                .insert("x-request-id", id.parse().unwrap());
            let status = client.tokens.list(request).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated);
            let run_command = details(&status).request_info().unwrap().request_id.clone();
            assert_eq!(run_command, id);
            // The message to the caller is the same for every reason.
            texts.insert(status.message().to_owned());
            ids.push(id);
        }
        wait_for_log(&served, &ids[0]).await;
        let log = served.log();
        let line = log.lines().find(|line| line.contains(&ids[0])).unwrap();
        assert!(line.contains("credential refused"), "{line}");
        assert!(line.contains(reason), "{line}");
        let issuer = claims["iss"].as_str().unwrap();
        for part in ["INFO", "kid=\"test\"", &format!("iss={issuer:?}"), "aud="] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!log.contains(&ids[1]), "{log}");
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    let log = served.log();
    for hidden in ["alice", "a-group-of-hers", "xxxxxxxx"] {
        assert!(!log.contains(hidden), "{hidden}: {log}");
    }
    for part in jwts.iter().flat_map(|jwt| jwt.split('.')) {
        assert!(!log.contains(part), "a part of a JWT: {log}");
    }
}
