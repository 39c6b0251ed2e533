use stacktoken::grpc::pb::v1;
use tonic::Code;

use crate::support::{TestServer, clients::fields, issue_request, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_and_admin_issue_and_nobody_else() {
    let server = TestServer::start().await;
    for (client, expected) in [
        (server.owner().await, None),
        (server.admin().await, None),
        (
            server.developer().await,
            Some((Code::PermissionDenied, "ROLE_REQUIRED")),
        ),
        (
            server.content_manager().await,
            Some((Code::PermissionDenied, "ROLE_REQUIRED")),
        ),
        (
            server.stranger().await,
            Some((Code::NotFound, "STACK_NOT_FOUND")),
        ),
        (
            server.operator().await,
            Some((Code::PermissionDenied, "ROLE_REQUIRED")),
        ),
        (
            server.service().await,
            Some((Code::PermissionDenied, "ROLE_REQUIRED")),
        ),
    ] {
        let name = format!("token {expected:?}{}", uuid::Uuid::from_u128(7));
        let issued = client
            .clone()
            .tokens
            .issue(issue_request(&server.stack, &name[..20]))
            .await;
        match (issued, expected) {
            (Ok(issued), None) => {
                let uid = issued.into_inner().token.unwrap().token_uid;
                let revoke = v1::RevokeRequest {
                    stack_api_key: server.stack.clone(),
                    token_uid: uid,
                    reason: String::new(),
                };
                client.clone().tokens.revoke(revoke).await.unwrap();
            }
            (Err(status), Some((code, why))) => {
                assert_eq!((status.code(), reason(&status).as_str()), (code, why))
            }
            (other, expected) => panic!("{other:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_request_is_reported_at_once() {
    let server = TestServer::start().await;
    let status = server
        .owner()
        .await
        .tokens
        .issue(v1::IssueRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(reason(&status), "INVALID_FIELD");
    assert_eq!(
        fields(&status),
        ["stack_api_key", "name", "permissions", "expiry"]
    );
}
