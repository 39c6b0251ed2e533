//! Tests which entry of the issuers file applies to a credential, which kind of caller it yields,
//! and when the entries are ready.

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
    // The operator entry does not allow ES256; the user entry does.
    let caller = bench.ask(&bearer("ES256", &operator)).await.unwrap();
    assert_eq!(caller.actor.kind, CallerKind::User);
}

/// Returns the kind of the caller with these claims if the operator entry requires `required`.
async fn kind_where(required: &str, claims: &Value) -> CallerKind {
    let all = "{ groups = \"cms-operators\", verified = true, level = 3 }";
    let bench = Bench::new(&FILE.replace(all, required));
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    let caller = bench.ask(&bearer("RS256", claims)).await.unwrap();
    caller.actor.kind
}

#[tokio::test]
async fn a_required_claim_is_found_by_its_path_and_by_nothing_else() {
    let roles = |value: Value| json!({"realm_access": {"roles": value}});
    let path = r#"[{ path = ["realm_access", "roles"], value = "cms-operators" }]"#;
    for (claims, is_operator) in [
        (roles(json!(["staff", "cms-operators"])), true),
        (roles(json!("cms-operators")), true),
        (roles(json!(["cms-operators2"])), false),
        (roles(json!([])), false),
        (roles(json!(null)), false),
        (roles(json!([["cms-operators"]])), false),
        (roles(json!({"cms-operators": true})), false),
        (json!({}), false),
        (json!({"realm_access": {}}), false),
        (json!({"realm_access": "cms-operators"}), false),
        (json!({"realm_access": ["cms-operators"]}), false),
        (json!({"realm_access": [{"roles": "cms-operators"}]}), false),
        (
            json!({"realm_access": null, "roles": "cms-operators"}),
            false,
        ),
        (json!({"realm_access.roles": "cms-operators"}), false),
    ] {
        let is = kind_where(path, &claims).await == CallerKind::Operator;
        assert_eq!(is, is_operator, "{claims}");
    }
    // A claim name that contains dots is one name, not a path, in both notations.
    let url = "https://cms.example.com/roles";
    for (required, claims, is_operator) in [
        (
            format!("{{ \"{url}\" = \"x\" }}"),
            json!({url: ["x"]}),
            true,
        ),
        (
            format!("[{{ path = [\"{url}\"], value = \"x\" }}]"),
            json!({url: "x"}),
            true,
        ),
        (r#"{ "a.b" = "x" }"#.into(), json!({"a": {"b": "x"}}), false),
        (r#"{ "a.b" = "x" }"#.into(), json!({"a.b": "x"}), true),
        (
            r#"[{ path = ["a", "b.c", "d"], value = 3 }]"#.into(),
            json!({"a": {"b.c": {"d": [1, 3]}}}),
            true,
        ),
        (
            r#"[{ path = ["a"], value = "x" }, { path = ["b"], value = "y" }]"#.into(),
            json!({"a": "x", "b": "y"}),
            true,
        ),
        (
            r#"[{ path = ["a"], value = "x" }, { path = ["b"], value = "y" }]"#.into(),
            json!({"a": "x"}),
            false,
        ),
    ] {
        let is = kind_where(&required, &claims).await == CallerKind::Operator;
        assert_eq!(is, is_operator, "{required} {claims}");
    }
}

#[tokio::test]
async fn a_member_named_twice_inside_a_claim_is_a_bad_credential() {
    let bench = served();
    let claims = claims(NOW).to_string();
    let header = header("RS256", "rsa").to_string();
    let with = |inner: &str| {
        let claims = claims.replacen('{', &format!("{{\"realm_access\":{inner},"), 1);
        format!("Bearer {}", Issuer::ours().sign_text(&header, &claims))
    };
    assert!(bench.ask(&with(r#"{"roles":["a"]}"#)).await.is_ok());
    let twice = with(r#"{"roles":["a"],"roles":["cms-operators"]}"#);
    assert!(matches!(
        bench.ask(&twice).await,
        Err(Rejection::Invalid(_))
    ));
}

#[tokio::test]
async fn each_fault_of_a_subject_has_a_reason_of_its_own() {
    let bench = served();
    for (subject, reason) in [
        (json!(7), "sub is not a string"),
        (json!(""), "sub is empty"),
        (json!("x".repeat(256)), "sub is longer than 255 characters"),
        (json!("x".repeat(10_000)), "longer than 8 KiB"),
        (
            json!("a\u{0}b"),
            "sub contains a character that does not print, a space at an end, or a credential",
        ),
        (
            json!("a\u{200b}b"),
            "sub contains a character that does not print, a space at an end, or a credential",
        ),
    ] {
        let answer = bench.ask(&bearer("RS256", &json!({"sub": subject}))).await;
        assert_eq!(answer, Err(Rejection::Invalid(reason)), "{subject}");
    }
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
    // A JWT that matches no entry is invalid, no matter whether keys are available.
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
async fn readiness_distinguishes_users_from_services() {
    let bench = Bench::new(FILE);
    let unavailable = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (login, cluster) = ("https://login.example.com", "https://cluster.example.com");
    let nothing = Readiness {
        users: false,
        services: false,
        unavailable: unavailable(&[login, cluster]),
    };
    assert_eq!(bench.auth.readiness(), nothing);
    // A key set without a usable key counts as unavailable.
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
async fn operators_alone_make_neither_users_nor_services_ready() {
    let (operators, _) = FILE.trim_start().split_once("\n\n").unwrap();
    let bench = Bench::new(operators);
    bench.fetcher.serve(LOGIN, Issuer::ours().jwks());
    bench.auth.refresh_due().await;
    let readiness = bench.auth.readiness();
    assert!(!readiness.users && !readiness.services && readiness.unavailable.is_empty());
}
