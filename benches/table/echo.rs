//! The baseline of `benches/table.rs`: a bare tonic server with the default runtime, in its own
//! process, that responds with a fixed number of bytes.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    task::{Context, Poll},
};

use prost::bytes::{Buf as _, BufMut as _, Bytes};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};

pub const PATH: &str = "/stacktoken.bench.Echo/Unary";
const ASKED: &str = "STACKTOKEN_BENCH_ECHO";

/// Returns the response size if this process must run the echo server.
pub fn asked_for() -> Option<usize> {
    std::env::var(ASKED).ok()?.parse().ok()
}

/// The process of the echo server. Dropping it kills the process.
pub struct Echo {
    child: Child,
    pub port: u16,
}

impl Echo {
    pub fn start(size: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ASKED, size.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Self { child, port }
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn serve(size: usize) {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let incoming = incoming.with_nodelay(Some(true));
    println!("{}", incoming.local_addr().unwrap().port());
    let answer = Bytes::from(vec![b'x'; size]);
    let served = Server::builder().add_service(Constant(answer));
    served.serve_with_incoming(incoming).await.unwrap();
}

#[derive(Clone)]
struct Constant(Bytes);

impl NamedService for Constant {
    const NAME: &'static str = "stacktoken.bench.Echo";
}

impl UnaryService<Bytes> for Constant {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.clone())))
    }
}

impl Service<http::Request<Body>> for Constant {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).unary(service, request).await) })
    }
}

#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
