//! Tests federated tokens: how they are issued, exchanges, and sessions and their end.

mod bad_input;
mod earlier_version;
mod end_session;
mod explained;
mod kubernetes;
mod life;
mod races;
mod refused;
mod removed_issuer;
mod replayed;
mod subjects;

use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::support::{TestServer, reason};

/// Returns the code and the reason of a failed call.
fn refusal(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

/// Returns how many sessions of a token are live.
async fn live(server: &TestServer, token_uid: &str) -> u32 {
    let request = v1::GetRequest {
        stack_api_key: server.stack.clone(),
        token_uid: token_uid.into(),
    };
    let got = server.owner().await.tokens.get(request).await.unwrap();
    got.into_inner().live_sessions
}

/// Returns a request to change the federation of a token.
fn update(
    server: &TestServer,
    token_uid: &str,
    federation: Option<v1::Federation>,
) -> v1::UpdateRequest {
    v1::UpdateRequest {
        stack_api_key: server.stack.clone(),
        token: Some(v1::Token {
            token_uid: token_uid.into(),
            federation,
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["federation".into()],
        }),
        ..Default::default()
    }
}

/// Returns a request to end sessions.
fn end(server: &TestServer, token_uid: &str, subject: &str) -> v1::EndSessionsRequest {
    v1::EndSessionsRequest {
        stack_api_key: server.stack.clone(),
        token_uid: token_uid.into(),
        subject: subject.into(),
        validate_only: false,
    }
}
