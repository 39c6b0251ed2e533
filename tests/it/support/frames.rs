//! Makes gRPC calls with raw frames, for tests that compare bytes.

use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{Message, bytes::Bytes};
use tokio::net::TcpStream;
use tonic::{body::Body, transport::Channel};
use tower::ServiceExt as _;

/// The whole response, undecoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Sends one message to a path, and returns the response undecoded.
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

/// Sends one message with these headers on a new connection, without a client-side timeout.
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

/// Returns a message with gRPC's length prefix.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// A request that can differ from a valid gRPC call in every part.
pub struct RawRequest {
    path: &'static str,
    method: Method,
    headers: Vec<(&'static str, String)>,
    chunks: Vec<Bytes>,
    /// The pause before each DATA frame.
    pause: Duration,
}

impl RawRequest {
    pub fn to(path: &'static str) -> Self {
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        Self {
            path,
            method: Method::POST,
            headers: grpc.map(|(name, value)| (name, value.to_owned())).to_vec(),
            chunks: Vec::new(),
            pause: Duration::ZERO,
        }
    }

    /// Sets the pause before each DATA frame.
    pub fn pausing(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Replaces a header, or removes it if `value` is `None`.
    pub fn header(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers
            .extend(value.map(|value| (name, value.to_owned())));
        self
    }

    /// Sets this JWT as the credential. An empty JWT means no credential.
    pub fn bearer(self, jwt: &str) -> Self {
        let value = (!jwt.is_empty()).then(|| format!("Bearer {jwt}"));
        self.header("authorization", value.as_deref())
    }

    /// Sends one message as the body, with the length prefix of gRPC.
    pub fn message(self, message: &[u8]) -> Self {
        self.chunks(vec![framed(message)])
    }

    /// Sets the content of the DATA frames.
    pub fn chunks(self, chunks: Vec<Bytes>) -> Self {
        Self { chunks, ..self }
    }

    /// Sends the request on a new connection.
    pub async fn send(self, address: &str) -> Answer {
        let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let executor = TokioExecutor::new();
        let opened = hyper::client::conn::http2::handshake(executor, socket).await;
        let (mut sender, connection) = opened.unwrap();
        let connection = tokio::spawn(connection);
        let target = format!("http://{address}{}", self.path);
        let mut request = Request::builder().method(self.method).uri(target);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let pause = self.pause;
        let frames = stream::iter(self.chunks).then(move |chunk| async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Ok::<_, Infallible>(Frame::data(chunk))
        });
        let body = Box::pin(StreamBody::new(frames));
        let answered = sender.send_request(request.body(body).unwrap()).await;
        let answer = answer(answered.unwrap()).await;
        connection.abort();
        answer
    }
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
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    }
}
