//! One who watches, as a client of the service does.

use std::time::Duration;

use stacktoken::grpc::pb::v1::{
    WatchChanged, WatchPing, WatchPong, WatchRequest, WatchResponse, watch_changed::Subject,
    watch_response::Event,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};

use super::Client;

/// How long something may take that does happen.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Watching {
    /// Ends the client's half when it is dropped.
    pub requests: Option<UnboundedSender<WatchRequest>>,
    pub told: Streaming<WatchResponse>,
    nonce: u64,
}

/// A ping of this number.
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

/// What a change is about.
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
    /// From now on, or since a revision.
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
        let told = told.expect("nothing was told")?;
        Ok(told.expect("an end without a status").event.unwrap())
    }

    pub fn send(&self, request: WatchRequest) {
        self.requests.as_ref().unwrap().send(request).unwrap();
    }

    /// Everything told before the answer to a ping that is sent now, and that answer.
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
            Event::Pong(pong) => panic!("a pong where a change belongs: {pong:?}"),
        }
    }

    /// How it ends, whatever is told before.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}
