//! A client of the `Watch` stream.

use std::time::Duration;

use stacktoken::grpc::pb::v1::{
    WatchChanged, WatchPing, WatchPong, WatchRequest, WatchResponse, watch_changed::Subject,
    watch_response::Event,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};

use super::Client;

/// The timeout for an event that is expected.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Watching {
    /// The request side of the stream. Dropping the sender closes this side.
    pub requests: Option<UnboundedSender<WatchRequest>>,
    pub told: Streaming<WatchResponse>,
    nonce: u64,
}

/// Returns a ping with this nonce.
pub fn ping(nonce: u64) -> WatchRequest {
    WatchRequest {
        from_revision: String::new(),
        ping: Some(WatchPing { nonce }),
    }
}

pub fn from(revision: &str) -> WatchRequest {
    WatchRequest {
        from_revision: revision.into(),
        ping: None,
    }
}

/// Returns the kind and the uid of the changed stack or token.
pub fn subject(changed: &WatchChanged) -> String {
    match changed.subject.clone().unwrap() {
        Subject::TokenUid(uid) => format!("token {uid}"),
        Subject::StackUid(uid) => format!("stack {uid}"),
    }
}

pub fn staleness(pong: &WatchPong) -> Duration {
    Duration::try_from(pong.staleness.unwrap()).unwrap()
}

impl Watching {
    /// Opens a stream that starts now, or at `revision` if it is not empty.
    pub async fn open(client: &Client, revision: &str) -> Result<Self, Status> {
        Self::open_with(client, from(revision)).await
    }

    pub async fn open_with(client: &Client, first: WatchRequest) -> Result<Self, Status> {
        let (requests, queue) = unbounded_channel();
        requests.send(first).unwrap();
        let mut request = Request::new(UnboundedReceiverStream::new(queue));
        let id = "the-watch".parse().unwrap();
        request.metadata_mut().insert("x-request-id", id);
        let told = client.introspection.clone().watch(request).await?;
        Ok(Self {
            requests: Some(requests),
            told: told.into_inner(),
            nonce: 0,
        })
    }

    pub async fn next(&mut self) -> Result<Event, Status> {
        let told = tokio::time::timeout(PATIENCE, self.told.message()).await;
        let told = told.expect("timed out waiting for an event")?;
        Ok(told
            .expect("the stream ended without a status")
            .event
            .unwrap())
    }

    pub fn send(&self, request: WatchRequest) {
        self.requests.as_ref().unwrap().send(request).unwrap();
    }

    /// Sends a ping. Returns the changes received before the pong, and the pong itself.
    pub async fn pong(&mut self) -> Result<(Vec<WatchChanged>, WatchPong), Status> {
        self.nonce += 1;
        self.send(ping(self.nonce));
        let mut changes = Vec::new();
        loop {
            match self.next().await? {
                Event::Changed(changed) => changes.push(changed),
                Event::Pong(pong) if pong.nonce == self.nonce => return Ok((changes, pong)),
                Event::Pong(_) => {}
            }
        }
    }

    pub async fn changed(&mut self) -> WatchChanged {
        match self.next().await.unwrap() {
            Event::Changed(changed) => changed,
            Event::Pong(pong) => panic!("expected a change, received {pong:?}"),
        }
    }

    /// Reads until the stream ends, and returns the status that it ends with.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}
