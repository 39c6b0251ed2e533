//! Tests the ways in which a hostile workload may try to obtain a secret that the rules do not
//! grant. Each attempt must be refused with the same bytes as every other one, apart from
//! RequestInfo, and must be audited with its own cause. An assertion that does not verify
//! identifies no caller, so it gets no audit row.

use std::{collections::BTreeMap, time::Duration};

use prost::Message as _;
use serde_json::{Value, json};
use stacktoken::grpc::pb::{audit, v1};
use tonic::{Code, Request, Status};

use crate::support::{
    Client, TestServer,
    database::eventually,
    federated::{CI, JOB, exchange_request, federation, job, pod, pods, rule},
    issue_request, reason,
};

/// Additional issuers: another entry with the same `iss`, GitLab, and an issuer for other stacks
/// only.
const ENTRIES: &str = r#"
[[issuers]]
issuer     = "https://pods.test"
audience   = "stacktoken-west"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "west"
provider   = "kubernetes"

[[issuers]]
issuer     = "https://gitlab.test"
audience   = "stacktoken-gitlab"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "gitlab"
provider   = "gitlab-ci"

[[issuers]]
issuer     = "https://elsewhere.test"
audience   = "stacktoken-elsewhere"
jwks_file  = "jwks.json"
algorithms = ["ES256"]
caller     = "workload"
name       = "elsewhere"
provider   = "generic"
stacks     = ["blt00000000000000ff"]
"#;

/// The workflow that the token `ref` admits at any tag.
const WORKFLOW: &str = "octo/shared/.github/workflows/publish.yml@refs/tags/";

/// The workload whose claims a row changes.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// A GitHub job in an environment.
    Job,
    /// A GitHub job on a branch, with a reusable workflow.
    Branch,
    Pod,
    /// A pod in another cluster whose issuer has the same `iss`.
    West,
    GitLab,
    Elsewhere,
}

impl Base {
    fn claims(self, now: i64) -> Value {
        match self {
            Self::Job => job(now, json!({})),
            Self::Branch => job(
                now,
                json!({
                    "environment": null, "ref": "refs/heads/main",
                    "job_workflow_ref": format!("{WORKFLOW}v1"),
                }),
            ),
            Self::Pod => pod(now),
            Self::West => {
                let mut claims = pod(now);
                claims["aud"] = "stacktoken-west".into();
                claims
            }
            Self::GitLab => job(
                now,
                json!({
                    "iss": "https://gitlab.test", "aud": "stacktoken-gitlab",
                    "sub": "project_path:group/app:ref_type:branch:ref:main",
                    "project_id": "22", "namespace_id": "72", "ref_protected": "true",
                    "project_path": "group/app", "pipeline_id": "646", "job_id": "12",
                }),
            ),
            Self::Elsewhere => job(
                now,
                json!({ "iss": "https://elsewhere.test", "aud": "stacktoken-elsewhere" }),
            ),
        }
    }
}

/// Applies changes to claims. `null` removes a claim, and `"(null)"` sets the claim to null.
fn with(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        let all = claims.as_object_mut().unwrap();
        match value {
            Value::Null => drop(all.remove(name)),
            Value::String(text) if text == "(null)" => drop(all.insert(name.clone(), Value::Null)),
            value => drop(all.insert(name.clone(), value.clone())),
        }
    }
    claims
}

/// The uids of tokens by name. Each token trusts only the workload that it is named after.
type Tokens = BTreeMap<&'static str, String>;

struct Fixture {
    server: TestServer,
    tokens: Tokens,
    other_stack: String,
}

