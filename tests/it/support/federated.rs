//! Workloads that belong to two issuers, and federated tokens that trust them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use stacktoken::grpc::pb::v1::{self, claim_rule::Match};
use tonic::Status;

use super::{Client, TestIssuer, TestServer, introspect_request, issue_request};

/// The `iss` in assertions of CI jobs. Each assertion is valid for one exchange.
pub const CI: &str = "https://ci.test";
/// The `sub` in assertions of CI jobs.
pub const JOB: &str = "repo:octo/app:environment:production";

/// The entries for these issuers in the issuers file.
pub const ENTRIES: &str = r#"
[[issuers]]
issuer     = "https://ci.test"
audience   = "stacktoken-ci"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "ci"
provider   = "github-actions"

[[issuers]]
issuer     = "https://pods.test"
audience   = "stacktoken-pods"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "pods"
provider   = "kubernetes"
"#;

/// Returns how often a race is repeated: `STACKTOKEN_TEST_ROUNDS`, or this number.
pub fn rounds(default: usize) -> usize {
    std::env::var("STACKTOKEN_TEST_ROUNDS").map_or(default, |count| count.parse().unwrap())
}

static ASSERTIONS: AtomicU64 = AtomicU64::new(0);

/// Returns the claims of a CI job. The members of `other` override the defaults, and a `null` removes
/// a claim. Each call has a new `jti`, so that its JWT does not count as a replay.
pub fn job(now: i64, other: Value) -> Value {
    let number = ASSERTIONS.fetch_add(1, Ordering::Relaxed);
    let mut claims = json!({
        "iss": CI, "aud": "stacktoken-ci", "sub": JOB, "jti": format!("jti-{number}"),
        "iat": now, "exp": now + 600, "repository": "octo/app", "repository_id": "1",
        "repository_owner_id": "2", "environment": "production", "event_name": "push",
        "run_id": "7",
    });
    let all = claims.as_object_mut().unwrap();
    for (name, value) in other.as_object().unwrap() {
        if value.is_null() {
            all.remove(name);
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    claims
}

/// Returns the claims of a pod. Its assertion can be exchanged more than once.
pub fn pod(now: i64) -> Value {
    json!({
        "iss": "https://pods.test", "aud": "stacktoken-pods", "sub": "system:serviceaccount:cms:web",
        "iat": now, "exp": now + 600, "kubernetes.io": { "namespace": "cms",
            "pod": { "name": "web-1" }, "serviceaccount": { "name": "web", "uid": "u-1" } },
    })
}

impl TestIssuer {
    /// Returns an assertion of a CI job, a new one each time.
    pub fn job(&self, now: i64) -> String {
        self.sign(&job(now, json!({})))
    }
}

/// Returns a rule that requires this value in the claim at this path.
pub fn rule(path: &[&str], equals: &str) -> v1::ClaimRule {
    v1::ClaimRule {
        path: path.iter().map(|name| (*name).to_owned()).collect(),
        r#match: Some(Match::Equals(equals.to_owned())),
    }
}

/// Returns a federation with rules that trust the CI job.
pub fn federation() -> v1::Federation {
    v1::Federation {
        issuer: "ci".into(),
        rules: vec![
            rule(&["repository_id"], "1"),
            rule(&["repository_owner_id"], "2"),
            rule(&["environment"], "production"),
        ],
        session_for: None,
    }
}

/// Returns a federation with rules that trust the pod.
pub fn pods() -> v1::Federation {
    v1::Federation {
        issuer: "pods".into(),
        rules: vec![
            rule(&["kubernetes.io", "namespace"], "cms"),
            rule(&["kubernetes.io", "serviceaccount", "uid"], "u-1"),
        ],
        session_for: None,
    }
}

/// Returns a request to issue a federated token.
pub fn federated_request(stack: &str, name: &str) -> v1::IssueRequest {
    v1::IssueRequest {
        federation: Some(federation()),
        ..issue_request(stack, name)
    }
}

/// Returns a request to exchange an assertion for a secret of this token.
pub fn exchange_request(stack: &str, token_uid: &str) -> v1::ExchangeRequest {
    v1::ExchangeRequest {
        stack_api_key: stack.into(),
        token_uid: token_uid.into(),
        ..Default::default()
    }
}

impl TestServer {
    /// Issues a federated token that trusts the CI job, and returns the token's id.
    pub async fn federated(&self, name: &str) -> String {
        self.federated_as(name, federation()).await
    }

    /// Issues a federated token with this federation, and returns the token's id.
    pub async fn federated_as(&self, name: &str, federation: v1::Federation) -> String {
        let request = v1::IssueRequest {
            federation: Some(federation),
            ..federated_request(&self.stack, name)
        };
        let issued = self.owner().await.tokens.issue(request).await.unwrap();
        issued.into_inner().token.unwrap().token_uid
    }

    /// Creates a client for the workload with these claims.
    pub async fn workload(&self, claims: &Value) -> Client {
        let jwt = self.issuer.sign(claims);
        self.with_authorization(format!("Bearer {jwt}")).await
    }

    /// Exchanges an assertion with these claims for a secret of this token.
    pub async fn exchange(
        &self,
        claims: &Value,
        token_uid: &str,
    ) -> Result<v1::ExchangeResponse, Status> {
        let request = exchange_request(&self.stack, token_uid);
        let mut workload = self.workload(claims).await;
        let exchanged = workload.exchange.exchange(request).await;
        exchanged.map(tonic::Response::into_inner)
    }

    /// Starts a session of the CI job.
    pub async fn session(&self, token_uid: &str) -> v1::ExchangeResponse {
        let claims = job(self.clock.seconds(), json!({}));
        self.exchange(&claims, token_uid).await.unwrap()
    }

    /// Returns the reason why a secret is not active, or an empty text if it is.
    pub async fn inactive(&self, secret: &str) -> String {
        let request = introspect_request(&self.stack, secret, &[]);
        let mut service = self.service().await;
        let answer = service.introspection.introspect(request).await.unwrap();
        let answer = answer.into_inner();
        if answer.active {
            String::new()
        } else {
            answer.reason().as_str_name().replace("REASON_", "")
        }
    }
}
