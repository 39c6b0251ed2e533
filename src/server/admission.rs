//! Checks a request before its handler runs: the rule for the path, the credential, the kind of
//! caller, the rate limit on changes, the message and a call permit. The checks run in this order
//! and within the deadline. No call holds a permit before its message has arrived and its caller is
//! known.

use std::{convert::Infallible, net::Ipv6Addr, pin::pin, sync::Arc};

use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use tokio::time::sleep;
use tonic::body::Body;
use tower::Service;

use super::{
    call_start::Opened,
    connections::{Peer, backlog::Backlog, request_body::Expected},
    deadline,
    handler::{run, run_to_the_end},
    message::{collected, run_limited},
    rpc_middleware::RpcMiddleware,
    stream_limits,
};
use crate::{
    app::{self, About},
    auth::{
        Rejection, Unverified,
        policy::{AllowedCallers, Rule},
    },
    domain::caller::{Call, Caller, Mode},
    grpc::{
        framing,
        status::{self, Failure},
    },
};

/// Returns how many messages a client may send in a call to this RPC.
pub(super) const fn expected(rule: &Rule) -> Expected {
    if rule.takes_stream {
        Expected::AnyMessages
    } else {
        Expected::OneMessage
    }
}

impl RpcMiddleware {
    /// Returns the handler's response, or the error of the check that refused the call. Also
    /// returns the [`Call`], if its caller was authenticated.
    pub(super) async fn answer<S>(
        &self,
        request: &mut Request<Body>,
        opened: Opened,
        request_id: &str,
        inner: S,
    ) -> (Response<Body>, Option<Call>)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let fail = |failure: Failure| status::of(failure, request_id).into_http();
        let Opened {
            rule,
            permit,
            timer,
            ..
        } = opened;
        // Health and reflection skip the checks, because they must answer even when no other RPC
        // can.
        if let Some(rule) = rule.filter(|rule| rule.admits_everybody()) {
            let opened = (expected(rule), permit);
            // Boxed, like every path except the one for verdicts, so that the future stays small.
            let answering = self.open_rpcs.answer(request, opened, request_id, inner);
            let answered = Box::pin(answering).await;
            return (answered.unwrap_or_else(fail), None);
        }
        let timeout = deadline::of(request.headers(), self.open_rpcs.deadline);
        let timer = timer.unwrap_or_else(|| Box::pin(sleep(timeout)));
        let mut call = None;
        let mut permit = None;
        // The deadline covers the time until the response begins. After that, a stream may run
        // longer.
        let work = async {
            let rule = self.admit(request, rule, request_id, &mut call).await?;
            // Always set, because `admit` stores the call before it succeeds.
            let call = call.as_ref().ok_or(Failure::CredentialMissing)?;
            permit = self
                .open_rpcs
                .stream_limits
                .acquire_for_caller(&call.caller.actor, rule)?;
            self.work(request, (rule, call), request_id, inner).await
        };
        let response = tokio::select! {
            biased;
            response = work => response,
            () = timer => Err(Failure::Deadline),
        };
        (
            stream_limits::hold_until_end(response.unwrap_or_else(fail), permit),
            call,
        )
    }

    /// Waits for the message, takes a permit and runs the handler. A verdict from the cache is
    /// ready at once, so it needs no permit and is answered even when none is left.
    async fn work<S>(
        &self,
        request: &mut Request<Body>,
        (rule, call): (&Rule, &Call),
        request_id: &str,
        inner: S,
    ) -> Result<Response<Body>, Failure>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        if self.permits.is_closed() {
            return Err(Failure::Overloaded);
        }
        let enter = || self.permits.enter(&call.caller);
        let backlog = Peer::backlog_of(request.extensions());
        let waiting = (backlog.as_ref(), expected(rule));
        if rule.is_verdict() {
            let running = pin!(run(request, inner, request_id));
            return run_limited(waiting, enter, running).await;
        }
        Box::pin(self.work_on_store(request, (rule, call, waiting), request_id, inner)).await
    }

    /// Waits for the message, takes a permit, and runs the handler of a call that reads or changes
    /// the store.
    async fn work_on_store<S>(
        &self,
        request: &mut Request<Body>,
        (rule, call, waiting): (&Rule, &Call, (Option<&Arc<Backlog>>, Expected)),
        request_id: &str,
        inner: S,
    ) -> Result<Response<Body>, Failure>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        // The permit is taken before the handler starts, so that no call is aborted halfway for
        // lack of a permit.
        let message = std::mem::take(request.body_mut());
        let message = pin!(collected(message, self.max_request_bytes + framing::PREFIX));
        *request.body_mut() = run_limited(waiting, || Ok(()), message).await?;
        let permit = self.permits.enter(&call.caller)?;
        if rule.changes {
            let at_most = 2 * self.open_rpcs.deadline;
            return Ok(run_to_the_end(request, inner, request_id, (at_most, permit)).await);
        }
        Ok(run(request, inner, request_id).await)
    }

    /// Authorizes the request, and attaches its [`Call`] to the request. Sets `known` as soon as
    /// the caller is authenticated, even if the call is then refused.
    async fn admit(
        &self,
        request: &mut Request<Body>,
        rule: Option<&'static Rule>,
        request_id: &str,
        known: &mut Option<Call>,
    ) -> Result<&'static Rule, Failure> {
        let Some((rule, AllowedCallers::Callers(requirement))) =
            rule.map(|rule| (rule, rule.admits))
        else {
            return Err(Failure::RpcUnknown);
        };
        // This check precedes authentication, which depends on the same clock.
        if self.app.clock().fault().is_some() {
            return Err(app::Error::ClockSkew.into());
        }
        let credentials = (request.headers(), request.extensions());
        let caller = if requirement.holder {
            stranger(request.extensions())
        } else {
            self.authenticate(credentials, request_id).await?
        };
        let call = Call {
            caller,
            requirement,
            received_at: self.app.clock().now(),
            request_id: request_id.to_owned(),
            mode: Mode::Apply,
        };
        let call = known.insert(call);
        let admitted = requirement.admit(&call.caller);
        let admitted = admitted.and_then(|()| {
            if rule.changes {
                self.app.admit_change(call)
            } else {
                Ok(())
            }
        });
        if let Err(refusal) = admitted {
            // Only refusals of authenticated callers are recorded (R14).
            if let Some(action) = rule.action.filter(|_| !requirement.holder) {
                self.app
                    .note_refusal(call, action, About::default(), &refusal);
            }
            return Err(refusal.into());
        }
        request.extensions_mut().insert(call.clone());
        Ok(rule)
    }

    async fn authenticate(
        &self,
        (headers, extensions): (&HeaderMap, &Extensions),
        request_id: &str,
    ) -> Result<Arc<Caller>, Failure> {
        let values: Vec<&[u8]> = headers
            .get_all(http::header::AUTHORIZATION)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let peer = Peer::of(extensions);
        let certified = peer.and_then(|peer| peer.certified.as_ref());
        self.authenticator
            .authenticate(&values, certified)
            .await
            .map_err(|rejection| {
                log_rejection(rejection, &values, request_id);
                match rejection {
                    Rejection::Missing => Failure::CredentialMissing,
                    Rejection::Invalid(_) => Failure::CredentialInvalid,
                    Rejection::TokenNotAcceptedHere => Failure::TokenNotAcceptedHere,
                    Rejection::CertificateUnlisted => Failure::CertificateUnlisted,
                    Rejection::CertificateExpired => Failure::CertificateExpired,
                    Rejection::KeysUnavailable => Failure::KeysUnavailable,
                }
            })
    }
}

/// Returns the caller of an RPC that reads no credential.
fn stranger(extensions: &Extensions) -> Arc<Caller> {
    // The address is only a fallback, because every connection has a peer.
    let network = Peer::of(extensions).map_or(Ipv6Addr::UNSPECIFIED.into(), |peer| peer.network);
    Arc::new(Caller::stranger(network))
}

/// Logs why a credential was refused, because the response does not reveal the reason. Lines with
/// the same reason are sampled. A call without a credential is logged only at debug level, because
/// its response names the reason.
fn log_rejection(rejection: Rejection, values: &[&[u8]], request_id: &str) {
    let reason = match rejection {
        Rejection::Missing => {
            tracing::debug!(request_id, "no credential");
            return;
        }
        Rejection::Invalid(cause) => cause.to_owned(),
        other => other.to_string(),
    };
    let credential = Unverified(values);
    tracing::info!(reason, %credential, request_id, "credential refused");
    // The line above is sampled. At debug level, each refusal is logged.
    tracing::debug!(reason, %credential, request_id, "credential refused");
}
