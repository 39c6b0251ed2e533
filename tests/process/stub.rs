//! A server that answers each call as the test says, and keeps the headers of the last call.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use http::HeaderMap;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::AbortHandle};
use tonic::Status;

/// The answer to a call.
#[derive(Clone)]
pub enum Reply {
    /// Fails with this status.
    Status(Status),
    /// Succeeds with this message.
    Message(Vec<u8>),
    /// Never answers, and does not even send headers.
    Nothing,
    /// Sends headers and nothing else.
    HeadersOnly,
}

/// A gRPC server in the process of the test. It stops when it is dropped.
pub struct Stub {
    pub address: SocketAddr,
    reply: Arc<Mutex<Reply>>,
    headers: Arc<Mutex<HeaderMap>>,
    serving: AbortHandle,
}

impl Stub {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reply = Arc::new(Mutex::new(Reply::Nothing));
        let headers = Arc::new(Mutex::new(HeaderMap::new()));
        let (next, last) = (reply.clone(), headers.clone());
        let router = Router::new().fallback(move |request: Request| {
            *last.lock().unwrap() = request.headers().clone();
            answer(next.lock().unwrap().clone())
        });
        // tonic's server is not used, because it ends a call on its own when the caller's deadline
        // has passed.
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                let connection = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection);
            }
        });
        Self {
            address,
            reply,
            headers,
            serving: serving.abort_handle(),
        }
    }

    /// Sets the answer to the next calls.
    pub fn reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// Returns a header of the last call.
    pub fn header(&self, name: &str) -> String {
        let headers = self.headers.lock().unwrap();
        let value = headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(reply: Reply) -> Response {
    let response = Response::builder().header("content-type", "application/grpc");
    match reply {
        Reply::Status(status) => status.into_http(),
        Reply::Message(message) => {
            let mut frame = vec![0];
            frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend(message);
            // A status in the headers ends the call, as a status in the trailers would.
            let response = response.header("grpc-status", "0");
            response.body(Body::from(frame)).unwrap()
        }
        Reply::Nothing => std::future::pending().await,
        Reply::HeadersOnly => {
            let silence = tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>();
            response.body(Body::from_stream(silence)).unwrap()
        }
    }
}

/// Starts a web server that speaks HTTP/1.1 but not gRPC.
pub async fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, Router::new()).await.unwrap() });
    address
}

/// Starts a server that answers whatever it reads with these bytes. Without `knows_http2`, it
/// closes a connection that starts with the HTTP/2 preface and sends nothing on it.
pub fn answers_with(bytes: &'static [u8], knows_http2: bool) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut read = [0; 4096];
            while socket.read(&mut read).is_ok_and(|count| count > 0) {
                let is_unknown = !knows_http2 && read.starts_with(b"PRI");
                if is_unknown || socket.write_all(bytes).is_err() {
                    break;
                }
            }
        }
    });
    address
}
