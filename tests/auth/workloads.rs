//! Tests the entries of the issuers file for workloads, and which assertions identify a workload.

use std::{fs, path::Path, time::Duration};

use insta::assert_snapshot;
use serde_json::{Value, json};
use stacktoken::{
    auth::{ConnectionCredentials, KeySource, Rejection, parse},
    domain::{
        caller::{Caller, CallerKind},
        clock::Clock as _,
        federation::{Provider, Replay, Unverified, VerifyWorkload},
        stack::StackKey,
    },
};

use crate::{
    corpus::{Issuer, header},
    support::{Bench, NOW},
};

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
const GITHUB_KEYS: &str = "https://token.actions.githubusercontent.com/.well-known/jwks";
const FILE: &str = r#"
[[issuers]]
issuer     = "https://token.actions.githubusercontent.com"
audience   = "stacktoken-ci"
jwks_url   = "https://token.actions.githubusercontent.com/.well-known/jwks"
algorithms = ["RS256"]
caller     = "workload"
name       = "github"
provider   = "github-actions"
stacks     = ["blt00c0ffee00c0ffee"]

[[issuers]]
issuer     = "https://kubernetes.default.svc.cluster.local"
audience   = "stacktoken-east"
jwks_url   = "https://east.example.com/openid/v1/jwks"
algorithms = ["RS256"]
caller     = "workload"
name       = "east"
provider   = "kubernetes"

[[issuers]]
issuer     = "https://kubernetes.default.svc.cluster.local"
audience   = "stacktoken-west"
jwks_url   = "https://west.example.com/openid/v1/jwks"
algorithms = ["RS256"]
caller     = "workload"
name       = "west"
provider   = "kubernetes"
replay     = "once"

[[issuers]]
issuer     = "https://kubernetes.default.svc.cluster.local"
audience   = "stacktoken-services"
jwks_url   = "https://west.example.com/openid/v1/jwks"
algorithms = ["RS256"]
caller     = "service"
subjects   = ["*"]

[[issuers]]
issuer     = "https://spire.example.org"
audience   = "stacktoken-spiffe"
jwks_url   = "https://spire.example.org/keys"
algorithms = ["ES256"]
caller     = "workload"
name       = "mesh"
provider   = "spiffe"
"#;

