//! Tests that a secret or a JWT appears only in the one response that shows it (R9). It must not
//! appear in logs at the finest level, metrics, traces, the audit or the files of the store.

use std::{fs, path::Path};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use rustix::process::Signal;
use stacktoken::grpc::pb::{admin, audit, v1};
use tonic::Request;

use crate::{
    collector::Collector,
    program::{Dev, folder, scrape},
    support::{
        Client, at,
        checks::{EnvoyAnswer, Http},
        clock::FAR,
        introspect_request, issue_request, permissions,
        requests::{UNTIL_FIRST_USE, batch_request, outcomes},
        watching::{self, Watching},
    },
};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// All secrets and JWTs used in one run.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn add(&mut self, secret: &str) -> String {
        self.0.push(secret.to_owned());
        secret.to_owned()
    }

    /// Returns every sequence of 12 bytes in the random part of each secret.
    fn slices(&self) -> Vec<&[u8]> {
        let bodies = self.0.iter().map(|secret| match secret.rsplit_once('.') {
            // Only the signature of a JWT counts, because many JWTs have the same header and
            // claims.
            Some((_, signature)) => signature.as_bytes(),
            None => &secret.as_bytes()["stk1_".len()..],
        });
        bodies.flat_map(|body| body.windows(12)).collect()
    }

    fn assert_absent(&self, from: &str, bytes: &[u8]) {
        for slice in self.slices() {
            let found = bytes.windows(slice.len()).any(|window| window == slice);
            assert!(
                !found,
                "{from} holds {} of a secret",
                String::from_utf8_lossy(slice)
            );
        }
    }
}