impl Fixture {
    async fn start() -> Self {
        let server = TestServer::start_trusting(ENTRIES).await;
        let ids = [
            rule(&["repository_id"], "1"),
            rule(&["repository_owner_id"], "2"),
        ];
        let branch = [
            rule(&["ref"], "refs/heads/main"),
            v1::ClaimRule {
                path: vec!["job_workflow_ref".into()],
                r#match: Some(v1::claim_rule::Match::Prefix(WORKFLOW.into())),
            },
        ];
        let branch = v1::Federation {
            rules: ids.into_iter().chain(branch).collect(),
            ..federation()
        };
        let gitlab = v1::Federation {
            issuer: "gitlab".into(),
            rules: vec![
                rule(&["project_id"], "22"),
                rule(&["namespace_id"], "72"),
                rule(&["ref_protected"], "true"),
            ],
            session_for: None,
        };
        let mut tokens = Tokens::new();
        for (name, federation) in [
            ("job", federation()),
            ("branch", branch),
            ("pod", pods()),
            ("gitlab", gitlab),
            ("revoked", federation()),
            ("expired", federation()),
        ] {
            tokens.insert(name, server.federated_as(name, federation).await);
        }
        let ordinary = server.issue("ordinary").await.token.unwrap();
        tokens.insert("ordinary", ordinary.token_uid);
        tokens.insert("unknown", "019ecbf1-3c52-7a7d-9be6-6e0a5f2d7c11".into());
        tokens.insert("any", String::new());
        let other_stack = server.register("Another stack").await;
        let request = v1::IssueRequest {
            federation: Some(federation()),
            ..issue_request(&other_stack, "theirs")
        };
        let theirs = server.owner().await.tokens.issue(request).await.unwrap();
        tokens.insert("theirs", theirs.into_inner().token.unwrap().token_uid);
        let fixture = Self {
            server,
            tokens,
            other_stack,
        };
        fixture.end_two().await;
        fixture
    }

    async fn end_two(&self) {
        let mut owner = self.server.owner().await;
        let request = v1::RevokeRequest {
            stack_api_key: self.server.stack.clone(),
            token_uid: self.tokens["revoked"].clone(),
            ..Default::default()
        };
        owner.tokens.revoke(request).await.unwrap();
        let request = v1::SetExpiryRequest {
            stack_api_key: self.server.stack.clone(),
            token_uid: self.tokens["expired"].clone(),
            expiry: Some(crate::support::now()),
            ..Default::default()
        };
        owner.tokens.set_expiry(request).await.unwrap();
    }

    fn now(&self) -> i64 {
        self.server.clock.seconds()
    }

    /// Exchanges a JWT for the secret of the token with this name, in a call with this id.
    async fn present(
        &self,
        jwt: &str,
        (stack, token): (&str, &str),
        call_id: &str,
    ) -> Result<v1::ExchangeResponse, Status> {
        let mut workload: Client = self
            .server
            .with_authorization(format!("Bearer {jwt}"))
            .await;
        let mut request = Request::new(exchange_request(stack, &self.tokens[token]));
        request
            .metadata_mut()
            .insert("x-request-id", call_id.parse().unwrap());
        let done = workload.exchange.exchange(request).await;
        done.map(tonic::Response::into_inner)
    }

    /// Returns the cause of each refused exchange, by the id of its call.
    async fn causes(&self) -> BTreeMap<String, String> {
        let mut causes = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = audit::v1::ListRequest {
                page_size: 100,
                page_token,
                ..Default::default()
            };
            let mut operator = self.server.operator().await;
            let page = operator.audit.list(request).await.unwrap().into_inner();
            for event in page.events {
                if event.error_reason == "EXCHANGE_REFUSED" {
                    let text = format!("{event:?}");
                    assert!(!text.contains("eyJ"), "{text}");
                    causes.insert(event.call_id, event.details["obstacle"].clone());
                }
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return causes;
            }
        }
    }
}

/// Returns an error as it was received, but without the parts that identify the call.
fn bytes_of(status: &Status) -> (Vec<u8>, BTreeMap<String, Vec<u8>>) {
    let mut details = tonic_types::Status::decode(status.details()).unwrap();
    let before = details.details.len();
    let is_call = |any: &prost_types::Any| any.type_url.ends_with("google.rpc.RequestInfo");
    details.details.retain(|any| !is_call(any));
    assert_eq!(before, details.details.len() + 1, "one RequestInfo");
    let headers = status.metadata().clone().into_headers();
    let own = ["x-request-id", "date", "grpc-status-details-bin"];
    let headers = headers
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    (details.encode_to_vec(), headers.collect())
}

