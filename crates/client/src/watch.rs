//! Keeps one `Watch` stream open and sends pings on it. Replaces the stream when it ends or becomes
//! silent. Without a stream, the lease expires and every question goes to the server, which is
//! slower but never wrong.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    Error,
    cache::{EventRevisions, Subject, VerdictCache},
    catalogue,
    error::{code_name, reason, retry_after},
    transport::Transport,
};
use crate::pb::v1::{
    self, WatchPing, WatchRequest, action_service_client::ActionServiceClient,
    introspection_service_client::IntrospectionServiceClient as Introspection,
    watch_changed::Subject as Named, watch_response::Event,
};
use stacktoken_core::{
    catalogue::Catalogue,
    entropy::{Entropy as _, OsEntropy},
    id,
};

/// The shortest and the longest backoff before the next stream is opened. The backoff is reset to
/// the shortest one after a good stream that lasted longer than `LONGEST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a server may be out of date before the client switches to another server, as a multiple
/// of the freshness bound.
const BEHIND: u32 = 4;
/// The shortest interval between pings. A server does not answer more frequent pings.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// Why the last stream failed; `None` while a stream is good.
pub(super) type Fault = Option<String>;

/// How a stream ended.
struct StreamEnd {
    why: String,
    /// Whether a ping was answered on this stream.
    was_good: bool,
    wait: Option<Duration>,
}

