//! A call as bytes, for promises about bytes.

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use prost::{Message, bytes::Bytes};
use tonic::{body::Body, transport::Channel};
use tower::ServiceExt as _;

/// Everything that came back, less the date.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Sends one message to a path and takes the answer as it is.
pub async fn call(
    channel: Channel,
    authorization: &str,
    path: &str,
    message: &impl Message,
) -> Answer {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let request = Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", authorization)
        .body(Body::new(Full::from(frame)))
        .unwrap();
    let (mut head, body) = channel.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    head.headers.remove("date");
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    }
}