/// Calls every RPC, successfully and not, with secrets in every place where a caller could put one
/// by mistake.
async fn drive(dev: &Dev, secrets: &mut Secrets) {
    let stack = dev.get("stack_api_key").to_owned();
    for name in [
        "owner_jwt",
        "service_jwt",
        "operator_jwt",
        "stranger_jwt",
        "developer_jwt",
        "workload_jwt",
    ] {
        secrets.add(dev.get(name));
    }
    let mut owner = dev.client("owner_jwt").await;
    let mut service = dev.client("service_jwt").await;
    let mut operator = dev.client("operator_jwt").await;
    let issued = owner
        .tokens
        .issue(issue_request(&stack, "leak"))
        .await
        .unwrap()
        .into_inner();
    let secret = secrets.add(&issued.secret);
    let uid = issued.token.unwrap().token_uid;
    let ask = introspect_request(&stack, &secret, &["entry.update", "nothing.known"]);
    assert!(
        service
            .introspection
            .introspect(ask)
            .await
            .unwrap()
            .into_inner()
            .active
    );

    let batch = batch_request(&stack, &[&secret, &secret[..50], "junk"]);
    let asked = service.introspection.batch_introspect(batch.clone()).await;
    assert_eq!(outcomes(asked.unwrap().get_ref())[0], "OK");
    let faulty = v1::BatchIntrospectRequest {
        min_revision: secret.clone(),
        ..batch
    };
    let refused = service.introspection.batch_introspect(faulty).await;
    refused.unwrap_err();

    watched(&service, &secret).await;
    misplaced(&mut owner, &mut service, &stack, &secret).await;
    checked(dev, &stack, &secret).await;
    let over_http = crate::leak_http::drive(dev, &stack, &secret).await;
    secrets.add(&over_http);
    let mut request = Request::new(v1::ListActionsRequest {});
    request
        .metadata_mut()
        .insert("x-request-id", secret.parse().unwrap());
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", TRACEPARENT.parse().unwrap());
    metadata.insert("tracestate", format!("v={secret}").parse().unwrap());
    service.actions.list_actions(request).await.unwrap();
    let broken: String = secret.chars().rev().collect();
    for presented in [
        broken.as_str(),
        &secret[..50],
        &format!("{secret} "),
        &"x".repeat(600),
    ] {
        let _ = service
            .introspection
            .introspect(introspect_request(&stack, presented, &[]))
            .await;
    }
    let huge = issue_request(&stack, &format!("{secret}{}", "x".repeat(70_000)));
    owner.tokens.issue(huge).await.unwrap_err();

    // The credential is the secret itself, or an invalid JWT.
    let jwt = dev.get("owner_jwt");
    for value in [
        format!("Bearer {secret}"),
        secret.clone(),
        format!("Bearer {}", &jwt[..jwt.len() - 1]),
        format!("Bearer {jwt}x"),
        format!("Basic {jwt}"),
        jwt.to_owned(),
    ] {
        let mut caller = Client::new(dev.channel().await, Some(value));
        caller
            .tokens
            .issue(issue_request(&stack, "refused"))
            .await
            .unwrap_err();
    }
    for name in ["stranger_jwt", "developer_jwt"] {
        let mut caller = dev.client(name).await;
        caller
            .tokens
            .issue(issue_request(&stack, "refused"))
            .await
            .unwrap_err();
    }

    let rotate = v1::RotateRequest {
        stack_api_key: stack.clone(),
        token_uid: uid.clone(),
        overlap: Some(UNTIL_FIRST_USE),
        request_id: "leak".into(),
        validate_only: false,
        etag: String::new(),
    };
    // The use of the newer secret ends the former one. When the former one is presented again, this
    // is recorded.
    let rotated = owner.tokens.rotate(rotate.clone()).await.unwrap();
    let newer = secrets.add(&rotated.into_inner().secret);
    for presented in [&newer, &secret] {
        let ask = introspect_request(&stack, presented, &[]);
        let answer = service.introspection.introspect(ask).await.unwrap();
        assert_eq!(answer.into_inner().active, presented == &newer);
    }
    owner.tokens.rotate(rotate.clone()).await.unwrap_err();
    for request in [
        v1::RotateRequest {
            request_id: secret.clone(),
            ..rotate.clone()
        },
        v1::RotateRequest {
            token_uid: secret.clone(),
            ..rotate
        },
    ] {
        owner.tokens.rotate(request).await.unwrap_err();
    }

    leaked(&mut owner, &mut service, secrets, &stack).await;
    exchanged(dev, secrets, &stack).await;
    let key = |reason: &str| v1::RevokeRequest {
        stack_api_key: stack.clone(),
        token_uid: uid.clone(),
        reason: reason.into(),
        validate_only: false,
        etag: String::new(),
    };
    let expiry = v1::SetExpiryRequest {
        stack_api_key: stack.clone(),
        token_uid: uid.clone(),
        expiry: Some(at(FAR)),
        validate_only: false,
        etag: String::new(),
    };
    owner.tokens.set_expiry(expiry).await.unwrap();
    owner.tokens.revoke(key("done")).await.unwrap();
    service
        .introspection
        .introspect(introspect_request(&stack, &secret, &[]))
        .await
        .unwrap();
    owner
        .tokens
        .list(v1::ListRequest {
            stack_api_key: stack.clone(),
            ..Default::default()
        })
        .await
        .unwrap();
    let get = admin::v1::GetRequest {
        stack_api_key: stack.clone(),
    };
    operator.stacks.get(get).await.unwrap();
    let members = admin::v1::ListMembersRequest {
        stack_api_key: stack.clone(),
        ..Default::default()
    };
    operator.stacks.list_members(members).await.unwrap();
}

