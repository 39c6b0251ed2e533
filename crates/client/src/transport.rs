//! Sends questions to the servers. A question goes to the server that answered last. If that server
//! fails, the other servers are tried until the timeout of the question has passed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use super::{
    Error,
    credential::Credential,
    error::{may_pass, retry_after},
    question::Question,
};
use crate::pb::v1::{
    self, introspection_service_client::IntrospectionServiceClient as Introspection,
};
use stacktoken_core::clock::Clock;

/// The delay before all servers are tried a second time. It doubles with each further round.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The connections to the servers, and the credential with which they are called.
pub(super) struct Transport {
    pub endpoints: Vec<Endpoint>,
    pub credential: Credential,
    pub clock: Arc<dyn Clock>,
    /// How long a question may take in total.
    pub timeout: Duration,
    channels: Vec<Channel>,
    /// The index of the server that answered last.
    preferred: AtomicUsize,
}

/// A response, together with the instant at which the question was sent.
pub(super) struct TimedAnswer {
    pub message: v1::IntrospectResponse,
    pub sent: Duration,
}

impl Transport {
    /// Creates a transport that is not connected yet.
    pub fn new(
        endpoints: Vec<Endpoint>,
        credential: Credential,
        clock: Arc<dyn Clock>,
        timeout: Duration,
    ) -> Self {
        Self {
            channels: endpoints.iter().map(Endpoint::connect_lazy).collect(),
            endpoints,
            credential,
            clock,
            timeout,
            preferred: AtomicUsize::new(0),
        }
    }

    /// Asks the servers until one answers or the timeout has passed.
    pub async fn introspect(
        &self,
        question: &Question<'_>,
        min_revision: &str,
    ) -> Result<TimedAnswer, Error> {
        let until = self.clock.monotonic().saturating_add(self.timeout);
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            let server = self.preferred.load(Ordering::Relaxed) % self.channels.len();
            let left = until.saturating_sub(self.clock.monotonic());
            let (error, pause) = match self.ask(server, question, (min_revision, left)).await {
                Ok(answered) => return Ok(answered),
                Err(AttemptError::ForGood(error)) => return Err(error),
                Err(AttemptError::ForNow(error, pause)) => (error, pause.unwrap_or(wait)),
            };
            self.prefer_next(server);
            tries += 1;
            if tries % self.channels.len() != 0 {
                continue;
            }
            wait *= 2;
            // If no time is left for a retry, returns the error at once instead of waiting for the
            // timeout.
            if self.clock.monotonic().saturating_add(pause) >= until {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(
        &self,
        server: usize,
        question: &Question<'_>,
        (min_revision, left): (&str, Duration),
    ) -> Result<TimedAnswer, AttemptError> {
        // A server may accept requests but never answer. So this attempt must leave time to call
        // another server.
        let limit = if self.channels.len() > 1 {
            left / 2
        } else {
            left
        };
        let request = self.request(question.message(min_revision)).await;
        let mut request = request.map_err(AttemptError::ForGood)?;
        request.set_timeout(left);
        let mut client = Introspection::new(self.channels[server].clone());
        let sent = self.clock.monotonic();
        match tokio::time::timeout(limit, client.introspect(request)).await {
            Err(_) => Err(AttemptError::ForNow(Error::late(self.timeout), None)),
            Ok(Ok(answer)) => Ok(TimedAnswer {
                message: answer.into_inner(),
                sent,
            }),
            Ok(Err(status)) if may_pass(&status) => {
                let pause = retry_after(&status);
                Err(AttemptError::ForNow(status.into(), pause))
            }
            Ok(Err(status)) => Err(AttemptError::ForGood(status.into())),
        }
    }

    /// Returns a request with the caller's own credential.
    pub async fn request<M>(&self, message: M) -> Result<Request<M>, Error> {
        let mut request = Request::new(message);
        if let Some(value) = self.credential.value().await? {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }

    /// Makes the next attempt go to the next server.
    fn prefer_next(&self, server: usize) {
        let next = (server + 1) % self.channels.len();
        // A concurrent question may already have made another server the preferred one.
        let _ = self
            .preferred
            .compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Why a call to one server failed.
enum AttemptError {
    /// A retry would fail too.
    ForGood(Error),
    /// A retry may succeed. The duration is the retry delay that the server requested, if any.
    ForNow(Error, Option<Duration>),
}
