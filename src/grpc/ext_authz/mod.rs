//! `envoy.service.auth.v3.Authorization/Check`: Envoy asks whether a request may pass. The response
//! is based on the same verdict as `Introspect`, and either allows or denies the request. An error
//! means that no decision is possible (R13), and Envoy then applies its own failure mode. The
//! content of a request never causes an error, but overload can.

mod answer;
mod headers;
mod refusal;
mod request;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use envoy_types::ext_authz::v3::pb::{CheckRequest, CheckResponse};
use prost::{Message as _, bytes::Bytes};
use tonic::{
    Request, Response, Status, Streaming, body::Body, codegen::Service,
    server::ClientStreamingService,
};
use tonic_prost::ProstCodec;

use self::refusal::Refused;
use super::status::{self, Failure};
use crate::{
    app::{App, Error, Introspection},
    domain::{
        caller::{Actor, Call},
        refusal::Refusal,
        routes::RouteTable,
        verdict::{Facts, Reason, Verdict},
    },
    metrics::CheckLabels,
};

/// Maximum size of a `CheckRequest` in bytes, which is several times Envoy's default limit on
/// request headers. A request with a larger message is denied.
pub(super) const MAX_CHECK: usize = 1024 * 1024;

/// Implements Envoy's authorization service.
#[derive(Clone)]
pub(super) struct Authorization {
    app: Arc<App>,
    table: Arc<RouteTable>,
}

impl Authorization {
    pub(super) const fn new(app: Arc<App>, table: Arc<RouteTable>) -> Self {
        Self { app, table }
    }

    async fn check(
        &self,
        mut request: Request<Streaming<CheckRequest>>,
    ) -> Result<Response<CheckResponse>, Status> {
        // tonic would answer an unreadable message with a gRPC error, and Envoy would then let the
        // request pass if `failure_mode_allow` is set. So the message is read here, and the request
        // is denied if the message is unreadable.
        let message = request.get_mut().message().await;
        if matches!(message, Ok(Some(_))) {
            // Reads the stream to its end, so that the server detects a second message and fails
            // the call. The result is not needed here.
            let _ = request.get_mut().trailers().await;
        }
        let (call, _) = super::open(request)?;
        let decided = match message {
            Ok(Some(message)) => self.decide(&call, message).await,
            Ok(None) | Err(_) => Ok(Err(refusal::request_unreadable())),
        };
        match decided {
            Ok(Ok(allowed)) => {
                self.app.metrics().count_allowed_check();
                Ok(Response::new(allowed))
            }
            Ok(Err(refused)) => Ok(Response::new(self.denied(&refused))),
            Err(error) => {
                let failure = Failure::from(error);
                self.count("UNDECIDED", status::reason_of(&failure));
                Err(status::of(failure, &call.request_id))
            }
        }
    }

    /// Answers a check from the cache. Returns the encoded response, and the time of the decision
    /// if the clock was read. Returns `None` if [`Self::check`] must answer, for example because
    /// the message cannot be decoded.
    pub(super) fn check_cached(
        &self,
        actor: &Actor,
        message: Bytes,
        began: Duration,
    ) -> Option<(Vec<u8>, Option<Duration>)> {
        let message = CheckRequest::decode(message).ok()?;
        let question = request::question(message, &self.table, self.app.catalogue());
        let denied = |refused| Some((self.denied(&refused).encode_to_vec(), None));
        let question = match question {
            Ok(question) => question,
            Err(refused) => return denied(refused),
        };
        match self.app.introspect_cached(actor, &question, began)? {
            Ok((introspection, at)) => match judged(&introspection) {
                Ok(facts) => {
                    self.app.metrics().count_allowed_check();
                    Some((answer::allowed_encoded(facts), Some(at.monotonic)))
                }
                Err(refused) => denied(refused),
            },
            Err(Error::Refused(Refusal::RateLimited { .. })) => denied(refusal::not_recognized()),
            Err(_) => None,
        }
    }

    /// Counts a denial, and returns the response.
    fn denied(&self, refused: &Refused) -> CheckResponse {
        self.count("DENIED", refused.reason);
        answer::denied(refused)
    }

    /// Decides the request. Returns the response that allows it, or the reason to deny it.
    async fn decide(
        &self,
        call: &Call,
        message: CheckRequest,
    ) -> Result<Result<CheckResponse, Refused>, Error> {
        let question = match request::question(message, &self.table, self.app.catalogue()) {
            Ok(question) => question,
            Err(refused) => return Ok(Err(refused)),
        };
        match self.app.introspect(call, &question).await {
            Ok(introspection) => Ok(judged(&introspection).map(answer::allowed)),
            // Here, only the presentation of unrecognized tokens is rate limited, so the verdict is
            // known to be "not recognized", and the request is denied without an error.
            Err(Error::Refused(Refusal::RateLimited { .. })) => Ok(Err(refusal::not_recognized())),
            Err(error) => Err(error),
        }
    }

    fn count(&self, outcome: &'static str, reason: &'static str) {
        let labels = CheckLabels { outcome, reason };
        self.app.metrics().checks.get_or_create(&labels).inc();
    }
}

/// Returns the facts about the token if the token is live and every action is allowed. Otherwise
/// returns the denial.
fn judged(introspection: &Introspection) -> Result<&Facts, Refused> {
    let (reason, denied) = match &introspection.verdict {
        Verdict::NotRecognized => return Err(refusal::not_recognized()),
        Verdict::Inactive(reason) => (*reason, None),
        Verdict::Active(results) => {
            let denials = results
                .iter()
                .filter_map(|result| Some((result.name.as_str(), result.denial.as_ref().err()?)));
            match (denials.into_iter().next(), &introspection.known) {
                (Some((name, denial)), _) => (denial.reason, Some((name, denial))),
                (None, Some(known)) if !results.is_empty() => {
                    return Ok(&known.facts);
                }
                // This case never occurs, because an active verdict has facts and every route has
                // at least one action.
                (None, _) => (Reason::ActionUnknown, None),
            }
        }
    };
    Err(refusal::by_verdict(reason, denied))
}

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl ClientStreamingService<CheckRequest> for Authorization {
    type Response = CheckResponse;
    type Future = Boxed<Response<CheckResponse>, Status>;

    fn call(&mut self, request: Request<Streaming<CheckRequest>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.check(request).await })
    }
}

/// The gRPC server of this service. It handles `Check` as a client stream with one message, which
/// is identical to a unary call on the wire, so that the service itself can read the message.
#[derive(Clone)]
pub(super) struct AuthorizationServer(pub Authorization);

impl tonic::server::NamedService for AuthorizationServer {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

impl Service<http::Request<Body>> for AuthorizationServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.0.clone();
        // The path need not be checked: the policy admits only known paths, and this service has
        // only one.
        Box::pin(async move {
            let codec = ProstCodec::<CheckResponse, CheckRequest>::default();
            let mut grpc = tonic::server::Grpc::new(codec).max_decoding_message_size(MAX_CHECK);
            Ok(grpc.client_streaming(service, request).await)
        })
    }
}
