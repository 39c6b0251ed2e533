//! Calls that are decided late, because their message or the lock on the stack is delayed.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use prost::Message;
use stacktoken::grpc::pb::v1;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Request, Status, codegen::http::uri::PathAndQuery, transport::Channel};

use super::{
    at_instant, issue_request,
    raw::{Metadata, Raw},
    reason,
    requests::{Issued, overlap_for, rename_request, rotate_request, set_expiry_request},
};

/// A call for a token that expires before the call is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateQuestion {
    SetExpiry,
    Update,
    Rotate,
    /// Issues another token that has the same expiry.
    Issue,
    Preview,
}

impl LateQuestion {
    pub const ALL: [Self; 5] = [
        Self::SetExpiry,
        Self::Update,
        Self::Rotate,
        Self::Issue,
        Self::Preview,
    ];

    const fn path(self) -> &'static str {
        match self {
            Self::SetExpiry | Self::Preview => "/stacktoken.v1.TokenService/SetExpiry",
            Self::Update => "/stacktoken.v1.TokenService/Update",
            Self::Rotate => "/stacktoken.v1.TokenService/Rotate",
            Self::Issue => "/stacktoken.v1.TokenService/Issue",
        }
    }

    /// Returns the encoded request for the token. Only Issue uses `expires_at`, in microseconds.
    fn message(self, stack: &str, uid: &str, expires_at: i64) -> Vec<u8> {
        match self {
            Self::SetExpiry => set_expiry_request(stack, uid, super::never()).encode_to_vec(),
            Self::Preview => {
                let mut request = set_expiry_request(stack, uid, super::never());
                request.validate_only = true;
                request.encode_to_vec()
            }
            Self::Update => rename_request(stack, uid, "renamed").encode_to_vec(),
            Self::Rotate => rotate_request(stack, uid, overlap_for(60)).encode_to_vec(),
            Self::Issue => v1::IssueRequest {
                expiry: Some(at_instant(expires_at)),
                ..issue_request(stack, "late")
            }
            .encode_to_vec(),
        }
    }

    /// Returns the outcome if the call is decided only after the expiry.
    pub const fn too_late(self) -> &'static str {
        match self {
            Self::Issue => "InvalidArgument INVALID_FIELD",
            _ => "FailedPrecondition TOKEN_EXPIRED",
        }
    }
}

/// A call that has sent its headers but not its message.
pub struct PendingCall {
    release: oneshot::Sender<()>,
    answer: JoinHandle<Result<Vec<u8>, Status>>,
}

impl PendingCall {
    /// Sends the headers of a call for this token.
    pub async fn begin(
        channel: &Channel,
        jwt: &str,
        (asked, stack): (LateQuestion, &str),
        (token, expires_at): (&Issued, i64),
    ) -> Self {
        let (release, released) = oneshot::channel();
        let message = asked.message(stack, &token.uid, expires_at);
        let later = stream::once(async move {
            released.await.unwrap();
            message
        });
        let mut request = Request::new(later.boxed());
        Metadata::bearer(jwt).put_into(request.metadata_mut());
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let target = PathAndQuery::from_static(asked.path());
        let answer = tokio::spawn(async move {
            let answered = client.client_streaming(request, target, Raw).await;
            answered.map(tonic::Response::into_inner)
        });
        // Nothing signals that the headers have arrived. If this wait is too short, it can hide a
        // bug but cannot cause a false failure.
        tokio::time::sleep(Duration::from_millis(100)).await;
        Self { release, answer }
    }

    /// Sends the message.
    pub fn send(self) -> JoinHandle<Result<Vec<u8>, Status>> {
        self.release.send(()).unwrap();
        self.answer
    }
}

/// Returns `OK`, or the code and the reason.
pub fn outcome(answered: &Result<Vec<u8>, Status>) -> String {
    match answered {
        Ok(_) => "OK".into(),
        Err(status) => format!("{:?} {}", status.code(), reason(status)),
    }
}

/// Returns the microseconds since the Unix epoch.
pub fn micros(at: &prost_types::Timestamp) -> i64 {
    at.seconds * 1_000_000 + i64::from(at.nanos / 1000)
}
