//! Checks that a request must pass before its handler runs: the rule for the path, the credential,
//! the kind of caller, the rate limit on changes, the message and a call permit. They run in this
//! order and within the deadline. No call holds a permit before its message has arrived and its
//! caller is known.

use std::convert::Infallible;

use http::{Extensions, HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tower::Service;

use super::{
    connections::Peer,
    deadline,
    handler::{run, run_to_the_end},
    message::{attended, collected},
    rpc_middleware::RpcMiddleware,
    stream_limits::{self, StreamPermit},
};
use crate::{
    app::{self, About},
    auth::{
        Rejection,
        policy::{AllowedCallers, Rule},
    },
    domain::caller::{Call, Mode, Requirement},
    grpc::status::{self, Failure},
};

/// Size in bytes of the prefix of a gRPC message, which contains the compressed flag and the
/// message length.
const PREFIX_BYTES: usize = 5;

impl RpcMiddleware {
    /// Returns the handler's response, or the error of the check that refused the call. Also
    /// returns the [`Call`], if its caller was authenticated.
    pub(super) async fn answer<S>(
        &self,
        request: &mut Request<Body>,
        (rule, permit): (Option<&'static Rule>, Option<StreamPermit>),
        request_id: &str,
        inner: S,
    ) -> (Response<Body>, Option<Call>)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Send + 'static,
        S::Future: Send,
    {
        let fail = |failure: Failure| status::of(failure, request_id).into_http();
        // Checked again: many calls can arrive before the first of them is answered.
        if Peer::share_of(request.extensions()).is_some_and(|share| share.is_behind()) {
            return (fail(Failure::Overloaded), None);
        }
        // Health and reflection skip the checks, because they must answer even when no other RPC
        // can.
        if rule.is_some_and(|rule| rule.admits == AllowedCallers::Everybody) {
            let answered = self
                .anybody
                .answer(request, permit, request_id, inner)
                .await;
            return (answered.unwrap_or_else(fail), None);
        }
        let timeout = deadline::of(request.headers(), self.anybody.deadline);
        let mut call = None;
        let mut permit = None;
        // The deadline covers the time until the response begins. After that, a stream may run
        // longer.
        let work = async {
            let rule = self.admit(request, rule, request_id, &mut call).await?;
            // Always set, because `admit` stores the call before it succeeds.
            let call = call.as_ref().ok_or(Failure::CredentialMissing)?;
            permit = self
                .anybody
                .stream_limits
                .acquire_for_caller(&call.caller.actor, rule)?;
            self.work(request, (rule, call), request_id, inner).await
        };
        let response = tokio::time::timeout(timeout, work).await;
        let response = response.unwrap_or(Err(Failure::Deadline));
        (
            stream_limits::kept(response.unwrap_or_else(fail), permit),
            call,
        )
    }

    /// Waits for the message, takes a permit and runs the handler. A verdict from the cache is
    /// ready at once and takes no permit, so it is answered even when no permit is left.
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
        let share = Peer::share_of(request.extensions());
        if rule.is_verdict() {
            return attended(share.as_ref(), enter, run(request, inner, request_id)).await;
        }
        // Other calls read or change the store. They take their permit before the handler starts,
        // so that none is aborted halfway for lack of a permit.
        let message = std::mem::take(request.body_mut());
        let message = collected(message, self.max_request_bytes + PREFIX_BYTES);
        *request.body_mut() = attended(share.as_ref(), || Ok(()), message).await?;
        let permit = enter()?;
        if rule.changes {
            let at_most = 2 * self.anybody.deadline;
            return Ok(run_to_the_end(request, inner, request_id, (at_most, permit)).await);
        }
        Ok(run(request, inner, request_id).await)
    }

    /// Authorizes the request, and attaches its [`Call`] to it. Sets `known` as soon as the caller
    /// is authenticated, even if the call is then refused.
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
        // Must come before authentication, which depends on the same clock.
        if self.app.clock().fault().is_some() {
            return Err(app::Error::ClockSkew.into());
        }
        let credentials = (request.headers(), request.extensions());
        let call = self
            .authenticate(credentials, requirement, request_id)
            .await?;
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
            if let Some(action) = rule.action {
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
        requirement: Requirement,
        request_id: &str,
    ) -> Result<Call, Failure> {
        let values: Vec<&[u8]> = headers
            .get_all(http::header::AUTHORIZATION)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let peer = extensions.get::<Peer>();
        let certified = peer.and_then(|peer| peer.certified.as_ref());
        let caller = self
            .authenticator
            .authenticate(&values, certified)
            .await
            .map_err(|rejection| {
                tracing::debug!(request_id, %rejection, "caller rejected");
                match rejection {
                    Rejection::Missing => Failure::CredentialMissing,
                    Rejection::Invalid(_) => Failure::CredentialInvalid,
                    Rejection::TokenNotAcceptedHere => Failure::TokenNotAcceptedHere,
                    Rejection::CertificateUnlisted => Failure::CertificateUnlisted,
                    Rejection::CertificateExpired => Failure::CertificateExpired,
                    Rejection::KeysUnavailable => Failure::KeysUnavailable,
                }
            })?;
        let received_at = self.app.clock().now();
        let request_id = request_id.to_owned();
        Ok(Call {
            caller: caller.as_ref().clone(),
            requirement,
            received_at,
            request_id,
            mode: Mode::Apply,
        })
    }
}
