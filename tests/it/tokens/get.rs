use prost_types::Timestamp;
use stacktoken::grpc::pb::v1;

use crate::support::{
    ISSUER, TestServer, at,
    clients::fields,
    clock::START,
    issue_request, permissions,
    requests::{get_request, refused, revoke_request},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_answers_the_whole_record_and_never_the_secret() {
    let server = TestServer::start().await;
    let request = v1::IssueRequest {
        description: "Deploys the site".into(),
        expiry: Some(at(START + 60)),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        ..issue_request(&server.stack, "deploy")
    };
    let issued = server.admin().await.tokens.issue(request).await;
    let issued = issued.unwrap().into_inner();
    let token = issued.token.unwrap();
    let seconds = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let expected = v1::Token {
        token_uid: token.token_uid.clone(),
        stack_api_key: server.stack.clone(),
        name: "deploy".into(),
        description: "Deploys the site".into(),
        permissions: Some(permissions(v1::Access::ReadWrite)),
        state: v1::TokenState::Active.into(),
        generation: 1,
        secrets: vec![v1::TokenSecret {
            generation: 1,
            hint: issued.secret[issued.secret.len() - 4..].into(),
            created_at: seconds(START),
            first_used_at: None,
            ends_at: None,
        }],
        issued_at: seconds(START),
        expires_at: seconds(START + 60),
        revoked_at: None,
        revoke_reason: String::new(),
        issued_by: Some(v1::Actor {
            kind: v1::CallerKind::User.into(),
            issuer: ISSUER.into(),
            subject: "admin".into(),
        }),
        revoked_by: None,
        last_used_at: None,
        etag: token.etag.clone(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        federation: None,
        issuer_configured: false,
    };
    assert_ne!(token.etag, "");
    assert_eq!(token, expected);
    assert_eq!(server.see(&token.token_uid).await, expected);
    let uid: uuid::Uuid = token.token_uid.parse().unwrap();
    assert_eq!(uid.get_version_num(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_token_can_still_be_read_with_when_by_whom_and_why() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    server
        .clock
        .advance(std::time::Duration::from_micros(1_500_000));
    let request = revoke_request(&server.stack, &token.uid, "the laptop was stolen");
    let mut operator = server.operator().await;
    operator.tokens.revoke(request).await.unwrap();
    let seen = server.see(&token.uid).await;
    assert_eq!(seen.state(), v1::TokenState::Revoked);
    let when = Timestamp {
        seconds: START + 1,
        nanos: 500_000_000,
    };
    assert_eq!(seen.revoked_at, Some(when));
    assert_eq!(seen.revoke_reason, "the laptop was stolen");
    let by = seen.revoked_by.unwrap();
    assert_eq!(by.kind(), v1::CallerKind::Operator);
    assert_eq!(
        (by.issuer.as_str(), by.subject.as_str()),
        (ISSUER, "operator")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_names_every_field_that_is_wrong() {
    let server = TestServer::start().await;
    let mut owner = server.owner().await;
    let uid = "01890000-0000-7000-8000-000000000000";
    for (stack, token_uid, expected) in [
        ("", "", vec!["stack_api_key", "token_uid"]),
        (
            "blt00C0FFEE00C0FFEE",
            "not-a-uuid",
            vec!["stack_api_key", "token_uid"],
        ),
        (server.stack.as_str(), "", vec!["token_uid"]),
        (server.stack.as_str(), &uid[1..], vec!["token_uid"]),
        (&server.stack[1..], uid, vec!["stack_api_key"]),
    ] {
        let status = owner.tokens.get(get_request(stack, token_uid)).await;
        let status = status.unwrap_err();
        let expected_refusal = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
        assert_eq!(refused(&status), expected_refusal);
        assert_eq!(fields(&status), expected, "{stack:?} {token_uid:?}");
    }
}
