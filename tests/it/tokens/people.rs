//! Tests that it does not matter how a person signed in (R10), and that a token stays valid when
//! the person who issued it is no longer a member (R11).

use serde_json::json;
use stacktoken::grpc::pb::{admin::v1 as admin, audit::v1 as audit, v1};

use crate::support::{
    Client, ISSUER, TestServer,
    clock::START,
    issue_request,
    issuer::SSO,
    methods, person,
    requests::{Issued, list_request, outcome},
};

async fn signed_in(server: &TestServer, issuer: &str, how: serde_json::Value) -> Client {
    let mut claims = json!({
        "iss": issuer, "aud": "stacktoken", "sub": "owner", "exp": START + 3600,
    });
    let all = claims.as_object_mut().unwrap();
    all.extend(how.as_object().unwrap().clone());
    let jwt = server.issuer.sign(&claims);
    server.with_authorization(format!("Bearer {jwt}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_person_signed_in_makes_no_difference() {
    let server = TestServer::start().await;
    for (at, how) in [
        json!({}),
        json!({ "amr": ["pwd"] }),
        json!({ "amr": ["sso", "mfa"], "acr": "urn:sso", "idp": "https://saml.example" }),
        json!({ "email": "someone-else@example.com", "name": "Nobody", "role": "developer" }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = signed_in(&server, ISSUER, how.clone()).await;
        let request = issue_request(&server.stack, &format!("token {at}"));
        let issued = client.tokens.issue(request).await.unwrap().into_inner();
        assert_eq!(server.verdict(&issued.secret).await, "OK", "{how}");
        let by = issued.token.unwrap().issued_by.unwrap();
        assert_eq!((by.issuer.as_str(), by.subject.as_str()), (ISSUER, "owner"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_configured_issuer_will_do_and_the_same_subject_of_another_is_somebody_else() {
    let server = TestServer::start().await;
    let mut by_sso = signed_in(&server, SSO, json!({})).await;
    let request = issue_request(&server.stack, "deploy");
    assert_eq!(
        outcome(&by_sso.tokens.issue(request.clone()).await),
        "NotFound STACK_NOT_FOUND"
    );
    let member = admin::Person {
        issuer: SSO.into(),
        ..person("owner")
    };
    let request_member = admin::SetMemberRequest {
        stack_api_key: server.stack.clone(),
        member: Some(member),
        role: v1::Role::Admin.into(),
        validate_only: false,
    };
    let mut operator = server.operator().await;
    operator.stacks.set_member(request_member).await.unwrap();
    let issued = by_sso.tokens.issue(request).await.unwrap().into_inner();
    assert_eq!(server.verdict(&issued.secret).await, "OK");
    let by = issued.token.unwrap().issued_by.unwrap();
    assert_eq!((by.issuer.as_str(), by.subject.as_str()), (SSO, "owner"));
}

/// Issues a token as this caller.
async fn issued_by(server: &TestServer, client: &mut Client, name: &str) -> Issued {
    let request = issue_request(&server.stack, name);
    client
        .tokens
        .issue(request)
        .await
        .unwrap()
        .into_inner()
        .into()
}

async fn issuer_in_the_audit(server: &TestServer, uid: &str) -> String {
    let issue =
        |event: &audit::AuditEvent| event.token_uid == uid && event.method == methods::ISSUE;
    let event = server.audit().await.into_iter().find(issue).unwrap();
    event.actor.unwrap().subject
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_on_when_the_member_who_issued_it_is_removed() {
    let server = TestServer::start().await;
    let mut admin = server.admin().await;
    let token = issued_by(&server, &mut admin, "deploy").await;
    let request = admin::RemoveMemberRequest {
        stack_api_key: server.stack.clone(),
        member: Some(person("admin")),
        validate_only: false,
    };
    let mut operator = server.operator().await;
    operator.stacks.remove_member(request).await.unwrap();
    let answer = server.introspect(&token.secret, &["entry.update"]).await;
    assert_eq!(answer.decision(), v1::Decision::Allow);
    let seen = server.see(&token.uid).await;
    assert_eq!(seen.issued_by.unwrap().subject, "admin");
    assert_eq!(issuer_in_the_audit(&server, &token.uid).await, "admin");
    let listed = admin.tokens.list(list_request(&server.stack)).await;
    assert_eq!(outcome(&listed), "NotFound STACK_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_on_when_the_stack_gets_another_owner() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let token = issued_by(&server, &mut owner, "deploy").await;
    let request = admin::TransferOwnershipRequest {
        stack_api_key: server.stack.clone(),
        new_owner: Some(person("heir")),
        validate_only: false,
    };
    let mut operator = server.operator().await;
    operator.stacks.transfer_ownership(request).await.unwrap();
    let answer = server.introspect(&token.secret, &["entry.update"]).await;
    assert_eq!(answer.decision(), v1::Decision::Allow);
    let mut heir = server.user("heir").await;
    let listed = heir.tokens.list(list_request(&server.stack)).await;
    let [seen] = <[_; 1]>::try_from(listed.unwrap().into_inner().tokens).unwrap();
    assert_eq!(seen.issued_by.unwrap().subject, "owner");
    assert_eq!(issuer_in_the_audit(&server, &token.uid).await, "owner");
    let former = owner.tokens.list(list_request(&server.stack)).await;
    assert_eq!(outcome(&former), "NotFound STACK_NOT_FOUND");
}
