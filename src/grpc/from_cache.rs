//! Answers calls from the cache without a router, a codec or a future, which is faster. Any other
//! call, such as one with an invalid field or a cache miss, is passed to the ordinary handler.

use std::{sync::Arc, time::Duration};

use prost::{Message, bytes::Bytes};

use super::{
    MessageLimits,
    convert::{batch, introspection},
    ext_authz::{Authorization, MAX_CHECK},
    framing::{PREFIX, framed, framed_bytes},
    pb::v1,
    status::{Failure, count_failure},
    wide,
};
use crate::{
    app::App,
    domain::{caller::Actor, routes::RouteTable},
};

/// The RPCs that the cache can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedRpc {
    /// `IntrospectionService.Introspect`.
    Introspect,
    /// `IntrospectionService.BatchIntrospect`.
    BatchIntrospect,
    /// Envoy's `Authorization.Check`.
    Check,
}

impl CachedRpc {
    /// All RPCs that the cache can answer. The value of each variant is its index in this array.
    pub const ALL: [Self; 3] = [Self::Introspect, Self::BatchIntrospect, Self::Check];

    /// Returns the RPC with this path; `None` if the cache cannot answer it.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rpc| rpc.path() == path)
    }

    /// Returns the path of the RPC in the HTTP request.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Introspect => "/stacktoken.v1.IntrospectionService/Introspect",
            Self::BatchIntrospect => wide::BATCH,
            Self::Check => "/envoy.service.auth.v3.Authorization/Check",
        }
    }
}

/// A call to answer from the cache.
pub struct CachedCall<'a> {
    /// The RPC.
    pub rpc: CachedRpc,
    /// The caller.
    pub actor: &'a Actor,
    /// A monotonic time that is not later than the read of the cache.
    pub began: Duration,
    /// Returns the request id.
    pub request_id: &'a dyn Fn() -> String,
}

/// Answers calls from the cache.
pub struct CachedVerdicts {
    app: Arc<App>,
    authorization: Authorization,
    limits: MessageLimits,
}

/// The response message with its prefix, or the error of the call, and the time of the decision.
/// `None` if the ordinary handler must answer the call.
pub type Answered = Option<(Result<Bytes, Failure>, Duration)>;

impl CachedVerdicts {
    /// Creates a handler that answers from the cache of `app`, and uses the route `table` for
    /// Envoy's checks.
    #[must_use]
    pub fn new(app: Arc<App>, table: Arc<RouteTable>, limits: MessageLimits) -> Self {
        Self {
            authorization: Authorization::new(app.clone(), table),
            app,
            limits,
        }
    }

    /// Returns the maximum size of a request message of an RPC, including the prefix.
    #[must_use]
    pub const fn max_request_bytes(&self, rpc: CachedRpc) -> usize {
        PREFIX
            + match rpc {
                CachedRpc::Introspect => self.limits.decoding,
                CachedRpc::BatchIntrospect => wide::LARGEST,
                CachedRpc::Check => MAX_CHECK,
            }
    }

    /// Answers a call. `framed` is the complete request message with its prefix.
    #[must_use]
    pub fn answer(&self, call: &CachedCall<'_>, framed: &Bytes) -> Answered {
        let message = unframed(framed)?;
        if framed.len() > self.max_request_bytes(call.rpc) {
            return None;
        }
        match call.rpc {
            CachedRpc::Introspect => self.introspect(call, message),
            CachedRpc::BatchIntrospect => self.batch_introspect(call, message),
            CachedRpc::Check => self.check(call, message),
        }
    }

    fn introspect(&self, call: &CachedCall<'_>, message: Bytes) -> Answered {
        let message = v1::IntrospectRequest::decode(message).ok()?;
        let question = introspection::introspect(message).ok()?;
        let answered = self
            .app
            .introspect_cached(call.actor, &question, call.began)?;
        Some(match answered {
            Ok((introspection, at)) => {
                let answer = introspection::introspected(introspection);
                (Ok(framed(&answer, self.limits.encoding)?), at.monotonic)
            }
            Err(error) => (Err(error.into()), self.now()),
        })
    }

    fn batch_introspect(&self, call: &CachedCall<'_>, message: Bytes) -> Answered {
        let message = v1::BatchIntrospectRequest::decode(message).ok()?;
        let asked = batch::batch_introspect(message).ok()?;
        let answers = self
            .app
            .batch_introspect_cached(call.actor, &asked.batch, call.began)?;
        let count = |failure: &Failure| count_failure(self.app.metrics(), failure);
        let answer = batch::batch_introspected(asked, answers, call.request_id, count);
        Some((Ok(framed(&answer, wide::LARGEST)?), self.now()))
    }

    fn check(&self, call: &CachedCall<'_>, message: Bytes) -> Answered {
        let (answer, at) = self
            .authorization
            .check_cached(call.actor, message, call.began)?;
        let at = at.unwrap_or_else(|| self.now());
        Some((Ok(framed_bytes(&answer)?), at))
    }

    fn now(&self) -> Duration {
        self.app.clock().monotonic()
    }
}

/// Returns the message without its prefix. Returns `None` unless the bytes are exactly one
/// uncompressed message.
fn unframed(framed: &Bytes) -> Option<Bytes> {
    let (prefix, message) = framed.split_first_chunk::<PREFIX>()?;
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (compressed == 0 && length == message.len()).then(|| framed.slice(PREFIX..))
}
