//! Limits on long-lived streams: Health.Watch and reflection, which need no credential, and
//! IntrospectionService.Watch. A client can keep a stream open indefinitely. So in addition to the
//! total limits, there is a limit per caller for IntrospectionService.Watch, and a limit per peer
//! address for the other streams.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use http::Response;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;

use super::{
    connections::Peer,
    keyed_counts::{KeyedCounts, KeyedPermit},
};
use crate::{auth::policy::Rule, config::Tuning, domain::caller::Actor, grpc::status::Failure};

/// Maximum number of reflection streams. Each can hold a response of about 200 KiB.
const MAX_REFLECTIONS: usize = 32;

/// Limits for all kinds of streams.
pub(super) struct StreamLimits {
    changes: StreamLimit<Actor>,
    watches: StreamLimit<IpAddr>,
    reflections: StreamLimit<IpAddr>,
}

/// Limits for streams of one kind.
struct StreamLimit<K> {
    all: Arc<Semaphore>,
    each: usize,
    counts: KeyedCounts<K>,
}

/// A permit for one stream. Dropping it releases the permit.
pub(super) enum StreamPermit {
    OfCaller { _held: HeldPermits<Actor> },
    OfAddress { _held: HeldPermits<IpAddr> },
}

pub(super) struct HeldPermits<K: Hash + Eq> {
    _permit: OwnedSemaphorePermit,
    _keyed_permit: KeyedPermit<K>,
}

impl<K: Hash + Eq + Clone> StreamLimit<K> {
    /// Creates limits of `all` streams in total and `each` streams per key. If `each` is `None`,
    /// the limit per key is a quarter of `all`.
    fn new(all: usize, each: Option<usize>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each: each.unwrap_or(all.div_ceil(4)),
            counts: KeyedCounts::default(),
        }
    }

    fn enter(&self, who: &K) -> Result<HeldPermits<K>, Failure> {
        let keyed_permit = self.counts.take(who, self.each);
        let permit = self.all.clone().try_acquire_owned().ok();
        let (Some(keyed_permit), Some(permit)) = (keyed_permit, permit) else {
            return Err(Failure::Overloaded);
        };
        Ok(HeldPermits {
            _permit: permit,
            _keyed_permit: keyed_permit,
        })
    }
}

impl StreamLimits {
    pub fn new(tuning: &Tuning) -> Self {
        let (all, limits) = (tuning.max_watches, &tuning.client_limits);
        Self {
            changes: StreamLimit::new(all, limits.max_watches_per_caller),
            watches: StreamLimit::new(all, limits.max_watches_per_address),
            reflections: StreamLimit::new(MAX_REFLECTIONS, None),
        }
    }

    /// Takes a permit for a call to health or reflection. Returns `None` if the RPC has no stream
    /// limit.
    pub fn acquire_for_peer(
        &self,
        peer: Option<&Peer>,
        rule: &Rule,
    ) -> Result<Option<StreamPermit>, Failure> {
        let limit = match rule.path {
            // A probe must be answered, however many Watch streams are open.
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/List" => return Ok(None),
            "/grpc.health.v1.Health/Watch" => &self.watches,
            _ if rule.admits_everybody() => &self.reflections,
            _ => return Ok(None),
        };
        // The fallback is never used, because every connection has a peer.
        let nowhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let held = limit.enter(&peer.map_or(nowhere, |peer| peer.network))?;
        Ok(Some(StreamPermit::OfAddress { _held: held }))
    }

    /// Takes a permit for a call to IntrospectionService.Watch. Returns `None` for any other RPC.
    pub fn acquire_for_caller(
        &self,
        caller: &Actor,
        rule: &Rule,
    ) -> Result<Option<StreamPermit>, Failure> {
        if rule.path != "/stacktoken.v1.IntrospectionService/Watch" {
            return Ok(None);
        }
        let held = self.changes.enter(caller)?;
        Ok(Some(StreamPermit::OfCaller { _held: held }))
    }
}

/// Attaches the permit to the response body, so that the permit is released when the stream ends.
pub(super) fn hold_until_end(
    response: Response<Body>,
    permit: Option<StreamPermit>,
) -> Response<Body> {
    let Some(permit) = permit else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _kept = &permit;
            frame
        }))
    })
}