fn served() -> Bench {
    let bench = Bench::new(FILE);
    bench.fetcher.serve(GITHUB_KEYS, Issuer::ours().jwks());
    for (host, issuer) in [("east", Issuer::ours()), ("west", Issuer::other())] {
        let keys = format!("https://{host}.example.com/openid/v1/jwks");
        bench.fetcher.serve(&keys, issuer.jwks());
    }
    let svid = Issuer::ours()
        .jwks()
        .replace(r#""use":"sig""#, r#""use":"jwt-svid""#);
    bench.fetcher.serve("https://spire.example.org/keys", svid);
    bench
}

fn github() -> Value {
    json!({
        "iss": GITHUB, "aud": "stacktoken-ci", "sub": "repo:octo/app:environment:production",
        "jti": "9c1e", "iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 300,
        "repository": "octo/app", "repository_id": "74", "repository_owner_id": "65",
        "run_id": "1577", "event_name": "push", "environment": "production",
    })
}

fn with(mut claims: Value, changes: Value) -> Value {
    let changes = changes.as_object().unwrap().clone();
    for (name, value) in changes {
        if value == json!("(absent)") {
            claims.as_object_mut().unwrap().remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

fn signed(claims: &Value) -> String {
    Issuer::ours().sign(&header("RS256", "rsa"), claims)
}

async fn of(bench: &Bench, jwt: &str) -> Result<std::sync::Arc<Caller>, Rejection> {
    let value = format!("Bearer {jwt}");
    bench.auth.authenticate(&[value.as_bytes()], None).await
}

#[tokio::test]
async fn an_assertion_identifies_a_workload_with_its_claims() {
    let bench = served();
    let caller = of(&bench, &signed(&github())).await.unwrap();
    assert_eq!(caller.actor.kind, CallerKind::Workload);
    assert_eq!(caller.actor.issuer, GITHUB);
    assert!(!caller.introspects);
    let workload = caller.workload.as_ref().unwrap();
    assert_eq!(workload.issuer, "github");
    assert_eq!(workload.jti.as_deref(), Some("9c1e"));
    assert_eq!(workload.subject_description, "repo octo/app run 1577");
    assert_eq!(workload.account_key, "65");
    assert_eq!(workload.claims["repository_id"], "74");
    assert_eq!(workload.iat.seconds(), NOW - 5);
    assert_eq!(workload.exp.seconds(), NOW + 300);
}

#[tokio::test]
async fn entries_of_one_issuer_are_told_apart_by_their_audience_and_keys() {
    let bench = served();
    let pod = |audience: Value| {
        json!({
            "iss": CLUSTER, "aud": audience, "sub": "system:serviceaccount:cms:publisher",
            "iat": NOW - 5, "exp": NOW + 3600,
            "kubernetes.io": {"namespace": "cms", "serviceaccount": {"name": "publisher", "uid": "u"}},
        })
    };
    let sign =
        |issuer: &Issuer, audience: Value| issuer.sign(&header("RS256", "rsa"), &pod(audience));
    let (east, west) = (Issuer::ours(), Issuer::other());
    for (issuer, audience, expected) in [
        (east, json!(["stacktoken-east"]), Some("east")),
        (west, json!(["stacktoken-west"]), Some("west")),
        (
            west,
            json!(["x", "stacktoken-west", "stacktoken-west"]),
            Some("west"),
        ),
        // Each assertion names the cluster of the other entry.
        (west, json!(["stacktoken-east"]), None),
        (east, json!(["stacktoken-west"]), None),
        // Each assertion names two configured audiences, of the same issuer or of another one.
        (east, json!(["stacktoken-east", "stacktoken-west"]), None),
        (
            west,
            json!(["stacktoken-west", "stacktoken-services"]),
            None,
        ),
        (east, json!(["stacktoken-east", "stacktoken-ci"]), None),
        (east, json!("stacktoken"), None),
        (east, json!("STACKTOKEN-EAST"), None),
        (east, json!({"stacktoken-east": true}), None),
    ] {
        let found = of(&bench, &sign(issuer, audience.clone())).await;
        let name = found.as_ref().ok().map(|caller| {
            let workload = caller.workload.as_ref().unwrap();
            workload.issuer.clone()
        });
        assert_eq!(name.as_deref(), expected, "{audience} {found:?}");
    }
    let service = of(&bench, &sign(west, json!("stacktoken-services")))
        .await
        .unwrap();
    assert_eq!(service.actor.kind, CallerKind::Service);
    assert!(service.workload.is_none());
}

#[tokio::test]
async fn an_assertion_must_live_at_most_a_day_and_be_issued_already() {
    let bench = served();
    for (changes, accepted) in [
        (json!({"iat": "(absent)"}), false),
        (json!({"exp": "(absent)"}), false),
        (json!({"iat": "soon"}), false),
        (json!({"iat": null}), false),
        (json!({"exp": true}), false),
        (json!({"iat": NOW + 4}), true),
        (json!({"iat": NOW + 6}), false),
        (json!({"iat": 1_800_000_006.5}), false),
        (json!({"iat": NOW - 60, "exp": NOW - 60 + 86_400}), true),
        (json!({"iat": NOW - 60, "exp": NOW - 60 + 86_401}), false),
        (json!({"exp": u64::MAX}), false),
        (json!({"iat": i64::MIN}), false),
        (json!({"iat": NOW + 4, "exp": NOW + 4}), false),
        (json!({"iat": NOW, "exp": NOW - 1}), false),
        (json!({"exp": NOW - 6}), false),
        (json!({"exp": NOW - 4}), true),
        (json!({"nbf": NOW + 6}), false),
        (json!({"jti": "(absent)"}), true),
        (json!({"sub": "(absent)"}), false),
        (json!({"sub": ["a"]}), false),
        // Longer than that of a person, because platforms put several claims into it.
        (json!({"sub": "x".repeat(1024)}), true),
        (json!({"sub": "x".repeat(1025)}), false),
        (json!({"sub": "\u{20000}".repeat(257)}), false),
        (json!({"sub": "a\nb"}), false),
        (json!({"sub": " a"}), false),
        (json!({"iss": "(absent)"}), false),
        (json!({"iss": [GITHUB]}), false),
        (
            json!({"iss": "https://token.actions.githubusercontent.com/"}),
            false,
        ),
    ] {
        let found = of(&bench, &signed(&with(github(), changes.clone()))).await;
        assert_eq!(found.is_ok(), accepted, "{changes} {found:?}");
    }
    let twice = github()
        .to_string()
        .replacen("{", r#"{"repository_id":"1","#, 1);
    let jwt = Issuer::ours().sign_text(&header("RS256", "rsa").to_string(), &twice);
    assert!(of(&bench, &jwt).await.is_err());
    for alg in ["ES256", "EdDSA"] {
        let kid = if alg == "ES256" { "p256" } else { "ed25519" };
        let jwt = Issuer::ours().sign(&header(alg, kid), &github());
        assert!(of(&bench, &jwt).await.is_err(), "{alg}");
    }
    let jose = json!({"alg": "RS256", "kid": "rsa", "typ": "JOSE"});
    assert!(
        of(&bench, &Issuer::ours().sign(&jose, &github()))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_svid_may_lack_iss_and_its_keys_serve_svids_only() {
    let bench = served();
    let svid = json!({
        "aud": ["stacktoken-spiffe"], "sub": "spiffe://example.org/publisher",
        "iat": NOW - 5, "exp": NOW + 300,
    });
    let sign = |kind: &str, claims: &Value| {
        let header = json!({"alg": "ES256", "kid": "p256", "typ": kind});
        Issuer::ours().sign(&header, claims)
    };
    for kind in ["JWT", "JOSE"] {
        let caller = of(&bench, &sign(kind, &svid)).await.unwrap();
        let workload = caller.workload.as_ref().unwrap();
        assert_eq!(
            (&*workload.issuer, &*workload.account_key),
            ("mesh", "example.org")
        );
    }
    let named = with(svid.clone(), json!({"iss": "https://spire.example.org"}));
    assert!(of(&bench, &sign("JWT", &named)).await.is_ok());
    let other = with(svid.clone(), json!({"iss": "https://other.example.org"}));
    assert!(of(&bench, &sign("JWT", &other)).await.is_err());
    // An issuer of another kind skips the same key in its key set.
    let file = FILE.replace(r#"provider   = "spiffe""#, r#"provider   = "generic""#);
    let bench = Bench::new(&file);
    let keys = Issuer::ours()
        .jwks()
        .replace(r#""use":"sig""#, r#""use":"jwt-svid""#);
    bench.fetcher.serve("https://spire.example.org/keys", keys);
    assert!(of(&bench, &sign("JWT", &named)).await.is_err());
}

#[tokio::test]
async fn an_outage_of_the_keys_is_no_refusal() {
    let bench = Bench::new(FILE);
    let jwt = signed(&github());
    assert_eq!(of(&bench, &jwt).await, Err(Rejection::KeysUnavailable));
    assert_eq!(
        bench.auth.verify(&jwt).await,
        Err(Unverified::KeysUnavailable)
    );
}

#[tokio::test]
async fn an_assertion_is_kept_neither_for_its_connection_nor_for_all() {
    let bench = served();
    let value = format!("Bearer {}", signed(&github()));
    of(&bench, &signed(&github())).await.unwrap();
    let known = ConnectionCredentials::default();
    let at = bench.clock.read();
    let found = bench
        .auth
        .recognize(Some(value.as_bytes()), None, &known, at);
    assert!(found.is_none());
}

#[tokio::test]
async fn an_assertion_to_explain_is_verified_before_anything_is_told() {
    let bench = served();
    let explained = |jwt: String| {
        let auth = &bench.auth;
        async move { VerifyWorkload::verify(auth, &jwt).await }
    };
    let expired = with(github(), json!({"iat": NOW - 900, "exp": NOW - 600}));
    let future = with(
        github(),
        json!({"nbf": NOW + 60, "iat": NOW + 60, "exp": NOW + 600}),
    );
    let early = with(github(), json!({"iat": NOW + 60, "exp": NOW + 600}));
    for (claims, is_valid_now) in [
        (&github(), true),
        (&expired, false),
        (&future, false),
        (&early, false),
    ] {
        let verified = explained(signed(claims)).await.unwrap();
        let subject = verified.workload.subject;
        assert_eq!(subject, "repo:octo/app:environment:production");
        assert_eq!(verified.is_valid_now, is_valid_now);
        assert_eq!(of(&bench, &signed(claims)).await.is_ok(), is_valid_now);
    }
    let forged = Issuer::other().sign(&header("RS256", "rsa"), &expired);
    for jwt in [
        forged,
        signed(&with(github(), json!({"aud": "stacktoken"}))),
        signed(&json!({
            "iss": CLUSTER, "aud": "stacktoken-services", "sub": "a", "iat": NOW, "exp": NOW + 60,
        })),
        String::new(),
        "a.b.c".to_owned(),
        "x".repeat(9000),
    ] {
        assert_eq!(explained(jwt).await, Err(Unverified::Invalid));
    }
}

#[tokio::test]
async fn time_passes_for_an_assertion_too() {
    let bench = served();
    let jwt = signed(&github());
    of(&bench, &jwt).await.unwrap();
    bench.clock.advance(Duration::from_secs(306));
    assert!(of(&bench, &jwt).await.is_err());
}

const ENTRY: &str = r#"
[[issuers]]
issuer     = "https://gitlab.com"
audience   = "stacktoken-ci"
jwks_url   = "https://gitlab.com/oauth/discovery/keys"
algorithms = ["RS256"]
caller     = "workload"
name       = "gitlab"
provider   = "gitlab-ci"
"#;

#[test]
fn an_entry_has_the_defaults_of_its_provider() {
    let issuers = |file: &str| {
        let entries = parse(file, Path::new("/etc/stacktoken")).unwrap();
        let issuers = entries.issuers.into_iter();
        issuers
            .filter_map(|entry| entry.workload)
            .collect::<Vec<_>>()
    };
    let found = issuers(FILE);
    let kinds: Vec<_> = found
        .iter()
        .map(|issuer| (issuer.provider, issuer.replay))
        .collect();
    assert_eq!(
        kinds,
        [
            (Provider::GithubActions, Replay::Once),
            (Provider::Kubernetes, Replay::Reusable),
            (Provider::Kubernetes, Replay::Once),
            (Provider::Spiffe, Replay::Reusable),
        ]
    );
    let demo = StackKey::parse("blt00c0ffee00c0ffee").unwrap();
    assert_eq!(found[0].stacks, Some(vec![demo]));
    assert_eq!(found[1].stacks, None);
    let file = format!("{ENTRY}jwks_token_file = \"token\"");
    let source = parse(&file, Path::new("/etc/stacktoken"))
        .unwrap()
        .issuers
        .remove(0)
        .source;
    let KeySource::Url {
        token: Some(token), ..
    } = source
    else {
        panic!("{source:?}");
    };
    assert_eq!(token, Path::new("/etc/stacktoken/token"));
}

#[test]
fn faults_of_entries_for_workloads_name_the_key_and_the_remedy() {
    let fault = |file: &str| {
        let fault = parse(file, Path::new("/etc/stacktoken"))
            .unwrap_err()
            .to_string();
        assert_eq!(fault.lines().count(), 1, "{fault}");
        fault
    };
    let with = |key: &str, line: &str| {
        let lines = ENTRY
            .lines()
            .map(|old| if old.starts_with(key) { line } else { old });
        fault(&lines.collect::<Vec<_>>().join("\n"))
    };
    let other = |name: &str, issuer: &str, audience: &str| {
        let second = ENTRY
            .replace("\"gitlab\"", name)
            .replace("https://gitlab.com\"", issuer);
        fault(&format!(
            "{ENTRY}{}",
            second.replace("stacktoken-ci", audience)
        ))
    };
    let user = "[[issuers]]\nissuer = \"https://gitlab.com\"\naudience = \"stacktoken-ci\"\njwks_file = \"k\"\nalgorithms = [\"RS256\"]\ncaller = \"user\"\n";
    let spiffe = |text: &str| text.replace("gitlab-ci", "spiffe");
    let second = ENTRY
        .replace("\"gitlab\"", "\"two\"")
        .replace("https://gitlab.com\"", "https://b\"");
    let faults = [
        with("name", ""),
        with("name", "name = \"a b\""),
        with("provider", ""),
        with("provider", "provider = \"github\""),
        with("audience", ""),
        with("caller", "caller = \"workload\"\nstacks = []"),
        with("caller", "caller = \"workload\"\nstacks = [\"demo\"]"),
        with("caller", "caller = \"workload\"\nstacks = \"all\""),
        with("caller", "caller = \"workload\"\nreplay = \"twice\""),
        with("caller", "caller = \"workload\"\nsubjects = [\"a\"]"),
        with("caller", "caller = \"workload\"\nreplays = \"once\""),
        with("caller", "caller = \"user\""),
        with("jwks_url", "jwks_file = \"a\"\njwks_token_file = \"b\""),
        other("\"gitlab\"", "https://b\"", "stacktoken-ci"),
        other("\"two\"", "https://gitlab.com\"", "stacktoken-ci"),
        fault(&format!("{user}{ENTRY}")),
        fault(&spiffe(&format!("{ENTRY}{second}"))),
    ];
    assert_snapshot!(faults.join("\n"), @r#"
    issuers entry 1, `name` is required: set it to a string
    issuers entry 1, `name` must be 1 to 64 of the characters A-Z a-z 0-9 . _ -
    issuers entry 1, `provider` is required: set it to a string
    issuers entry 1, `provider` is not a provider: write one of github-actions, gitlab-ci, kubernetes, buildkite, spiffe, generic
    issuers entry 1, `audience` is required: set it to a string
    issuers entry 1, `stacks` is empty and would allow no stack: list API keys, or remove it to allow all stacks
    issuers entry 1, `stacks` contains "demo": must be `blt` and 16 lower-case hexadecimal digits, such as blt00c0ffee00c0ffee
    issuers entry 1, `stacks` must be a list of strings, as in ["a", "b"]
    issuers entry 1, `replay` must be "once" or "reusable"
    issuers entry 1, `subjects` is only for caller = "service": remove it
    issuers entry 1, `replays` is unknown: the keys are issuer, audience, jwks_url, jwks_file, jwks_ca, algorithms, caller, required, subjects, jwks_token_file, name, provider, stacks, replay
    issuers entry 1, `name` is only for caller = "workload": remove it
    issuers entry 1, `jwks_token_file` is for a jwks_url: remove it
    issuers entry 2, `name` is the name of entry 1 too: give each issuer a name of its own, which is permanent because tokens refer to it
    issuers entry 1, `audience` is that of entry 2 too, which accepts JWTs of the same issuer: give the entry an audience that nothing else uses, because only the audience tells them apart
    issuers entry 2, `audience` is that of entry 1 too, which accepts JWTs of the same issuer: give the entry an audience that nothing else uses, because only the audience tells them apart
    issuers entry 1, `audience` is that of entry 2 too, which accepts JWTs of the same issuer: give the entry an audience that nothing else uses, because only the audience tells them apart
    "#);
}
#[test]
fn every_entry_on_the_page_of_federation_is_parsed() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/federation.md"))
        .unwrap();
    let blocks = page.split("```toml\n").skip(1);
    let blocks: Vec<_> = blocks
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    let entries: Vec<_> = blocks
        .iter()
        .filter(|block| block.contains("[[issuers]]"))
        .collect();
    assert_eq!(entries.len(), Provider::ALL.len());
    for block in entries {
        let parsed = parse(block, Path::new("/etc/stacktoken"));
        let parsed = parsed.unwrap_or_else(|fault| panic!("{fault}\n{block}"));
        assert!(parsed.issuers[0].workload.is_some(), "{block}");
    }
}
