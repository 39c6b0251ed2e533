//! Serves HTTP/1.1 connections of the HTTP port. hyper refuses requests whose length is ambiguous,
//! such as those with both `content-length` and `transfer-encoding`.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::TokioTimer;

use super::{
    Answer, AnswerFuture, Connections, PerConnection,
    response_body::{ResponseBody, ResponseFuture},
};

/// Maximum number of headers of a request. hyper responds with 431 if there are more.
const MAX_HEADERS: usize = 64;
/// hyper's smallest buffer for the head of a request, in bytes.
const MIN_BUFFER: usize = 8 * 1024;

impl<S: Answer> Connections<S> {
    /// Builds the HTTP/1.1 settings. A request head that is larger than the buffer is refused with
    /// 431. The timeout for the head also closes idle connections, so it is as long as the time
    /// after which HTTP/2 closes a connection whose client does not reply.
    pub(super) fn http1(&self) -> http1::Builder {
        let tuning = &self.tuning;
        let head = usize::try_from(tuning.max_header_bytes).unwrap_or(usize::MAX);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(tuning.keepalive_interval + tuning.keepalive_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(head.max(MIN_BUFFER))
            .half_close(false);
        http1
    }
}

/// Hyper service of one connection. It adds `connection: close` to the last response, after which
/// hyper closes the connection.
pub(super) struct Announcing<S> {
    inner: PerConnection<S>,
    is_last: Arc<AtomicBool>,
}

impl<S> Announcing<S> {
    pub const fn new(inner: PerConnection<S>, is_last: Arc<AtomicBool>) -> Self {
        Self { inner, is_last }
    }
}

impl<S: Answer> Service<Request<Incoming>> for Announcing<S> {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = AnnouncingFuture;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        AnnouncingFuture {
            response: self.inner.call(request),
            is_last: self.is_last.clone(),
        }
    }
}

/// Future of a response that may be the last of its connection.
pub(super) struct AnnouncingFuture {
    response: ResponseFuture<AnswerFuture>,
    is_last: Arc<AtomicBool>,
}

impl Future for AnnouncingFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.response).poll(cx));
        if self.is_last.load(Ordering::Relaxed) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Poll::Ready(Ok(response))
    }
}
