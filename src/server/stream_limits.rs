//! Limits on long-lived streams: Health.Watch and reflection, which need no credential, and
//! IntrospectionService.Watch. A client can keep a stream open indefinitely. So besides the total
//! limit there is a limit per caller for IntrospectionService.Watch, and per peer address for the
//! other streams.

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
    shares::{Shares, Taken},
};
use crate::{
    auth::policy::{AllowedCallers, Rule},
    config::Tuning,
    domain::caller::Actor,
    grpc::status::Failure,
};

/// Maximum number of reflection streams; each can hold a response of about 200 KiB.
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
    shares: Shares<K>,
}

/// Permit for one stream. Dropping the permit releases it.
pub(super) enum StreamPermit {
    OfCaller { _held: Held<Actor> },
    OfAddress { _held: Held<IpAddr> },
}

pub(super) struct Held<K: Hash + Eq> {
    _permit: OwnedSemaphorePermit,
    _share: Taken<K>,
}

impl<K: Hash + Eq + Clone> StreamLimit<K> {
    /// Creates limits of `all` streams in total and `each` streams per key. Without `each`, the
    /// limit per key is a quarter of `all`.
    fn new(all: usize, each: Option<usize>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each: each.unwrap_or(all.div_ceil(4)),
            shares: Shares::default(),
        }
    }

    fn enter(&self, who: &K) -> Result<Held<K>, Failure> {
        let share = self.shares.take(who, self.each);
        let permit = self.all.clone().try_acquire_owned().ok();
        let (Some(share), Some(permit)) = (share, permit) else {
            return Err(Failure::Overloaded);
        };
        Ok(Held {
            _permit: permit,
            _share: share,
        })
    }
}

impl StreamLimits {
    pub fn new(tuning: &Tuning) -> Self {
        let (all, shares) = (tuning.max_watches, &tuning.shares);
        Self {
            changes: StreamLimit::new(all, shares.max_watches_per_caller),
            watches: StreamLimit::new(all, shares.max_watches_per_address),
            reflections: StreamLimit::new(MAX_REFLECTIONS, None),
        }
    }

    /// Takes a permit for a call to health or reflection; `None` if the RPC is not subject to a
    /// stream limit.
    pub fn acquire_for_peer(
        &self,
        peer: Option<&Peer>,
        rule: &Rule,
    ) -> Result<Option<StreamPermit>, Failure> {
        let room = match rule.path {
            // A probe must be answered however many Watch streams are open.
            "/grpc.health.v1.Health/Check" => return Ok(None),
            "/grpc.health.v1.Health/Watch" => &self.watches,
            _ if rule.admits == AllowedCallers::Everybody => &self.reflections,
            _ => return Ok(None),
        };
        // This is only a fallback, because every connection has a peer.
        let nowhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let held = room.enter(&peer.map_or(nowhere, |peer| peer.network))?;
        Ok(Some(StreamPermit::OfAddress { _held: held }))
    }

    /// Takes a permit for a call to IntrospectionService.Watch; `None` for any other RPC.
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
pub(super) fn kept(response: Response<Body>, permit: Option<StreamPermit>) -> Response<Body> {
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