/// Reports a leaked secret three times: without permission, while its token is live, and again.
/// Then sends the secret to `RevokeAll` in fields where it does not belong.
async fn leaked(owner: &mut Client, service: &mut Client, secrets: &mut Secrets, stack: &str) {
    let issued = owner.tokens.issue(issue_request(stack, "found")).await;
    let secret = secrets.add(&issued.unwrap().into_inner().secret);
    let report = |secret: &str, url: &str| v1::ReportLeakedRequest {
        secret: secret.into(),
        url: url.into(),
    };
    let url = "https://git.test/site/.env";
    let leaks = &mut service.leaks;
    let bad = report(&secret, &format!("https://git.test/{secret}"));
    leaks.report_leaked(bad).await.unwrap_err();
    let refused = owner.leaks.report_leaked(report(&secret, url)).await;
    refused.unwrap_err();
    let line = format!("TOKEN={secret}");
    for found in [secret.as_str(), &secret, &secret[..50], &line] {
        leaks.report_leaked(report(found, url)).await.unwrap();
    }
    let ask = introspect_request(stack, &secret, &[]);
    let answer = service.introspection.introspect(ask).await.unwrap();
    assert!(!answer.into_inner().active);
    let misplaced = v1::RevokeAllRequest {
        stack_api_key: stack.into(),
        reason: secret.clone(),
        preview_hash: secret.clone(),
        ..Default::default()
    };
    owner.tokens.revoke_all(misplaced).await.unwrap_err();
}

/// Exchanges a workload's JWT, successfully and not, and sends the JWT where it does not belong.
async fn exchanged(dev: &Dev, secrets: &mut Secrets, stack: &str) {
    let jwt = dev.get("workload_jwt").to_owned();
    let mut owner = dev.client("owner_jwt").await;
    let mut service = dev.client("service_jwt").await;
    let mut workload = dev.client("workload_jwt").await;
    let request = v1::ListFederationIssuersRequest {
        stack_api_key: stack.into(),
    };
    let listed = owner.tokens.list_federation_issuers(request).await;
    let issuer = listed.unwrap().into_inner().issuers.remove(0);
    let subject = v1::ClaimRule {
        path: vec!["sub".into()],
        r#match: Some(v1::claim_rule::Match::Equals("publisher".into())),
    };
    let federation = v1::Federation {
        issuer: issuer.name,
        rules: vec![subject],
        session_for: None,
    };
    let request = v1::IssueRequest {
        federation: Some(federation.clone()),
        ..issue_request(stack, "federated")
    };
    let issued = owner.tokens.issue(request).await.unwrap().into_inner();
    let uid = issued.token.unwrap().token_uid;
    let mut misplaced = federation;
    misplaced.issuer.clone_from(&jwt);
    let request = v1::IssueRequest {
        federation: Some(misplaced),
        ..issue_request(stack, "misplaced")
    };
    owner.tokens.issue(request).await.unwrap_err();
    let explain = |token_uid: &str, subject_token: &str| v1::ExplainExchangeRequest {
        stack_api_key: stack.into(),
        token_uid: token_uid.into(),
        subject_token: subject_token.into(),
    };
    for request in [
        explain(&uid, &jwt),
        explain(&jwt, &jwt),
        explain(&uid, &jwt[..jwt.len() - 1]),
        explain(&uid, &"x".repeat(9000)),
    ] {
        let _ = owner.tokens.explain_exchange(request).await;
    }
    let exchange = |stack: &str, token_uid: &str| v1::ExchangeRequest {
        stack_api_key: stack.into(),
        token_uid: token_uid.into(),
        ..Default::default()
    };
    for (stack, token_uid) in [
        (stack, jwt.as_str()),
        (&jwt, &uid),
        ("blt00000000000000ff", ""),
    ] {
        let refused = workload.exchange.exchange(exchange(stack, token_uid)).await;
        refused.unwrap_err();
    }
    let session = workload.exchange.exchange(exchange(stack, &uid)).await;
    let secret = secrets.add(&session.unwrap().into_inner().secret);
    let over_http = crate::leak_http::exchange(dev, stack, &uid).await;
    secrets.add(&over_http);
    let ask = introspect_request(stack, &secret, &["entry.read"]);
    let answer = service.introspection.introspect(ask).await.unwrap();
    assert!(answer.into_inner().active);
    for secret in [format!("{secret}x"), over_http] {
        let end = v1::EndSessionRequest { secret };
        workload.exchange.end_session(end).await.unwrap();
    }
    let end = v1::EndSessionsRequest {
        stack_api_key: stack.into(),
        token_uid: uid,
        ..Default::default()
    };
    owner.tokens.end_sessions(end).await.unwrap();
}