/// Keeps a stream open for as long as the client exists.
pub(super) async fn run_watch(
    cache: Arc<VerdictCache>,
    transport: Arc<Transport>,
    fault: watch::Sender<Fault>,
) {
    let mut wait = FIRST_WAIT;
    for endpoint in transport.endpoints.iter().cycle() {
        let begun = cache.now();
        let ended = Attempt::new(&cache, &transport, &fault).run(endpoint).await;
        cache.end();
        let lasted = cache.now().saturating_sub(begun);
        if ended.was_good {
            if lasted > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            tracing::info!(why = ended.why, "the watch stream ended; opening another");
        } else {
            tracing::warn!(
                why = ended.why,
                "no watch stream; every question is sent to the server"
            );
        }
        fault.send_replace(Some(ended.why));
        // The delay that a server requests applies only to that server. So it is ignored if there
        // is another server.
        let asked_for = ended.wait.filter(|_| transport.endpoints.len() == 1);
        let pause = asked_for.unwrap_or(wait).clamp(wait, LONGEST_WAIT);
        tokio::time::sleep(jittered(pause)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Returns a random duration from three quarters of `pause` up to `pause`, so that clients that
/// were disconnected together do not reconnect together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // If the source of randomness fails, there is no jitter, which is acceptable.
    let _ = OsEntropy.fill(&mut byte);
    pause.mul_f64(1.0 - f64::from(byte[0]) / 1024.0)
}

/// One stream, from its opening to its end.
struct Attempt<'a> {
    cache: &'a VerdictCache,
    transport: &'a Transport,
    fault: &'a watch::Sender<Fault>,
    /// The pings in flight, each with its nonce and the instant at which it was sent.
    unanswered: VecDeque<(u64, Duration)>,
    nonce: u64,
    /// When the server last reported a staleness within the bound, or when the stream began if it
    /// has not reported one.
    fresh: Duration,
    was_good: bool,
}

impl<'a> Attempt<'a> {
    fn new(
        cache: &'a VerdictCache,
        transport: &'a Transport,
        fault: &'a watch::Sender<Fault>,
    ) -> Self {
        Self {
            fresh: cache.now(),
            cache,
            transport,
            fault,
            unanswered: VecDeque::new(),
            nonce: 0,
            was_good: false,
        }
    }

    async fn run(mut self, endpoint: &Endpoint) -> StreamEnd {
        let (why, wait) = match self.watch(endpoint).await {
            Ok(why) => (why.to_owned(), None),
            Err(StreamError::Ours(error)) => (error.to_string(), None),
            Err(StreamError::Server(status)) => {
                let reason = reason(&status);
                let unknown = matches!(
                    reason.as_deref(),
                    Some("REVISION_UNKNOWN" | "REVISION_PURGED")
                );
                // The cache is also reset if the server states no reason or cannot parse the
                // revision. Otherwise, every further attempt to resume from that revision would be
                // refused.
                if unknown || matches!(status.code(), Code::OutOfRange | Code::InvalidArgument) {
                    self.cache.reset();
                }
                let reason = reason.unwrap_or_else(|| code_name(status.code()));
                let why = format!("{reason}: {}", status.message());
                (why, retry_after(&status))
            }
        };
        StreamEnd {
            why,
            was_good: self.was_good,
            wait,
        }
    }

    /// Runs the stream until it ends. Returns why it ended, or an error if it failed.
    async fn watch(&mut self, endpoint: &Endpoint) -> Result<&'static str, StreamError> {
        let timeout = self.transport.timeout;
        let opened = tokio::time::timeout(timeout, self.open(endpoint)).await;
        let (mut events, pings) = opened.map_err(|_| StreamError::Ours(Error::late(timeout)))??;
        let bound = self.cache.bounds().freshness;
        let mut ticks = tokio::time::interval((bound / 4).max(SHORTEST_PERIOD));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                event = events.message() => match event? {
                    Some(event) => self.apply(event)?,
                    None => return Ok("the server ended it"),
                },
                _ = ticks.tick() => {
                    if self.is_silent(bound) {
                        return Ok("no ping was answered within the bound");
                    }
                    let ping = self.ping();
                    // Sending fails if the channel is full, because the connection no longer sends
                    // anything. `is_silent` detects this.
                    let _ = pings.try_send(WatchRequest {
                        from_revision: String::new(),
                        ping: Some(ping),
                    });
                }
            }
        }
    }

    /// Opens a stream on a separate connection. If the connection silently drops all packets,
    /// closing the silent stream also closes the connection.
    async fn open(
        &mut self,
        endpoint: &Endpoint,
    ) -> Result<(Streaming<v1::WatchResponse>, mpsc::Sender<WatchRequest>), StreamError> {
        let unreachable = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let words = cause.unwrap_or_else(|| error.to_string());
            StreamError::Ours(Error::Undecided {
                reason: "UNREACHABLE".to_owned(),
                message: format!("{}: {words}", endpoint.uri()),
                retry_after: FIRST_WAIT,
            })
        };
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let catalogue = self.catalogue(channel.clone()).await?;
        let from_revision = self.cache.resume_from().unwrap_or_default();
        let (pings, requests) = mpsc::channel(4);
        let requests = self.transport.request(ReceiverStream::new(requests)).await;
        let requests = requests.map_err(StreamError::Ours)?;
        self.cache.begin(catalogue);
        let first = WatchRequest {
            from_revision,
            ping: Some(self.ping()),
        };
        let _ = pings.try_send(first);
        let events = Introspection::new(channel).watch(requests).await?;
        Ok((events.into_inner(), pings))
    }

    /// Returns the catalogue with which the server evaluates actions, or `None` if this client
    /// cannot evaluate actions with that catalogue.
    async fn catalogue(&self, channel: Channel) -> Result<Option<Catalogue>, StreamError> {
        let request = self.transport.request(v1::ListActionsRequest {}).await;
        let request = request.map_err(StreamError::Ours)?;
        let listed = ActionServiceClient::new(channel)
            .list_actions(request)
            .await?;
        Ok(catalogue::listed(listed.into_inner()))
    }

    fn ping(&mut self) -> WatchPing {
        self.nonce += 1;
        // The clock is read before the ping is sent, because the lease counts from this instant.
        let sent = self.cache.now();
        self.unanswered.push_back((self.nonce, sent));
        WatchPing { nonce: self.nonce }
    }

    fn is_silent(&self, bound: Duration) -> bool {
        let oldest = self.unanswered.front();
        oldest.is_some_and(|(_, sent)| self.cache.now().saturating_sub(*sent) > bound)
    }

    /// Records how stale the server is. Returns whether the server has been out of date for so long
    /// that the client should switch to another server. This check is necessary because a server
    /// that is cut off from the store still answers pings.
    fn note_staleness(&mut self, staleness: Duration) -> bool {
        let (now, bound) = (self.cache.now(), self.cache.bounds().freshness);
        if staleness <= bound {
            self.fresh = now;
        }
        now.saturating_sub(self.fresh) > BEHIND * bound
    }

    fn apply(&mut self, response: v1::WatchResponse) -> Result<(), StreamError> {
        match response.event {
            Some(Event::Changed(changed)) => {
                let subject = subject(changed.subject.as_ref());
                self.cache.change(
                    subject,
                    EventRevisions {
                        revision: changed.revision,
                        min_revision: changed.min_revision,
                    },
                );
            }
            Some(Event::Pong(pong)) => self.answered(pong)?,
            // An event of a kind that this client does not know may concern any token.
            None => self.cache.reset(),
        }
        Ok(())
    }

    fn answered(&mut self, pong: v1::WatchPong) -> Result<(), StreamError> {
        let unreadable = || StreamError::Ours(Error::Unreadable { what: "a pong" });
        // A pong without a staleness proves nothing.
        let staleness = pong.staleness.ok_or_else(unreadable)?;
        let staleness = Duration::try_from(staleness).map_err(|_| unreadable())?;
        let at = self
            .unanswered
            .iter()
            .position(|(nonce, _)| *nonce == pong.nonce);
        let (_, sent) = at.map(|at| self.unanswered[at]).ok_or_else(unreadable)?;
        // The server may answer only the latest of several pings, so earlier ones are removed too.
        self.unanswered.retain(|(nonce, _)| *nonce > pong.nonce);
        self.cache.pong(
            sent,
            staleness,
            EventRevisions {
                revision: pong.revision,
                min_revision: pong.min_revision,
            },
        );
        if self.note_staleness(staleness) {
            return Err(StreamError::Ours(Error::Undecided {
                reason: "NOT_FRESH".to_owned(),
                message: "the server is itself out of date".to_owned(),
                retry_after: FIRST_WAIT,
            }));
        }
        if !self.was_good {
            self.was_good = true;
            self.fault.send_replace(None);
            tracing::info!("watch stream open; caching answers");
        }
        Ok(())
    }
}

fn subject(named: Option<&Named>) -> Subject {
    let known = match named {
        Some(Named::TokenUid(uid)) => id::parse(uid).ok().map(Subject::Token),
        Some(Named::StackUid(uid)) => id::parse(uid).ok().map(Subject::Stack),
        None => None,
    };
    known.unwrap_or(Subject::Unknown)
}

/// Why a stream could not be opened, or why it failed later.
enum StreamError {
    Ours(Error),
    Server(Box<tonic::Status>),
}

impl From<tonic::Status> for StreamError {
    fn from(status: tonic::Status) -> Self {
        Self::Server(Box::new(status))
    }
}