/// Rows whose assertion verifies. Each lists the workload, the changed claims, the requested token,
/// and the cause in the audit.
#[rustfmt::skip]
fn verified() -> Vec<(&'static str, Base, Value, &'static str, &'static str)> {
    use Base::{Branch, Elsewhere, GitLab, Job, Pod, West};
    const RULE: &str = "RULE_NOT_MATCHED";
    const EVENT: &str = "EVENT_REFUSED";
    const ISSUER: &str = "OTHER_ISSUER";
    let nested = |namespace: Value, account: Value| json!({ "kubernetes.io": { "namespace": namespace, "serviceaccount": account } });
    vec![
        ("another repository", Job, json!({"repository_id": "3"}), "job", RULE),
        ("a repository of the same name", Job, json!({"repository": "octo/app", "repository_id": "10"}), "job", RULE),
        ("no repository id", Job, json!({"repository_id": null}), "job", RULE),
        ("null for the repository id", Job, json!({"repository_id": "(null)"}), "job", RULE),
        ("a list with the repository id", Job, json!({"repository_id": ["1"]}), "job", RULE),
        ("an object with the repository id", Job, json!({"repository_id": {"1": "1"}}), "job", RULE),
        ("a fraction that equals the repository id", Job, json!({"repository_id": 1.0}), "job", RULE),
        ("true for the repository id", Job, json!({"repository_id": true}), "job", RULE),
        ("a blank after the repository id", Job, json!({"repository_id": "1 "}), "job", RULE),
        ("a zero before the repository id", Job, json!({"repository_id": "01"}), "job", RULE),
        ("a plus before the repository id", Job, json!({"repository_id": "+1"}), "job", RULE),
        ("a full-width digit", Job, json!({"repository_id": "\u{ff11}"}), "job", RULE),
        ("an empty repository id", Job, json!({"repository_id": ""}), "job", RULE),
        ("a null byte after the repository id", Job, json!({"repository_id": "1\u{0}"}), "job", RULE),
        ("a transferred repository", Job, json!({"repository_owner_id": "9"}), "job", RULE),
        ("no owner id", Job, json!({"repository_owner_id": null}), "job", RULE),
        ("a list of owners", Job, json!({"repository_owner_id": ["2", "9"]}), "job", RULE),
        ("the ids exchanged", Job, json!({"repository_id": "2", "repository_owner_id": "1"}), "job", RULE),
        ("the claim under another name", Job, json!({"repository_id": null, "Repository_Id": "1"}), "job", RULE),
        ("no environment", Job, json!({"environment": null}), "job", RULE),
        ("another environment", Job, json!({"environment": "staging"}), "job", RULE),
        ("an environment in another case", Job, json!({"environment": "Production"}), "job", RULE),
        ("an environment with a Cyrillic letter", Job, json!({"environment": "pr\u{43e}duction"}), "job", RULE),
        ("an environment with a hidden letter", Job, json!({"environment": "production\u{200b}"}), "job", RULE),
        ("an environment with a line break", Job, json!({"environment": "production\n"}), "job", RULE),
        ("an environment that begins alike", Job, json!({"environment": "production-evil"}), "job", RULE),
        ("a list with the environment", Job, json!({"environment": ["production"]}), "job", RULE),
        ("a pull request", Job, json!({"event_name": "pull_request"}), "job", EVENT),
        ("a pull request to the base", Job, json!({"event_name": "pull_request_target"}), "job", EVENT),
        ("after another workflow", Job, json!({"event_name": "workflow_run"}), "job", EVENT),
        ("a comment", Job, json!({"event_name": "issue_comment"}), "job", EVENT),
        ("no event", Job, json!({"event_name": null}), "job", EVENT),
        ("a list of events", Job, json!({"event_name": ["push"]}), "job", EVENT),
        ("a pull request on the branch", Branch, json!({"event_name": "pull_request"}), "branch", EVENT),
        ("another branch", Branch, json!({"ref": "refs/heads/evil"}), "branch", RULE),
        ("a branch that begins alike", Branch, json!({"ref": "refs/heads/main-evil"}), "branch", RULE),
        ("a tag of the branch's name", Branch, json!({"ref": "refs/tags/main"}), "branch", RULE),
        ("a branch of the tag's name", Branch, json!({"ref": "main"}), "branch", RULE),
        ("a workflow of a similar repository", Branch, json!({"job_workflow_ref": WORKFLOW.replace("shared", "shared-evil") + "v1"}), "branch", RULE),
        ("another workflow", Branch, json!({"job_workflow_ref": WORKFLOW.replace("publish", "evil") + "v1"}), "branch", RULE),
        ("a workflow at a branch", Branch, json!({"job_workflow_ref": WORKFLOW.replace("tags", "heads") + "v1"}), "branch", RULE),
        ("the prefix and nothing else", Branch, json!({"job_workflow_ref": WORKFLOW}), "branch", RULE),
        ("the prefix without its end", Branch, json!({"job_workflow_ref": WORKFLOW.trim_end_matches('/')}), "branch", RULE),
        ("the prefix later in the text", Branch, json!({"job_workflow_ref": format!("evil/{WORKFLOW}v1")}), "branch", RULE),
        ("the prefix in another case", Branch, json!({"job_workflow_ref": WORKFLOW.to_uppercase() + "v1"}), "branch", RULE),
        ("a workflow in a list", Branch, json!({"job_workflow_ref": [format!("{WORKFLOW}v1")]}), "branch", RULE),
        ("no reusable workflow", Branch, json!({"job_workflow_ref": null, "workflow_ref": format!("{WORKFLOW}v1")}), "branch", RULE),
        ("an unprotected branch", GitLab, json!({"ref_protected": "false"}), "gitlab", RULE),
        ("false for a protected branch", GitLab, json!({"ref_protected": false}), "gitlab", RULE),
        ("no word about protection", GitLab, json!({"ref_protected": null}), "gitlab", RULE),
        ("protected in another case", GitLab, json!({"ref_protected": "True"}), "gitlab", RULE),
        ("1 for a protected branch", GitLab, json!({"ref_protected": 1}), "gitlab", RULE),
        ("another project", GitLab, json!({"project_id": "23"}), "gitlab", RULE),
        ("another group", GitLab, json!({"namespace_id": "73"}), "gitlab", RULE),
        ("a service account that was created again", Pod, nested(json!("cms"), json!({"name": "web", "uid": "u-2"})), "pod", RULE),
        ("another namespace", Pod, nested(json!("evil"), json!({"name": "web", "uid": "u-1"})), "pod", RULE),
        ("a service account without uid", Pod, nested(json!("cms"), json!({"name": "web"})), "pod", RULE),
        ("a list of service accounts", Pod, nested(json!("cms"), json!([{"name": "web", "uid": "u-1"}])), "pod", RULE),
        ("a list of namespaces", Pod, nested(json!(["cms"]), json!({"uid": "u-1"})), "pod", RULE),
        ("nested claims in one name", Pod, json!({"kubernetes.io": null, "kubernetes.io.namespace": "cms", "kubernetes.io.serviceaccount.uid": "u-1"}), "pod", RULE),
        ("nested claims split at the dot", Pod, json!({"kubernetes.io": null, "kubernetes": {"io": {"namespace": "cms", "serviceaccount": {"uid": "u-1"}}}}), "pod", RULE),
        ("claims as a text", Pod, json!({"kubernetes.io": "{\"namespace\":\"cms\"}"}), "pod", RULE),
        ("a pod of another cluster with the same iss", West, json!({}), "pod", ISSUER),
        ("a job of GitHub for the token of a pod", Job, json!({"kubernetes.io": {"namespace": "cms", "serviceaccount": {"uid": "u-1"}}}), "pod", ISSUER),
        ("a pod with the claims of a job", Pod, json!({"repository_id": "1", "repository_owner_id": "2", "environment": "production", "event_name": "push"}), "job", ISSUER),
        ("a job of GitLab with the claims of GitHub", GitLab, json!({}), "job", ISSUER),
        ("an issuer for other stacks", Elsewhere, json!({}), "job", "STACK_NOT_ALLOWED"),
        ("an assertion for one exchange without jti", Job, json!({"jti": null}), "job", "JWT_INVALID"),
        ("an empty jti", Job, json!({"jti": ""}), "job", "JWT_INVALID"),
        ("a number as jti", Job, json!({"jti": 7}), "job", "JWT_INVALID"),
        ("a revoked token", Job, json!({}), "revoked", "TOKEN_REVOKED"),
        ("an expired token", Job, json!({}), "expired", "TOKEN_EXPIRED"),
        ("no token, and none matches", Job, json!({"repository_id": "3"}), "any", RULE),
        // These rows have no cause, because the audit does not record them: anyone can name any
        // token.
        ("another stack's token", Job, json!({}), "theirs", ""),
        ("a token with a secret of its own", Job, json!({}), "ordinary", ""),
        ("a token that does not exist", Job, json!({}), "unknown", ""),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_workload_learns_nothing_and_every_cause_is_audited() {
    let fixture = Fixture::start().await;
    let stack = fixture.server.stack.clone();
    for (base, token) in [
        (Base::Job, "job"),
        (Base::Branch, "branch"),
        (Base::Pod, "pod"),
        (Base::GitLab, "gitlab"),
    ] {
        let jwt = fixture.server.issuer.sign(&base.claims(fixture.now()));
        let done = fixture.present(&jwt, (&stack, token), "control").await;
        assert!(done.is_ok(), "{base:?} {done:?}");
    }
    let rows = verified();
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut refusals = Vec::new();
    let mut expected = BTreeMap::new();
    for (index, (what, base, changes, token, cause)) in rows.into_iter().enumerate() {
        // Refusals in the same minute share a row, so each attempt is made in its own minute.
        fixture.server.clock.advance(Duration::from_secs(61));
        let claims = with(base.claims(fixture.now()), &changes);
        let jwt = fixture.server.issuer.sign(&claims);
        let call_id = format!("attack-{index}");
        let refused = fixture.present(&jwt, (&stack, token), &call_id).await;
        refusals.push((what, refused));
        if !cause.is_empty() {
            expected.insert(call_id, cause.to_owned());
        }
    }
    refusals.extend(replays(&fixture, &mut expected).await);
    refusals.extend(places(&fixture, &mut expected).await);
    let first = refusals[0].1.as_ref().unwrap_err().clone();
    assert_eq!(first.code(), Code::PermissionDenied);
    assert_eq!(reason(&first), "EXCHANGE_REFUSED");
    for (what, refused) in refusals {
        let status = refused.expect_err(what);
        assert_eq!(bytes_of(&status), bytes_of(&first), "{what}: {status:?}");
    }
    let causes = eventually("all rows", async || {
        let causes = fixture.causes().await;
        (causes.len() >= expected.len()).then_some(causes)
    });
    assert_eq!(causes.await, expected);
}

type Refusals = Vec<(&'static str, Result<v1::ExchangeResponse, Status>)>;

/// Presents assertions that were already exchanged.
async fn replays(fixture: &Fixture, expected: &mut BTreeMap<String, String>) -> Refusals {
    let server = &fixture.server;
    let stack = server.stack.clone();
    let mut refusals = Vec::new();
    let mut refused = |call_id: &str, what, done| {
        expected.insert(call_id.to_owned(), "JWT_REPLAYED".to_owned());
        refusals.push((what, done));
    };
    server.clock.advance(Duration::from_secs(61));
    let jwt = server.issuer.job(fixture.now());
    let at = (stack.as_str(), "job");
    let session = fixture.present(&jwt, at, "first").await.unwrap();
    let other = fixture.present(&jwt, (&stack, "any"), "replay-1").await;
    refused("replay-1", "used before, for no token by name", other);
    assert_eq!(server.inactive(&session.secret).await, "");
    server.clock.advance(Duration::from_secs(61));
    let again = fixture.present(&jwt, at, "replay-2").await;
    refused("replay-2", "used before, and its secret too", again);
    server.clock.advance(Duration::from_secs(61));
    let jwt = server.issuer.job(fixture.now());
    fixture.present(&jwt, at, "second").await.unwrap();
    // Another assertion of the issuer has the same jti.
    let claims = json!({ "jti": null });
    let mut copied = with(Base::Job.claims(fixture.now()), &claims);
    copied["jti"] = json!("the-same");
    let one = server.issuer.sign(&copied);
    fixture.present(&one, at, "third").await.unwrap();
    copied["run_id"] = json!("8");
    let two = server.issuer.sign(&copied);
    let done = fixture.present(&two, at, "replay-3").await;
    refused("replay-3", "the jti of another assertion", done);
    server.clock.advance(Duration::from_secs(601));
    let late = Base::Job.claims(fixture.now() - 601);
    let late = with(
        late,
        &json!({ "jti": "the-same", "exp": fixture.now() + 600 }),
    );
    let done = fixture
        .present(&server.issuer.sign(&late), at, "replay-4")
        .await;
    refused("replay-4", "the jti again after ten minutes", done);
    refusals
}

/// Exchanges at a stack that is unknown, suspended or not that of the token, and where more than one
/// token matches. All of them are refused with the same bytes, so that none reveals the cause.
async fn places(fixture: &Fixture, expected: &mut BTreeMap<String, String>) -> Refusals {
    let server = &fixture.server;
    let stack = server.stack.clone();
    let mut refusals = Vec::new();
    server.clock.advance(Duration::from_secs(61));
    let jwt = || server.issuer.job(fixture.now());
    let unknown = ("blt00000000000000ee", "job");
    let done = fixture.present(&jwt(), unknown, "place-1").await;
    refusals.push(("a stack that does not exist", done));
    let theirs = (fixture.other_stack.as_str(), "job");
    let done = fixture.present(&jwt(), theirs, "place-2").await;
    refusals.push(("a token of another stack than the one named", done));
    server.federated("twin").await;
    let done = fixture.present(&jwt(), (&stack, "any"), "place-3").await;
    expected.insert("place-3".into(), "AMBIGUOUS".into());
    refusals.push(("two tokens match", done));
    let request = stacktoken::grpc::pb::admin::v1::SuspendRequest {
        stack_api_key: stack.clone(),
        reason: "attack".into(),
        ..Default::default()
    };
    server
        .operator()
        .await
        .stacks
        .suspend(request)
        .await
        .unwrap();
    server.clock.advance(Duration::from_secs(61));
    let done = fixture.present(&jwt(), (&stack, "job"), "place-4").await;
    expected.insert("place-4".into(), "STACK_SUSPENDED".into());
    refusals.push(("a suspended stack", done));
    refusals
}

/// Values of `authorization` that prove nothing. Their claims would be accepted if they were signed
/// properly.
fn unverified(server: &TestServer) -> Vec<(&'static str, String)> {
    let now = server.clock.seconds();
    let issuer = &server.issuer;
    let good = job(now, json!({}));
    let header = json!({ "alg": "ES256", "kid": "test", "typ": "JWT" });
    let claimed = |changes: Value| issuer.sign(&with(good.clone(), &changes));
    let headed = |changes: Value| {
        let header = with(header.clone(), &changes);
        issuer.sign_text(&header.to_string(), &good.to_string())
    };
    let raw = |claims: &str| issuer.sign_text(&header.to_string(), claims);
    let twice = |name: &str| {
        raw(&good
            .to_string()
            .replacen('{', &format!("{{\"{name}\":\"x\","), 1))
    };
    let plain = issuer.sign(&good);
    let (message, seal) = plain.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let evil = issuer.sign(&with(good.clone(), &json!({ "repository_id": "3" })));
    let evil_seal = evil.rsplit_once('.').unwrap().1;
    let foreign = crate::support::TestIssuer::new();
    vec![
        (
            "another audience",
            claimed(json!({"aud": "stacktoken-pods"})),
        ),
        (
            "the audience of users",
            claimed(json!({"aud": "stacktoken"})),
        ),
        (
            "an audience in another case",
            claimed(json!({"aud": "STACKTOKEN-CI"})),
        ),
        (
            "an audience with a slash",
            claimed(json!({"aud": "stacktoken-ci/"})),
        ),
        (
            "an audience that begins alike",
            claimed(json!({"aud": "stacktoken-ci-evil"})),
        ),
        (
            "two configured audiences",
            claimed(json!({"aud": ["stacktoken-ci", "stacktoken-pods"]})),
        ),
        (
            "the audience of users too",
            claimed(json!({"aud": ["stacktoken-ci", "stacktoken"]})),
        ),
        (
            "an object as audience",
            claimed(json!({"aud": {"stacktoken-ci": "stacktoken-ci"}})),
        ),
        (
            "a list in a list as audience",
            claimed(json!({"aud": [["stacktoken-ci"]]})),
        ),
        ("no audience", claimed(json!({"aud": null}))),
        ("no issuer", claimed(json!({"iss": null}))),
        (
            "an issuer in another case",
            claimed(json!({"iss": "HTTPS://ci.test"})),
        ),
        (
            "an issuer with a slash",
            claimed(json!({"iss": format!("{CI}/")})),
        ),
        ("a list of issuers", claimed(json!({"iss": [CI]}))),
        (
            "an unknown issuer",
            claimed(json!({"iss": "https://evil.test"})),
        ),
        (
            "an issuer of users",
            claimed(json!({"iss": "https://login.test"})),
        ),
        ("no exp", claimed(json!({"exp": null}))),
        (
            "a text as exp",
            claimed(json!({"exp": (now + 600).to_string()})),
        ),
        ("expired", claimed(json!({"exp": now - 6}))),
        ("no iat", claimed(json!({"iat": null}))),
        ("a text as iat", claimed(json!({"iat": now.to_string()}))),
        ("issued in the future", claimed(json!({"iat": now + 6}))),
        (
            "a life of more than a day",
            claimed(json!({"iat": now - 60, "exp": now - 59 + 86_400})),
        ),
        ("an endless life", claimed(json!({"exp": u64::MAX}))),
        (
            "exp before iat",
            claimed(json!({"iat": now + 4, "exp": now + 3})),
        ),
        ("not valid yet", claimed(json!({"nbf": now + 6}))),
        ("no subject", claimed(json!({"sub": null}))),
        ("an empty subject", claimed(json!({"sub": ""}))),
        ("a list of subjects", claimed(json!({"sub": [JOB]}))),
        ("the repository twice", twice("repository_id")),
        ("the audience twice", twice("aud")),
        ("the subject twice, once escaped", twice("s\\u0075b")),
        ("not JSON", raw("repository_id=1")),
        ("a list of claims", raw("[]")),
        (
            "alg none",
            format!(
                "{}.{}.",
                head_of(&json!({"alg": "none"})),
                message.split_once('.').unwrap().1
            ),
        ),
        ("alg in another case", headed(json!({"alg": "es256"}))),
        ("another algorithm", headed(json!({"alg": "RS256"}))),
        ("an HMAC", headed(json!({"alg": "HS256"}))),
        ("no algorithm", headed(json!({"alg": null}))),
        ("a list of algorithms", headed(json!({"alg": ["ES256"]}))),
        ("a key in the header", headed(json!({"jwk": {"kty": "EC"}}))),
        (
            "a key set in the header",
            headed(json!({"jku": "https://evil.test/keys"})),
        ),
        ("a critical header", headed(json!({"crit": ["exp"]}))),
        ("an unknown key", headed(json!({"kid": "other"}))),
        ("a path as kid", headed(json!({"kid": "../../dev/null"}))),
        ("the type of an SVID", headed(json!({"typ": "JOSE"}))),
        ("another type", headed(json!({"typ": "dpop+jwt"}))),
        ("the key of somebody else", foreign.sign(&good)),
        (
            "the signature of other claims",
            format!("{message}.{evil_seal}"),
        ),
        ("no signature", format!("{message}.")),
        (
            "half a signature",
            format!("{message}.{}", &seal[..seal.len() / 2]),
        ),
        ("four parts", format!("{plain}.{seal}")),
        ("two parts", message.to_owned()),
        ("the header alone", head.to_owned()),
        ("padding", format!("{message}.{seal}==")),
        ("a blank", format!("{message} .{seal}")),
        ("longer than a header may be", "x".repeat(9000)),
    ]
}

fn head_of(header: &Value) -> String {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.encode(header.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_that_proves_nothing_is_no_caller() {
    let fixture = Fixture::start().await;
    let at = (fixture.server.stack.clone(), "job");
    let mut first = None;
    for (what, jwt) in unverified(&fixture.server) {
        let done = fixture.present(&jwt, (&at.0, at.1), "forged").await;
        let status = done.expect_err(what);
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status:?}");
        assert_eq!(reason(&status), "CREDENTIAL_INVALID", "{what}");
        let first = first.get_or_insert_with(|| bytes_of(&status));
        assert_eq!(bytes_of(&status), *first, "{what}: {status:?}");
    }
    assert!(fixture.causes().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_values_are_compared_by_their_text() {
    let fixture = Fixture::start().await;
    let stack = fixture.server.stack.clone();
    for (base, changes, token) in [
        (
            Base::Job,
            json!({ "repository_id": 1, "repository_owner_id": 2 }),
            "job",
        ),
        (
            Base::GitLab,
            json!({ "ref_protected": true, "project_id": 22 }),
            "gitlab",
        ),
        (
            Base::Branch,
            json!({ "job_workflow_ref": format!("{WORKFLOW}v2") }),
            "branch",
        ),
        (
            Base::Job,
            json!({ "event_name": "workflow_dispatch" }),
            "job",
        ),
        (
            Base::Job,
            json!({ "aud": ["stacktoken-ci", "https://elsewhere.example"] }),
            "job",
        ),
    ] {
        let claims = with(base.claims(fixture.now()), &changes);
        let jwt = fixture.server.issuer.sign(&claims);
        let done = fixture.present(&jwt, (&stack, token), "plain").await;
        assert!(done.is_ok(), "{changes} {done:?}");
    }
}
