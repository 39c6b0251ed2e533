//! The HTTP port. It reads a request within the limits, and answers the request by calling RPCs of
//! this server. These calls go through [`Dispatcher`], like calls on the gRPC port.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio_util::bytes::Bytes;
use tonic::body::Body;

use super::{
    connections::{
        Answer, AnswerFuture, Peer,
        request_body::{Expected, RequestBody},
    },
    dispatcher::Dispatcher,
    headers,
    message::{discard, run_limited},
    port_parts::PortParts,
    request_id,
};
use crate::{
    domain::entropy::SplitMix64,
    grpc::status::Failure,
    http::{Api, Refusal, RpcFuture, Rpcs, Settings},
    metrics::CallLabels,
};

static GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// How much time a request may have used before its calls get a deadline of the remaining time.
const SHORT: Duration = Duration::from_millis(100);

/// Answers requests of the HTTP port.
pub(super) struct HttpPort {
    dispatcher: Arc<Dispatcher>,
    api: Api,
    ids: SplitMix64,
    deadline: Duration,
    max_header_bytes: u32,
    max_body_bytes: usize,
}

/// Calls RPCs in this process for one HTTP request.
struct InProcess {
    port: Arc<HttpPort>,
    peer: Arc<Peer>,
    arrived_at: Duration,
    has_called: AtomicBool,
}

impl HttpPort {
    pub fn new(dispatcher: Arc<Dispatcher>, public_url: &str, shared: &PortParts) -> Self {
        let tls = shared.tls.as_ref();
        let api = Api::new(Settings {
            public_url: public_url.to_owned(),
            client_certificates: tls.is_some_and(|tls| tls.asks_for_certificates()),
            clock: dispatcher.clock.clone(),
        });
        let tuning = &shared.tuning;
        Self {
            dispatcher,
            api,
            ids: SplitMix64::seeded(shared.entropy.as_ref()),
            deadline: tuning.deadline,
            max_header_bytes: tuning.max_header_bytes,
            max_body_bytes: tuning.max_request_bytes,
        }
    }

    async fn serve(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> Response<Body> {
        let clock = self.dispatcher.clock.clone();
        let arrived_at = clock.monotonic();
        let sent = request_id::sent(request.headers());
        let id = sent.unwrap_or_else(|| request_id::generate(clock.as_ref(), &self.ids));
        let path = request.uri().path().to_owned();
        let rpcs = Arc::new(InProcess {
            port: self.clone(),
            peer: peer.clone(),
            arrived_at,
            has_called: AtomicBool::new(false),
        });
        let response = match self.read(request, &peer).await {
            Ok(request) => {
                let answering = self.api.answer(request, rpcs.clone(), &id);
                let answered = AssertUnwindSafe(answering).catch_unwind().await;
                answered.unwrap_or_else(|_| {
                    tracing::error!(request_id = id, "the answer to an HTTP request panicked");
                    Api::refuse(&path, Refusal::Internal, &id)
                })
            }
            Err(refusal) => Api::refuse(&path, refusal, &id),
        };
        if !rpcs.has_called.load(Ordering::Relaxed) {
            let took = clock.monotonic().saturating_sub(arrived_at);
            self.count_refused(response.status(), took);
        }
        response.map(Body::new)
    }

    /// Reads the body of a request. Until the body has arrived, the request counts against its
    /// peer's backlog, like a call whose message has not arrived.
    async fn read(
        &self,
        request: Request<RequestBody>,
        peer: &Peer,
    ) -> Result<Request<Bytes>, Refusal> {
        let (head, body) = request.into_parts();
        let mut body = Body::new(body);
        let read = self.read_body(&head.headers, &mut body, peer).await;
        if read.is_err() {
            discard(&mut body, self.max_body_bytes).await;
        }
        read.map(|bytes| Request::from_parts(head, bytes))
    }

    async fn read_body(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
        peer: &Peer,
    ) -> Result<Bytes, Refusal> {
        if !headers::fit(headers, self.max_header_bytes) {
            let max = self.max_header_bytes;
            return Err(Refusal::HeadersTooLarge { max });
        }
        if peer.backlog.is_behind() {
            return Err(Refusal::Overloaded);
        }
        let reading = pin!(Limited::new(body, self.max_body_bytes).collect());
        let waiting = (Some(&peer.backlog), Expected::AnyMessages);
        let reading = run_limited(waiting, || Ok(()), reading);
        let Ok(read) = tokio::time::timeout(self.deadline, reading).await else {
            return Err(Refusal::BodyLate);
        };
        match read {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge {
                max: self.max_body_bytes,
            }),
            Err(Failure::Overloaded) => Err(Refusal::Overloaded),
            Err(Failure::Unreadable(_)) => Err(Refusal::BodyMalformed),
            // The client is gone.
            _ => Err(Refusal::BodyLate),
        }
    }

    /// Counts a request that called no RPC, unless it succeeded.
    fn count_refused(&self, status: StatusCode, took: Duration) {
        if status.is_client_error() || status.is_server_error() {
            let labels = CallLabels {
                rpc_method: "_OTHER",
                rpc_response_status_code: "UNKNOWN",
                error_type: Some(error_type(status)),
            };
            self.dispatcher.metrics.observe_call(&labels, took);
        }
    }
}

/// Returns the metric label of a refused request.
const fn error_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "HTTP_400",
        401 => "HTTP_401",
        404 => "HTTP_404",
        405 => "HTTP_405",
        408 => "HTTP_408",
        412 => "HTTP_412",
        413 => "HTTP_413",
        415 => "HTTP_415",
        422 => "HTTP_422",
        431 => "HTTP_431",
        503 => "HTTP_503",
        _ => "HTTP_OTHER",
    }
}

impl Answer for HttpPort {
    fn answer(self: &Arc<Self>, request: Request<RequestBody>, peer: &Arc<Peer>) -> AnswerFuture {
        let (port, peer) = (self.clone(), peer.clone());
        Box::pin(async move { Ok::<_, Infallible>(port.serve(request, peer).await) })
    }
}

impl Rpcs for InProcess {
    fn call(&self, path: &'static str, mut headers: HeaderMap, message: Bytes) -> RpcFuture {
        self.has_called.store(true, Ordering::Relaxed);
        headers.insert(header::CONTENT_TYPE, GRPC.clone());
        let clock = &self.port.dispatcher.clock;
        let used = clock.monotonic().saturating_sub(self.arrived_at);
        if used > SHORT {
            let left = self.port.deadline.saturating_sub(used).as_millis();
            // A remaining time of more than 8 digits of milliseconds cannot be sent, and is
            // ignored.
            if let Ok(left) = HeaderValue::from_str(&format!("{left}m")) {
                headers.insert("grpc-timeout", left);
            }
        }
        let backlog = self.peer.backlog.clone();
        let mut request = Request::new(RequestBody::in_memory(message, backlog));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        *request.headers_mut() = headers;
        self.port.dispatcher.answer(request, &self.peer)
    }

    fn has_certificate(&self) -> bool {
        self.peer.certified.is_some()
    }
}
