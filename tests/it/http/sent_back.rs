//! Tests tokens that were issued over gRPC and are sent back over the routes of the CMS.

use http::Method;
use serde_json::{Value, json};
use stacktoken::grpc::pb::v1;

use super::cms::{create, documented};
use crate::support::{TestServer, issue_request};

fn grant(module: &str, access: v1::Access) -> v1::ModuleGrant {
    v1::ModuleGrant {
        module: module.into(),
        access: access.into(),
    }
}

/// Issues a token that may write entries on one branch and one alias, and nothing else.
async fn narrowed(server: &TestServer) -> v1::IssueResponse {
    let permissions = v1::Permissions {
        access: v1::Access::ReadWrite.into(),
        modules: Some(v1::ModuleGrants {
            grants: vec![grant("entry", v1::Access::ReadWrite)],
        }),
        branches: Some(v1::BranchGrants {
            branches: vec!["main".into()],
            aliases: vec!["live".into()],
        }),
    };
    let request = v1::IssueRequest {
        permissions: Some(permissions),
        ..issue_request(&server.stack, "narrowed")
    };
    let issued = server.owner().await.tokens.issue(request).await;
    issued.unwrap().into_inner()
}

async fn permissions(server: &TestServer, token_uid: &str) -> v1::Permissions {
    let request = v1::GetRequest {
        stack_api_key: server.stack.clone(),
        token_uid: token_uid.into(),
    };
    let got = server.owner().await.tokens.get(request).await.unwrap();
    got.into_inner().token.unwrap().permissions.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_grpc_that_is_sent_back_unchanged_is_not_widened() {
    let server = TestServer::start().await;
    let issued = narrowed(&server).await;
    let uid = issued.token.unwrap().token_uid;
    let below = format!("/{uid}");
    let before = permissions(&server, &uid).await;
    let rows = server.audit().await.len();
    let shown = server.cms(Method::GET, &below).send().await.json();
    let put = server.cms(Method::PUT, &below).json(&shown).send().await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(put.json()["token"], shown["token"]);
    assert_eq!(permissions(&server, &uid).await, before);
    assert_eq!(server.audit().await.len(), rows);
    for action in ["branch.read;branch=main", "branch_alias.read;branch=main"] {
        let asked = [("token", issued.secret.as_str()), ("action", action)];
        let answer = server.ask(&asked).send().await.json();
        assert_eq!(answer["stacktoken"]["decision"], "DENY", "{action}");
    }

    // Adding a module does not change the branches.
    let mut changed = shown.clone();
    let scope = changed["token"]["scope"].as_array_mut().unwrap();
    scope.push(json!({ "module": "asset", "acl": { "read": true } }));
    let put = server.cms(Method::PUT, &below).json(&changed).send().await;
    assert_eq!(put.status, 200, "{put:?}");
    let mut after = permissions(&server, &uid).await;
    let grants = &mut after.modules.as_mut().unwrap().grants;
    grants.retain(|grant| grant.module != "asset");
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_permits_nothing_is_accepted_for_names_only() {
    let server = TestServer::start().await;
    let nothing = json!({ "read": false, "write": false });
    let named = json!({ "module": "branch", "branches": ["main"], "acl": nothing });
    let entry = json!({ "module": "entry", "acl": { "read": true } });
    let with = async |name: &str, scope: Value| {
        let mut body = documented();
        body["token"]["name"] = name.into();
        body["token"]["scope"] = scope;
        create(&server, &body).await.status
    };
    assert_eq!(with("a", json!([entry, named])).await, 201);
    for scope in [
        json!([named]),
        json!([entry, { "module": "branch", "acl": nothing }]),
        json!([entry, { "module": "asset", "acl": nothing }]),
        json!([entry, { "module": "branch", "branches": [], "acl": nothing }]),
        json!([entry, { "module": "branch", "branches": ["main"], "acl": {} }]),
        json!([entry, { "module": "branch", "branch_aliases": ["live"], "acl": nothing }]),
    ] {
        assert_eq!(with("b", scope.clone()).await, 422, "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_can_be_repeated_with_its_idempotency_key() {
    let server = TestServer::start().await;
    let call = async |key: &str, body: &Value| {
        let call = server.cms(Method::POST, "").json(body);
        call.header("idempotency-key", key).send().await
    };
    let first = call("k-1", &documented()).await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = call("\"k-1\"", &documented()).await;
    assert_eq!(again.status, 201, "{again:?}");
    let (first, again) = (first.json(), again.json());
    assert_eq!(first["token"]["uid"], again["token"]["uid"]);
    assert_ne!(first["token"]["token"], again["token"]["token"]);
    let mut other = documented();
    other["token"]["name"] = "other".into();
    assert_eq!(call("k-1", &other).await.status, 422);
    let malformed = call("a b", &other).await;
    assert_eq!(malformed.status, 422);
    assert!(malformed.json()["errors"]["Idempotency-Key"].is_array());
}
