//! A server that the test plays: it answers what it is told to, when it is told to, and hands
//! every stream to the test.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::Stream;
use stacktoken::{
    domain::{catalogue, entropy::OsEntropy, revision::Revision, secret::Secret},
    grpc::pb::v1::{
        self, WatchRequest, WatchResponse,
        introspection_service_server::{IntrospectionService, IntrospectionServiceServer},
        watch_changed::Subject,
        watch_response::Event,
    },
};
use stacktoken_client::{Builder, Client, Question};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::support::ManualClock;

pub const KEY: &str = "blt00000000000000a1";
pub const TOKEN_UID: &str = "01937f00-0000-7000-8000-000000000001";
pub const OTHER_TOKEN_UID: &str = "01937f00-0000-7000-8000-000000000009";
pub const STACK_UID: &str = "01937f00-0000-7000-8000-000000000002";
/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(10);

type Answers =
    dyn Fn(&v1::IntrospectRequest) -> Result<v1::IntrospectResponse, Status> + Send + Sync;

/// What the test and the server share.
pub struct Script {
    pub answers: Mutex<Box<Answers>>,
    /// The `min_revision` of every question, in order.
    pub asked: Mutex<Vec<String>>,
    /// The credential of every question.
    pub credentials: Mutex<VecDeque<Option<String>>>,
    /// Questions that have arrived.
    arrived: Semaphore,
    /// Questions that may be answered; each needs one.
    pub may_answer: Semaphore,
    pub catalogue: Mutex<String>,
    streams: mpsc::UnboundedSender<Played>,
    pub opened: AtomicUsize,
}

/// A stream that the test plays the server's part of.
pub struct Played {
    pub from_revision: String,
    first: Option<v1::WatchPing>,
    requests: Streaming<WatchRequest>,
    events: mpsc::Sender<Result<WatchResponse, Status>>,
}

pub struct Server {
    pub address: String,
    pub clock: Arc<ManualClock>,
    pub script: Arc<Script>,
    streams: mpsc::UnboundedReceiver<Played>,
}

/// A point in the history of the played server.
pub fn at(position: i64) -> String {
    Revision { epoch: 7, position }.to_string()
}

pub fn secret() -> String {
    Secret::generate(&OsEntropy).unwrap().expose().to_owned()
}

pub fn instant(micros: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap(),
    }
}

/// An active token with every permission, judged at this instant.
pub fn active(evaluated_at: i64) -> v1::IntrospectResponse {
    v1::IntrospectResponse {
        active: true,
        token: Some(v1::TokenFacts {
            token_uid: TOKEN_UID.into(),
            name: "deploy".into(),
            generation: 1,
            issued_at: Some(instant(0)),
            expires_at: None,
            superseded_at: None,
        }),
        stack: Some(v1::StackFacts {
            stack_uid: STACK_UID.into(),
            stack_api_key: KEY.into(),
            organization_uid: "org-1".into(),
            name: "A stack".into(),
        }),
        permissions: Some(v1::Permissions {
            access: v1::Access::ReadWrite.into(),
            modules: None,
            branches: None,
        }),
        evaluated_at: Some(instant(evaluated_at)),
        max_age: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        revision: at(1),
        ..Default::default()
    }
}

pub fn inactive(reason: v1::Reason) -> v1::IntrospectResponse {
    v1::IntrospectResponse {
        reason: reason.into(),
        evaluated_at: Some(instant(0)),
        ..Default::default()
    }
}

impl Server {
    /// Answers that every token is active, at once.
    pub async fn start() -> Self {
        let clock = ManualClock::new();
        // Not the beginning of all time, so that there is a past to speak of.
        clock.advance(Duration::from_secs(100));
        let (streams, played) = mpsc::unbounded_channel();
        let now = clock.clone();
        let script = Arc::new(Script {
            answers: Mutex::new(Box::new(move |_| Ok(active(now.micros())))),
            asked: Mutex::default(),
            credentials: Mutex::default(),
            arrived: Semaphore::new(0),
            may_answer: Semaphore::new(Semaphore::MAX_PERMITS),
            catalogue: Mutex::new(catalogue::VERSION.to_owned()),
            streams,
            opened: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = IntrospectionServiceServer::new(Service(script.clone()));
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        Self {
            address,
            clock,
            script,
            streams: played,
        }
    }

    pub fn builder(&self) -> Builder {
        Client::builder(&self.address)
            .bearer("jwt")
            .clock(self.clock.clone())
    }

    pub fn client(&self) -> Client {
        self.builder().build().unwrap()
    }

    /// A client with a stream on which a first ping was answered, at these points.
    pub async fn watched(&mut self, revision: i64, min_revision: i64) -> (Client, Played) {
        let client = self.client();
        let stream = self.watch(&client, revision, min_revision).await;
        (client, stream)
    }

    /// Answers the first ping of the client's next stream.
    pub async fn watch(&mut self, client: &Client, revision: i64, min_revision: i64) -> Played {
        let mut stream = self.next_stream().await;
        stream.pong(Duration::ZERO, (revision, min_revision)).await;
        until("the pong is heard", || client.watch_fault().is_none()).await;
        stream
    }

    pub async fn next_stream(&mut self) -> Played {
        let opened = tokio::time::timeout(PATIENCE, self.streams.recv()).await;
        opened.expect("no stream is opened").unwrap()
    }

    /// How many questions there were.
    pub fn asked(&self) -> usize {
        self.script.asked.lock().unwrap().len()
    }

    /// The `min_revision` of the last question.
    pub fn last_min(&self) -> String {
        self.script.asked.lock().unwrap().last().unwrap().clone()
    }

    pub fn answer(
        &self,
        answers: impl Fn(&v1::IntrospectRequest) -> Result<v1::IntrospectResponse, Status>
        + Send
        + Sync
        + 'static,
    ) {
        *self.script.answers.lock().unwrap() = Box::new(answers);
    }

    /// Lets questions wait from now on for `may_answer`.
    pub fn hold(&self) {
        self.script
            .may_answer
            .forget_permits(Semaphore::MAX_PERMITS);
        let arrived = self.script.arrived.available_permits();
        self.script.arrived.forget_permits(arrived);
    }

    pub async fn arrival(&self) {
        let arrived = tokio::time::timeout(PATIENCE, self.script.arrived.acquire()).await;
        arrived.expect("no question arrives").unwrap().forget();
    }

    pub fn release(&self) {
        self.script.may_answer.add_permits(1);
    }
}

impl Played {
    async fn next_ping(&mut self) -> v1::WatchPing {
        if let Some(first) = self.first.take() {
            return first;
        }
        let next = tokio::time::timeout(PATIENCE, self.requests.message()).await;
        let next = next.expect("no ping").unwrap().expect("the client is gone");
        assert_eq!(next.from_revision, "");
        next.ping.expect("a ping")
    }

    /// Answers the next ping.
    pub async fn pong(&mut self, staleness: Duration, points: (i64, i64)) {
        let ping = self.next_ping().await;
        self.answer(ping.nonce, staleness, points).await;
    }

    /// The same, unless the client goes away: whether it was still there.
    pub async fn pong_if_there(&mut self, staleness: Option<Duration>, at: (i64, i64)) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.requests.message()).await;
        let Ok(Some(request)) = next.expect("neither a ping nor an end") else {
            return false;
        };
        let pong = pong(request.ping.unwrap().nonce, staleness, at);
        self.events.send(Ok(pong)).await.is_ok()
    }

