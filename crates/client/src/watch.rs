//! Watching: one stream with pings. It is replaced when it ends or becomes silent. Without a stream
//! the lease expires and every question goes over the wire: slower, but never wrong.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

use super::{
    Error,
    cache::{Subject, Told, VerdictCache},
    error::{code_name, reason, retry_after},
    transport::Transport,
};
use crate::pb::v1::{
    self, WatchPing, WatchRequest,
    introspection_service_client::IntrospectionServiceClient as Introspection,
    watch_changed::Subject as Named, watch_response::Event,
};
use stacktoken_core::{
    catalogue,
    entropy::{Entropy as _, OsEntropy},
    id,
};

/// The shortest and the longest backoff between streams. The backoff is reset after a stream that
/// was good and lasted longer than `LONGEST_WAIT`.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The number of freshness bounds for which a server may be out of date before another one is
/// watched.
const BEHIND: u32 = 4;
/// The shortest interval between pings: a server answers no more of them per second.
const SHORTEST_PERIOD: Duration = Duration::from_millis(50);

/// The failure of the last attempt; `None` while a stream is good.
pub(super) type Fault = Option<String>;

/// How a stream ended.
struct Ended {
    why: String,
    /// Whether a ping was answered on it.
    was_good: bool,
    wait: Option<Duration>,
}

/// Watches for as long as the client lives.
pub(super) async fn keep_watching(
    cache: Arc<VerdictCache>,
    transport: Arc<Transport>,
    told: watch::Sender<Fault>,
) {
    let mut wait = FIRST_WAIT;
    for endpoint in transport.endpoints.iter().cycle() {
        let begun = cache.now();
        let ended = Attempt::new(&cache, &transport, &told).run(endpoint).await;
        cache.end();
        let lasted = cache.now().saturating_sub(begun);
        if ended.was_good {
            if lasted > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            tracing::info!(why = ended.why, "the watch ended; opening another");
        } else {
            tracing::warn!(
                why = ended.why,
                "no watch: every question goes to the server"
            );
        }
        told.send_replace(Some(ended.why));
        // The delay that one server asks for does not apply to another.
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
    // If the source of randomness fails there is no jitter, and they reconnect together.
    let _ = OsEntropy.fill(&mut byte);
    pause.mul_f64(1.0 - f64::from(byte[0]) / 1024.0)
}

/// One stream from its opening to its end.
struct Attempt<'a> {
    cache: &'a VerdictCache,
    transport: &'a Transport,
    told: &'a watch::Sender<Fault>,
    /// Pings in flight: the nonce, and when each was sent.
    unanswered: VecDeque<(u64, Duration)>,
    nonce: u64,
    /// When the staleness that the server reported was last within the bound, or the stream began.
    fresh: Duration,
    was_good: bool,
}

impl<'a> Attempt<'a> {
    fn new(
        cache: &'a VerdictCache,
        transport: &'a Transport,
        told: &'a watch::Sender<Fault>,
    ) -> Self {
        Self {
            fresh: cache.now(),
            cache,
            transport,
            told,
            unanswered: VecDeque::new(),
            nonce: 0,
            was_good: false,
        }
    }

    async fn run(mut self, endpoint: &Endpoint) -> Ended {
        let (why, wait) = match self.watch(endpoint).await {
            Ok(why) => (why.to_owned(), None),
            Err(Failed::Ours(error)) => (error.to_string(), None),
            Err(Failed::Server(status)) => {
                let reason = reason(&status);
                let unknown = matches!(
                    reason.as_deref(),
                    Some("REVISION_UNKNOWN" | "REVISION_PURGED")
                );
                // Also if the server gives no reason, or cannot parse the revision at all: resuming
                // from it would be refused for ever.
                if unknown || matches!(status.code(), Code::OutOfRange | Code::InvalidArgument) {
                    self.cache.forget();
                }
                let reason = reason.unwrap_or_else(|| code_name(status.code()));
                let why = format!("{reason}: {}", status.message());
                (why, retry_after(&status))
            }
        };
        Ended {
            why,
            was_good: self.was_good,
            wait,
        }
    }

