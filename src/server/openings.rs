//! Limits on long-lived streams: Health.Watch and reflection, which need no credential, and
//! IntrospectionService.Watch. A stream lasts as long as its client likes, so besides the total each
//! caller (of Watch) and each peer address (of the others) has a limit of its own.

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
    auth::policy::{Admits, Rule},
    config::Tuning,
    domain::caller::Actor,
    grpc::status::Failure,
};

/// How many streams of reflection there may be; each can hold an answer of some 200 KiB.
const MAX_REFLECTIONS: usize = 32;

/// The room for streams.
pub(super) struct Openings {
    changes: Room<Actor>,
    watches: Room<IpAddr>,
    reflections: Room<IpAddr>,
}

/// The room for streams of one kind.
struct Room<K> {
    all: Arc<Semaphore>,
    each: usize,
    shares: Shares<K>,
}

/// The room that one stream takes until it ends.
pub(super) enum Place {
    OfCaller { _held: Held<Actor> },
    OfAddress { _held: Held<IpAddr> },
}

pub(super) struct Held<K: Hash + Eq> {
    _permit: OwnedSemaphorePermit,
    _share: Taken<K>,
}

impl<K: Hash + Eq + Clone> Room<K> {
    /// Room for so many, of which each may have so many.
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

impl Openings {
    pub fn new(tuning: &Tuning) -> Self {
        let (all, shares) = (tuning.max_watches, &tuning.shares);
        Self {
            changes: Room::new(all, shares.max_watches_per_caller),
            watches: Room::new(all, shares.max_watches_per_address),
            reflections: Room::new(MAX_REFLECTIONS, None),
        }
    }

    /// A place for a call of health or reflection; none where the answer is a single message.
    pub fn enter_from(&self, peer: Option<&Peer>, rule: &Rule) -> Result<Option<Place>, Failure> {
        let room = match rule.path {
            // What a probe asks must be answered however many others watch.
            "/grpc.health.v1.Health/Check" => return Ok(None),
            "/grpc.health.v1.Health/Watch" => &self.watches,
            _ if rule.admits == Admits::Everybody => &self.reflections,
            _ => return Ok(None),
        };
        // Every connection has a peer.
        let nowhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let held = room.enter(&peer.map_or(nowhere, |peer| peer.network))?;
        Ok(Some(Place::OfAddress { _held: held }))
    }

    /// The same for a call by a caller that is known.
    pub fn enter_as(&self, caller: &Actor, rule: &Rule) -> Result<Option<Place>, Failure> {
        if rule.path != "/stacktoken.v1.IntrospectionService/Watch" {
            return Ok(None);
        }
        let held = self.changes.enter(caller)?;
        Ok(Some(Place::OfCaller { _held: held }))
    }
}

/// The response, which keeps its place for as long as there is something to read of it.
pub(super) fn kept(response: Response<Body>, place: Option<Place>) -> Response<Body> {
    let Some(place) = place else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _kept = &place;
            frame
        }))
    })
}
