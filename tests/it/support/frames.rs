//! A call as bytes, for promises about bytes.

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{Message, bytes::Bytes};
use tokio::net::TcpStream;
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
    let headers = [("authorization", authorization)];
    let request = request(path, &headers, message).map(Body::new);
    let response = channel.oneshot(request).await.unwrap();
    answer(response).await
}

/// The same over a connection of its own, with these headers, and with nothing that would end
/// the call before the server does.
pub async fn call_alone(
    address: &str,
    headers: &[(&str, &str)],
    path: &str,
    message: &impl Message,
) -> Answer {
    let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let executor = TokioExecutor::new();
    let opened = hyper::client::conn::http2::handshake(executor, socket).await;
    let (mut sender, connection) = opened.unwrap();
    let connection = tokio::spawn(connection);
    let target = format!("http://{address}{path}");
    let response = sender.send_request(request(&target, headers, message));
    let answer = answer(response.await.unwrap()).await;
    connection.abort();
    answer
}

fn request(target: &str, headers: &[(&str, &str)], message: &impl Message) -> Request<Full<Bytes>> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let mut request = Request::post(target)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(frame)).unwrap()
}

async fn answer<B>(response: Response<B>) -> Answer
where
    B: hyper::body::Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let (mut head, body) = response.into_parts();
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
