//! Tests `POST /oauth2/introspect` (RFC 7662).

use http::Method;
use serde_json::{Value, json};
use stacktoken::grpc::pb::v1;

use crate::support::{
    TestServer, at, clock::START, http::HttpAnswer, issue_request, raw::TestCaller,
};

const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";
const INACTIVE: &[u8] = b"{\"active\":false}";

/// Issues a token that is valid for one hour and may write entries on the branch `main` and read
/// assets.
async fn narrowed(server: &TestServer) -> v1::IssueResponse {
    let grant = |module: &str, access: v1::Access| v1::ModuleGrant {
        module: module.into(),
        access: access.into(),
    };
    let grants = vec![
        grant("entry", v1::Access::ReadWrite),
        grant("asset", v1::Access::Read),
    ];
    let permissions = v1::Permissions {
        access: v1::Access::ReadWrite.into(),
        modules: Some(v1::ModuleGrants { grants }),
        branches: Some(v1::BranchGrants {
            branches: vec!["main".into()],
            aliases: vec!["live".into()],
        }),
    };
    let request = v1::IssueRequest {
        permissions: Some(permissions),
        expiry: Some(at(START + 3600)),
        ..issue_request(&server.stack, "narrowed")
    };
    let issued = server.owner().await.tokens.issue(request).await;
    issued.unwrap().into_inner()
}

