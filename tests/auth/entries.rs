//! Which entry decides, what kind of caller it makes, and what the health of it is.

use serde_json::{Value, json};
use stacktoken::{
    auth::{Readiness, Rejection},
    domain::caller::CallerKind,
};

use crate::{
    corpus::{Issuer, claims, header},
    support::{Bench, NOW},
};

const FILE: &str = r#"
[[issuers]]
issuer     = "https://login.example.com"
audience   = "stacktoken"
jwks_url   = "https://login.example.com/keys"
algorithms = ["RS256"]
caller     = "operator"
required   = { groups = "cms-operators", verified = true, level = 3 }

[[issuers]]
issuer     = "https://login.example.com"
audience   = "stacktoken"
jwks_url   = "https://login.example.com/keys"
algorithms = ["RS256", "ES256"]
caller     = "user"

[[issuers]]
issuer     = "https://cluster.example.com"
audience   = "stacktoken"
jwks_url   = "https://cluster.example.com/keys"
algorithms = ["ES256"]
caller     = "service"
subjects   = ["system:serviceaccount:cms:*", "gateway"]
"#;
const LOGIN: &str = "https://login.example.com/keys";
const CLUSTER: &str = "https://cluster.example.com/keys";

fn bearer(alg: &str, changes: &Value) -> String {
    let mut claims = claims(NOW);
    let changes = changes.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(changes);
    let kid = if alg == "RS256" { "rsa" } else { "p256" };
    format!("Bearer {}", Issuer::ours().sign(&header(alg, kid), &claims))
}

fn served() -> Bench {
    let bench = Bench::new(FILE);
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    bench.fetcher.serve(CLUSTER, Issuer::ours().jwks());
    bench
}

#[tokio::test]
async fn first_entry_that_matches_decides_the_kind() {
    let bench = served();
    let operator = json!({"groups": ["staff", "cms-operators"], "verified": true, "level": 3});
    for (claims, kind) in [
        (operator.clone(), CallerKind::Operator),
        (
            json!({"groups": "cms-operators", "verified": "true", "level": "3"}),
            CallerKind::Operator,
        ),
        (
            json!({"groups": "cms-operators", "verified": true}),
            CallerKind::User,
        ),
        (
            json!({"groups": ["cms-operators2"], "verified": true, "level": 3}),
            CallerKind::User,
        ),
        (
            json!({"groups": {"cms-operators": 1}, "verified": true, "level": 3}),
            CallerKind::User,
        ),
        (json!({}), CallerKind::User),
    ] {
        let caller = bench.ask(&bearer("RS256", &claims)).await.unwrap();
        assert_eq!(caller.actor.kind, kind, "{claims}");
        assert_eq!(caller.actor.subject, "alice");
    }
    // The entry of operators does not take ES256; that of users does.
    let caller = bench.ask(&bearer("ES256", &operator)).await.unwrap();
    assert_eq!(caller.actor.kind, CallerKind::User);
}

#[tokio::test]
async fn introspect_role_is_by_subject() {
    let bench = served();
    for (subject, introspects) in [
        ("system:serviceaccount:cms:api", true),
        ("system:serviceaccount:cms:", true),
        ("gateway", true),
        ("gateway2", false),
        ("system:serviceaccount:other:api", false),
    ] {
        let claims = json!({"iss": "https://cluster.example.com", "sub": subject});
        let caller = bench.ask(&bearer("ES256", &claims)).await.unwrap();
        assert_eq!(caller.actor.kind, CallerKind::Service);
        assert_eq!(caller.introspects, introspects, "{subject}");
    }
}

#[tokio::test]
async fn entries_of_one_source_share_its_keys() {
    let bench = served();
    bench.auth.refresh_due().await;
    assert_eq!(bench.fetcher.fetches(), 2);
}

#[tokio::test]
async fn missing_keys_are_not_a_bad_credential() {
    let bench = Bench::new(FILE);
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    bench.auth.refresh_due().await;
    let service = json!({"iss": "https://cluster.example.com", "sub": "gateway"});
    let answer = bench.ask(&bearer("ES256", &service)).await;
    assert_eq!(answer, Err(Rejection::KeysUnavailable));
    assert!(bench.ask(&bearer("RS256", &json!({}))).await.is_ok());
    // What no entry could ever take is bad, keys or no keys.
    let elsewhere = json!({"iss": "https://cluster.example.com", "sub": "gateway", "aud": "x"});
    let answer = bench.ask(&bearer("ES256", &elsewhere)).await;
    assert!(matches!(answer, Err(Rejection::Invalid(_))), "{answer:?}");
}

#[tokio::test]
async fn entry_without_keys_hides_the_later_ones_of_its_issuer() {
    let file = FILE.replacen(LOGIN, "https://login.example.com/operators", 1);
    let bench = Bench::new(&file);
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    bench.auth.refresh_due().await;
    let operator = json!({"groups": "cms-operators", "verified": true, "level": 3});
    let answer = bench.ask(&bearer("RS256", &operator)).await;
    assert_eq!(answer, Err(Rejection::KeysUnavailable));
    let user = bench.ask(&bearer("RS256", &json!({}))).await.unwrap();
    assert_eq!(user.actor.kind, CallerKind::User);
}

#[tokio::test]
async fn readiness_tells_users_from_services() {
    let bench = Bench::new(FILE);
    let unavailable = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (login, cluster) = ("https://login.example.com", "https://cluster.example.com");
    let nothing = Readiness {
        users: false,
        services: false,
        unavailable: unavailable(&[login, cluster]),
    };
    assert_eq!(bench.auth.readiness(), nothing);
    // A set without a usable key is as good as none.
    bench.fetcher.serve(CLUSTER, r#"{"keys": []}"#);
    bench.auth.refresh_due().await;
    assert_eq!(bench.auth.readiness(), nothing);
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    bench.clock.advance(std::time::Duration::from_secs(5));
    bench.auth.refresh_due().await;
    let expected = Readiness {
        users: true,
        services: false,
        unavailable: unavailable(&[cluster]),
    };
    assert_eq!(bench.auth.readiness(), expected);
}

#[tokio::test]
async fn operators_alone_make_nobody_ready() {
    let (operators, _) = FILE.trim_start().split_once("\n\n").unwrap();
    let bench = Bench::new(operators);
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    bench.auth.refresh_due().await;
    let readiness = bench.auth.readiness();
    assert!(!readiness.users && !readiness.services && readiness.unavailable.is_empty());
}