    /// The nonce of the next ping, which is left unanswered.
    pub async fn unanswered(&mut self) -> u64 {
        self.next_ping().await.nonce
    }

    pub async fn answer(&self, nonce: u64, staleness: Duration, points: (i64, i64)) {
        let pong = pong(nonce, Some(staleness), points);
        self.events.send(Ok(pong)).await.unwrap();
    }

    pub async fn tell(&self, subject: Subject, points: (i64, i64)) {
        let changed = v1::WatchChanged {
            subject: Some(subject),
            revision: at(points.0),
            min_revision: at(points.1),
        };
        self.send(Ok(Event::Changed(changed))).await;
    }

    pub async fn tell_token(&self, points: (i64, i64)) {
        self.tell(Subject::TokenUid(TOKEN_UID.into()), points).await;
    }

    /// Says what no client knows.
    pub async fn tell_nothing(&self) {
        let nothing = WatchResponse { event: None };
        self.events.send(Ok(nothing)).await.unwrap();
    }

    pub async fn fail(self, status: Status) {
        let _ = self.events.send(Err(status)).await;
    }

    async fn send(&self, event: Result<Event, Status>) {
        let event = event.map(|event| WatchResponse { event: Some(event) });
        self.events.send(event).await.unwrap();
    }

    /// Whether the client goes away.
    pub async fn ends(&mut self) -> bool {
        let gone = async { while let Ok(Some(_)) = self.requests.message().await {} };
        tokio::time::timeout(PATIENCE, gone).await.is_ok()
    }

    /// Waits until everything told so far was heard.
    pub async fn heard(&mut self, points: (i64, i64)) {
        // Whatever is answered next is heard after what was told before; so is the ping that
        // follows it in the client's loop, twice over.
        self.pong(Duration::ZERO, points).await;
        self.pong(Duration::ZERO, points).await;
    }
}

fn pong(nonce: u64, staleness: Option<Duration>, points: (i64, i64)) -> WatchResponse {
    let pong = v1::WatchPong {
        nonce,
        staleness: staleness.map(|staleness| staleness.try_into().unwrap()),
        revision: at(points.0),
        min_revision: at(points.1),
    };
    WatchResponse {
        event: Some(Event::Pong(pong)),
    }
}

/// Asks again until it is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Asks about a secret; whether it is active, and whether the server was not asked.
pub async fn ask(client: &Client, secret: &str) -> (bool, bool) {
    let answer = client
        .introspect(&Question::new(secret, KEY))
        .await
        .unwrap();
    (answer.active(), answer.from_memory())
}

struct Service(Arc<Script>);

#[tonic::async_trait]
impl IntrospectionService for Service {
    async fn introspect(
        &self,
        request: Request<v1::IntrospectRequest>,
    ) -> Result<Response<v1::IntrospectResponse>, Status> {
        let credential = request.metadata().get("authorization");
        let credential = credential.map(|value| value.to_str().unwrap().to_owned());
        self.0.credentials.lock().unwrap().push_back(credential);
        let request = request.into_inner();
        let answer = (self.0.answers.lock().unwrap())(&request);
        self.0.asked.lock().unwrap().push(request.min_revision);
        self.0.arrived.add_permits(1);
        self.0.may_answer.acquire().await.unwrap().forget();
        answer.map(Response::new)
    }

    async fn batch_introspect(
        &self,
        _: Request<v1::BatchIntrospectRequest>,
    ) -> Result<Response<v1::BatchIntrospectResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list_actions(
        &self,
        _: Request<v1::ListActionsRequest>,
    ) -> Result<Response<v1::ListActionsResponse>, Status> {
        Ok(Response::new(v1::ListActionsResponse {
            version: self.0.catalogue.lock().unwrap().clone(),
            actions: Vec::new(),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.expect("a first request");
        let (events, told) = mpsc::channel(16);
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        let played = Played {
            from_revision: first.from_revision,
            first: first.ping,
            requests,
            events,
        };
        let _ = self.0.streams.send(played);
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}