    /// Runs the stream until it ends. Returns why it ended, unless that was a failure.
    async fn watch(&mut self, endpoint: &Endpoint) -> Result<&'static str, Failed> {
        let timeout = self.transport.timeout;
        let opened = tokio::time::timeout(timeout, self.open(endpoint)).await;
        let (mut events, pings) = opened.map_err(|_| Failed::Ours(Error::late(timeout)))??;
        let bound = self.cache.bounds().freshness;
        let mut ticks = tokio::time::interval((bound / 4).max(SHORTEST_PERIOD));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                event = events.message() => match event? {
                    Some(event) => self.hear(event)?,
                    None => return Ok("the server ended it"),
                },
                _ = ticks.tick() => {
                    if self.is_silent(bound) {
                        return Ok("no ping was answered within the bound");
                    }
                    let ping = self.ping();
                    // The channel is full if nothing is sent any more; `is_silent` detects that.
                    let _ = pings.try_send(WatchRequest {
                        from_revision: String::new(),
                        ping: Some(ping),
                    });
                }
            }
        }
    }

    /// Opens a stream on a connection of its own, so that a connection that swallows everything is
    /// closed with the stream.
    async fn open(
        &mut self,
        endpoint: &Endpoint,
    ) -> Result<(Streaming<v1::WatchResponse>, mpsc::Sender<WatchRequest>), Failed> {
        let unreachable = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let words = cause.unwrap_or_else(|| error.to_string());
            Failed::Ours(Error::Undecided {
                reason: "UNREACHABLE".to_owned(),
                message: format!("{}: {words}", endpoint.uri()),
                retry_after: FIRST_WAIT,
            })
        };
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let same = self.has_same_catalogue(channel.clone()).await?;
        let from_revision = self.cache.resume_from().unwrap_or_default();
        let (pings, requests) = mpsc::channel(4);
        let requests = self.transport.request(ReceiverStream::new(requests)).await;
        let requests = requests.map_err(Failed::Ours)?;
        self.cache.begin(same);
        let first = WatchRequest {
            from_revision,
            ping: Some(self.ping()),
        };
        let _ = pings.try_send(first);
        let events = Introspection::new(channel).watch(requests).await?;
        Ok((events.into_inner(), pings))
    }

    /// Returns whether the server evaluates actions as this client would.
    async fn has_same_catalogue(&self, channel: Channel) -> Result<bool, Failed> {
        let request = self.transport.request(v1::ListActionsRequest {}).await;
        let request = request.map_err(Failed::Ours)?;
        let listed = Introspection::new(channel).list_actions(request).await?;
        Ok(listed.into_inner().version == catalogue::VERSION)
    }

    fn ping(&mut self) -> WatchPing {
        self.nonce += 1;
        // Read before the ping is sent: the lease counts from here.
        let sent = self.cache.now();
        self.unanswered.push_back((self.nonce, sent));
        WatchPing { nonce: self.nonce }
    }

    fn is_silent(&self, bound: Duration) -> bool {
        let oldest = self.unanswered.front();
        oldest.is_some_and(|(_, sent)| self.cache.now().saturating_sub(*sent) > bound)
    }

    /// Returns whether the server itself has been out of the bound for so long that another one is
    /// better: a server that is cut off from the store answers pings for as long as it lives.
    fn is_left_behind(&mut self, staleness: Duration) -> bool {
        let (now, bound) = (self.cache.now(), self.cache.bounds().freshness);
        if staleness <= bound {
            self.fresh = now;
        }
        now.saturating_sub(self.fresh) > BEHIND * bound
    }

    fn hear(&mut self, response: v1::WatchResponse) -> Result<(), Failed> {
        match response.event {
            Some(Event::Changed(changed)) => {
                let subject = subject(changed.subject.as_ref());
                self.cache.change(
                    subject,
                    Told {
                        revision: changed.revision,
                        min_revision: changed.min_revision,
                    },
                );
            }
            Some(Event::Pong(pong)) => self.answered(pong)?,
            // An event that this client does not know may concern any token.
            None => self.cache.forget(),
        }
        Ok(())
    }

    fn answered(&mut self, pong: v1::WatchPong) -> Result<(), Failed> {
        let unreadable = || Failed::Ours(Error::Unreadable { what: "a pong" });
        // A pong without its staleness proves nothing.
        let staleness = pong.staleness.ok_or_else(unreadable)?;
        let staleness = Duration::try_from(staleness).map_err(|_| unreadable())?;
        let at = self
            .unanswered
            .iter()
            .position(|(nonce, _)| *nonce == pong.nonce);
        let (_, sent) = at.map(|at| self.unanswered[at]).ok_or_else(unreadable)?;
        // A server that gets too many pings answers only the latest of those that wait.
        self.unanswered.retain(|(nonce, _)| *nonce > pong.nonce);
        self.cache.pong(
            sent,
            staleness,
            Told {
                revision: pong.revision,
                min_revision: pong.min_revision,
            },
        );
        if self.is_left_behind(staleness) {
            return Err(Failed::Ours(Error::Undecided {
                reason: "NOT_FRESH".to_owned(),
                message: "the server has not heard of changes itself for some time".to_owned(),
                retry_after: FIRST_WAIT,
            }));
        }
        if !self.was_good {
            self.was_good = true;
            self.told.send_replace(None);
            tracing::info!("watching: answers are remembered");
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

/// Why a stream could not be opened, or failed.
enum Failed {
    Ours(Error),
    Server(Box<tonic::Status>),
}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Self {
        Self::Server(Box::new(status))
    }
}