fn require_inactive(answer: &HttpAnswer) {
    assert_eq!(
        (answer.status, &answer.body[..]),
        (200, INACTIVE),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_active_token_has_the_fields_of_rfc_7662() {
    let server = TestServer::start().await;
    let issued = narrowed(&server).await;
    let answer = server.ask(&[("token", &issued.secret)]).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let token = issued.token.unwrap();
    let wanted = json!({
        "active": true,
        "scope": "entry:READ_WRITE asset:READ",
        "sub": token.token_uid,
        "aud": server.stack,
        "iss": format!("http://{}", server.http_address),
        "iat": token.issued_at.unwrap().seconds,
        "exp": START + 3600,
    });
    assert_eq!(answer.json(), wanted);
    let whole = server.issue("whole").await;
    let answer = server.ask(&[("token", &whole.secret)]).send().await.json();
    assert_eq!(answer["scope"], "*:READ_WRITE");
    assert_eq!(answer.get("exp"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_key_is_in_the_path_the_form_or_the_header() {
    let server = TestServer::start().await;
    let token = server.issue("deploy").await;
    let (secret, stack) = (token.secret.as_str(), server.stack.clone());
    let jwt = TestCaller::Introspector.jwt(&server);
    let call = |path: &str| server.http(Method::POST, path).bearer(&jwt);
    let in_form = [("token", secret), ("stack_api_key", stack.as_str())];
    let in_path = format!("/oauth2/introspect/{stack}");
    let alone = [("token", secret)];
    for call in [
        call("/oauth2/introspect").form(&in_form),
        call("/oauth2/introspect")
            .form(&alone)
            .header("api_key", &stack),
        call(&in_path).form(&alone),
        call(&in_path).form(&in_form).header("api_key", &stack),
        call(&in_path.replace("blt", "%62lt")).form(&alone),
    ] {
        assert_eq!(call.send().await.json()["active"], true);
    }
    let other = server.register("Other").await;
    for call in [
        call("/oauth2/introspect").form(&alone),
        call("/oauth2/introspect").form(&[("token", secret), ("stack_api_key", "")]),
        call(&in_path).form(&[("token", secret), ("stack_api_key", &other)]),
        call(&in_path).form(&alone).header("api_key", &other),
        call("/oauth2/introspect")
            .form(&in_form)
            .header("api_key", &other),
        call(&in_path)
            .form(&alone)
            .header("api_key", &stack)
            .header("api_key", &stack),
    ] {
        assert_eq!(call.send().await.refusal(), (400, "invalid_request".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_active_is_the_same_bytes_whatever_the_reason() {
    let server = TestServer::start().await;
    let (revoked, other) = (server.issue("gone").await, server.register("Other").await);
    let live = server.issue("live").await;
    server.revoke(&revoked.token.unwrap().token_uid).await;
    for token in [&revoked.secret, UNKNOWN, "", "junk", &"x".repeat(9000)] {
        if !token.is_empty() {
            require_inactive(&server.ask(&[("token", token)]).send().await);
        }
        let with_action = [("token", UNKNOWN), ("action", "entry.read")];
        require_inactive(&server.ask(&with_action).send().await);
    }
    for stack in [other.as_str(), "blt0000000000000000"] {
        let jwt = TestCaller::Introspector.jwt(&server);
        let call = server.http(Method::POST, &format!("/oauth2/introspect/{stack}"));
        let call = call.bearer(&jwt).form(&[("token", &live.secret)]);
        require_inactive(&call.send().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_stack_key_is_an_error_and_not_inactive() {
    let server = TestServer::start().await;
    let secret = server.issue("live").await.secret;
    let jwt = TestCaller::Introspector.jwt(&server);
    let call = |path: &str| server.http(Method::POST, path).bearer(&jwt);
    let upper = server.stack.to_uppercase();
    let longer = format!("{}0", server.stack);
    for stack in ["nonsense", &upper, &longer, "blt0123"] {
        for call in [
            call(&format!("/oauth2/introspect/{stack}")).form(&[("token", &secret)]),
            call("/oauth2/introspect").form(&[("token", &secret), ("stack_api_key", stack)]),
            call("/oauth2/introspect")
                .form(&[("token", &secret)])
                .header("api_key", stack),
        ] {
            let answer = call.send().await;
            assert_eq!(
                answer.refusal(),
                (400, "invalid_request".into()),
                "{stack}: {answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_actions_are_decided_in_their_order() {
    let server = TestServer::start().await;
    let issued = narrowed(&server).await;
    let decided = async |actions: &[&str]| -> Value {
        let mut parameters = vec![("token", issued.secret.as_str())];
        parameters.extend(actions.iter().map(|action| ("action", *action)));
        server.ask(&parameters).send().await.json()["stacktoken"].take()
    };
    let allowed = decided(&["entry.update;branch=main", "asset.read;branch_alias=live"]).await;
    let wanted = json!({
        "decision": "ALLOW",
        "results": [
            { "name": "entry.update", "allowed": true },
            { "name": "asset.read", "allowed": true },
        ],
    });
    assert_eq!(allowed, wanted);
    let denied = decided(&[
        "entry.update;branch=dev",
        "asset.update;branch=main",
        "no.such",
    ])
    .await;
    let wanted = json!({
        "decision": "DENY",
        "reason": "BRANCH_NOT_GRANTED",
        "results": [
            { "name": "entry.update", "allowed": false, "reason": "BRANCH_NOT_GRANTED", "missing": { "branch": "dev" } },
            { "name": "asset.update", "allowed": false, "reason": "READ_ONLY", "missing": { "scope": "asset:READ_WRITE" } },
            { "name": "no.such", "allowed": false, "reason": "ACTION_UNKNOWN" },
        ],
    });
    assert_eq!(denied, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_are_stated_with_an_action() {
    let server = TestServer::start().await;
    let issued = server.issue("whole").await;
    for (fact, decision) in [
        (";fact.has_approvers=false", "ALLOW"),
        (";fact.has_approvers=true", "DENY"),
        ("", "DENY"),
    ] {
        let action = format!("publish_rule.create{fact}");
        let parameters = [("token", issued.secret.as_str()), ("action", &action)];
        let answer = server.ask(&parameters).send().await.json();
        assert_eq!(answer["stacktoken"]["decision"], decision, "{fact}");
    }
    for action in [
        "entry.read;fact.x=maybe",
        "entry.read;fact.x=true;fact.x=true",
        "entry.read;branch=a;branch=b",
        "entry.read;branch=",
        "entry.read;nothing=1",
        "entry.read;branch",
        "no action",
        ";branch=main",
    ] {
        let parameters = [("token", issued.secret.as_str()), ("action", action)];
        let answer = server.ask(&parameters).send().await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid_request".into()),
            "{action}"
        );
    }
}