/// Sends a secret in every text field of the requests.
async fn misplaced(owner: &mut Client, service: &mut Client, stack: &str, secret: &str) {
    let tokens = &mut owner.tokens;
    tokens
        .issue(issue_request(stack, secret))
        .await
        .unwrap_err();
    tokens
        .issue(issue_request(secret, "name"))
        .await
        .unwrap_err();
    let description = v1::IssueRequest {
        description: format!("for {secret}"),
        ..issue_request(stack, "described")
    };
    tokens.issue(description).await.unwrap_err();
    let module = v1::ModuleGrant {
        module: secret.into(),
        access: 1,
    };
    let narrowed = v1::Permissions {
        modules: Some(v1::ModuleGrants {
            grants: vec![module],
        }),
        branches: Some(v1::BranchGrants {
            branches: vec![secret.into()],
            aliases: vec![],
        }),
        ..permissions(v1::Access::Read)
    };
    let request = v1::IssueRequest {
        permissions: Some(narrowed),
        ..issue_request(stack, "narrow")
    };
    tokens.issue(request).await.unwrap_err();
    let revoke = v1::RevokeRequest {
        stack_api_key: stack.into(),
        token_uid: secret.into(),
        reason: secret.into(),
        validate_only: false,
        etag: String::new(),
    };
    tokens.revoke(revoke).await.unwrap_err();
    let list = v1::ListRequest {
        stack_api_key: stack.into(),
        page_token: secret.into(),
        name_contains: secret.into(),
        ..Default::default()
    };
    tokens.list(list).await.unwrap_err();
    let update = v1::UpdateRequest {
        stack_api_key: stack.into(),
        token: Some(v1::Token {
            token_uid: secret.into(),
            name: secret.into(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![secret.into(), "name".into()],
        }),
        validate_only: false,
        etag: secret.into(),
    };
    tokens.update(update).await.unwrap_err();
    let audit = audit::v1::ListRequest {
        actors: vec![audit::v1::ActorFilter {
            issuer: secret.into(),
            subject: secret.into(),
        }],
        token_uids: vec![secret.into()],
        methods: vec![secret.into()],
        error_reasons: vec![secret.into()],
        request_id: secret.into(),
        call_id: secret.into(),
        stack_api_key: stack.into(),
        ..Default::default()
    };
    owner.audit.list(audit).await.unwrap_err();
    let question = v1::ActionQuestion {
        name: secret.into(),
        branch: secret.into(),
        branch_alias: secret.into(),
        facts: [(secret.to_owned(), true)].into(),
    };
    let ask = v1::IntrospectRequest {
        token: secret.into(),
        stack_api_key: secret.into(),
        actions: vec![question],
        min_revision: secret.into(),
        include: Vec::new(),
    };
    let _ = service.introspection.introspect(ask).await;
}

/// Sends the secret as a revision, first to open a stream and then on an open stream.
async fn watched(service: &Client, secret: &str) {
    let refused = Watching::open(service, secret).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let mut watching = Watching::open(service, "").await.unwrap();
    watching.pong().await.unwrap();
    watching.send(watching::from(secret));
    let ended = watching.end().await;
    assert_eq!(ended.code(), tonic::Code::InvalidArgument);
}

/// Sends checks as Envoy does, with the secret where it belongs and everywhere else.
async fn checked(dev: &Dev, stack: &str, secret: &str) {
    let (path, jwt) = ("/v3/stacks", dev.get("service_jwt"));
    let asked = || {
        let asked = Http::get(path).with("authorization", secret);
        asked.with("api_key", stack)
    };
    let mut client = AuthorizationClient::new(dev.channel().await);
    for (asked, wanted) in [
        (asked(), "OK"),
        (asked().raw(), "OK"),
        (asked().with("x-note", secret), "OK"),
        (
            asked().with("authorization", secret),
            "401 CREDENTIAL_INVALID",
        ),
        (asked().with("api_key", secret), "412 STACK_KEY_INVALID"),
        (asked().with("branch", secret), "403 BRANCH_INVALID"),
        (asked().at(&format!("/v3/{secret}")), "403 ROUTE_UNKNOWN"),
        (
            asked().at(&format!("/v3/{secret}/")),
            "403 PATH_NOT_CANONICAL",
        ),
        (
            asked().at(&format!("{path}?authtoken={secret}")),
            "403 QUERY_AMBIGUOUS",
        ),
        (asked().route(secret, secret), "403 ROUTE_MISCONFIGURED"),
        (asked().route("actions", secret), "403 ROUTE_MISCONFIGURED"),
        (
            asked().route(&format!("fact.{secret}"), "true"),
            "403 ROUTE_MISCONFIGURED",
        ),
    ] {
        let mut request = Request::new(asked.into());
        let bearer = format!("Bearer {jwt}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(EnvoyAnswer::of(answer).outcome(), wanted);
    }
}

async fn audit_rows(dev: &Dev) -> String {
    let request = audit::v1::ListRequest {
        page_size: 100,
        ..Default::default()
    };
    let mut operator = dev.client("operator_jwt").await;
    format!(
        "{:?}",
        operator.audit.list(request).await.unwrap().into_inner()
    )
}

fn everything_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let store = fs::read_dir(folder.join(".stacktoken")).unwrap().flatten();
    let store = store.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("stacktoken.db")
    });
    let files = store
        .map(|entry| entry.path())
        .chain([folder.join("stderr")]);
    files
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_jwt_is_in_any_log_metric_trace_audit_row_or_file() {
    for format in ["text", "json"] {
        let folder = folder();
        let collector = Collector::start();
        let mut dev = Dev::start_with(folder.path(), |command| {
            command
                .env("RUST_LOG", "trace")
                .args(["--log-format", format]);
            if let Some(collector) = &collector {
                command
                    .args(["--otlp-endpoint", &collector.endpoint])
                    .args(["--trace-sample-ratio", "1"]);
            }
        });
        let welcome = fs::read(folder.path().join("stdout")).unwrap();
        let mut secrets = Secrets::default();
        drive(&dev, &mut secrets).await;
        // The refusals are written to the audit after the responses are sent.
        let told =
            crate::support::database::eventually("the refusal is in the audit", async || {
                let rows = audit_rows(&dev).await;
                rows.contains("STACK_NOT_FOUND").then_some(rows)
            });
        let told = told.await;
        assert!(
            told.contains("after: Some(AuditState"),
            "the audit shows states"
        );
        secrets.assert_absent("the audit", told.as_bytes());
        secrets.assert_absent("the metrics", scrape(&dev, "").await.1.as_bytes());
        for (path, bytes) in everything_in(folder.path()) {
            assert!(
                !path.ends_with("stderr") || bytes.len() > 1000,
                "the log is almost empty"
            );
            secrets.assert_absent(&path, &bytes);
        }
        let output = fs::read(folder.path().join("stdout")).unwrap();
        assert!(output.starts_with(&welcome));
        secrets.assert_absent("stdout after the welcome", &output[welcome.len()..]);
        dev.signal(Signal::TERM);
        assert!(dev.child.wait().unwrap().success());
        if let Some(collector) = collector {
            assert!(collector.await_spans(20).iter().any(|span| {
                span.parent_id == "b7ad6b7169203331" && span.name.ends_with("ListActions")
            }));
            secrets.assert_absent("the traces", collector.text().as_bytes());
        }
    }
}
