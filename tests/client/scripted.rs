//! A scripted server. The test sets its answers, decides when they are sent, and acts as the server
//! on every stream.

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
    domain::{catalogue::Catalogue, entropy::OsEntropy, revision::Revision, secret::Secret},
    grpc::pb::v1::{
        self, WatchRequest, WatchResponse,
        action_service_server::{ActionService, ActionServiceServer},
        introspection_service_server::{IntrospectionService, IntrospectionServiceServer},
        watch_changed::Subject,
        watch_response::Event,
    },
};
use stacktoken_client::{Builder, Client, Question};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::support::ManualClock;

pub const KEY: &str = "blt00000000000000a1";
pub const TOKEN_UID: &str = "01937f00-0000-7000-8000-000000000001";
pub const OTHER_TOKEN_UID: &str = "01937f00-0000-7000-8000-000000000009";
pub const STACK_UID: &str = "01937f00-0000-7000-8000-000000000002";
/// A timeout far longer than any step of a test.
const PATIENCE: Duration = Duration::from_secs(10);

type Answers =
    dyn Fn(&v1::IntrospectRequest) -> Result<v1::IntrospectResponse, Status> + Send + Sync;

/// The state that the test shares with the server.
pub struct Script {
    pub answers: Mutex<Box<Answers>>,
    /// The `min_revision` of each question, in order.
    pub asked: Mutex<Vec<String>>,
    /// The credential of each question.
    pub credentials: Mutex<VecDeque<Option<String>>>,
    /// Counts the questions that have arrived.
    arrived: Semaphore,
    /// Permits to answer; each question takes one.
    pub may_answer: Semaphore,
    pub catalogue: Mutex<String>,
    streams: mpsc::UnboundedSender<ScriptedStream>,
    pub opened: AtomicUsize,
}

/// A stream on which the test acts as the server.
pub struct ScriptedStream {
    pub from_revision: String,
    first: Option<v1::WatchPing>,
    requests: Streaming<WatchRequest>,
    events: mpsc::Sender<Result<WatchResponse, Status>>,
}

pub struct Server {
    pub address: String,
    pub clock: Arc<ManualClock>,
    pub script: Arc<Script>,
    streams: mpsc::UnboundedReceiver<ScriptedStream>,
}

/// Returns the revision at this position in the change log of the scripted server.
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

/// Returns the answer for an active token with every permission, evaluated at this instant.
pub fn active(evaluated_at: i64) -> v1::IntrospectResponse {
    v1::IntrospectResponse {
        active: true,
        token_uid: TOKEN_UID.into(),
        token: Some(v1::TokenFacts {
            name: "deploy".into(),
            generation: 1,
            issued_at: Some(instant(0)),
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
    /// Starts a server that answers immediately that every token is active.
    pub async fn start() -> Self {
        let clock = ManualClock::new();
        // Tests also use instants before the start, so the clock does not start at 0.
        clock.advance(Duration::from_secs(100));
        let (streams, scripted) = mpsc::unbounded_channel();
        let now = clock.clone();
        let script = Arc::new(Script {
            answers: Mutex::new(Box::new(move |_| Ok(active(now.micros())))),
            asked: Mutex::default(),
            credentials: Mutex::default(),
            arrived: Semaphore::new(0),
            may_answer: Semaphore::new(Semaphore::MAX_PERMITS),
            catalogue: Mutex::new(Catalogue::builtin().version().to_owned()),
            streams,
            opened: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = IntrospectionServiceServer::new(Service(script.clone()));
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .add_service(ActionServiceServer::new(Service(script.clone())))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        Self {
            address,
            clock,
            script,
            streams: scripted,
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

    /// Creates a client, and answers the first ping of its stream with these positions.
    pub async fn watched(&mut self, revision: i64, min_revision: i64) -> (Client, ScriptedStream) {
        let client = self.client();
        let stream = self.watch(&client, revision, min_revision).await;
        (client, stream)
    }

    /// Answers the first ping of the client's next stream with these positions.
    pub async fn watch(
        &mut self,
        client: &Client,
        revision: i64,
        min_revision: i64,
    ) -> ScriptedStream {
        let mut stream = self.next_stream().await;
        stream.pong(Duration::ZERO, (revision, min_revision)).await;
        until("the pong arrives", || client.watch_fault().is_none()).await;
        stream
    }

    pub async fn next_stream(&mut self) -> ScriptedStream {
        let opened = tokio::time::timeout(PATIENCE, self.streams.recv()).await;
        opened.expect("no stream is opened").unwrap()
    }

    /// Returns how many questions have arrived.
    pub fn asked(&self) -> usize {
        self.script.asked.lock().unwrap().len()
    }

    /// Returns the `min_revision` of the last question.
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

    /// Makes questions wait for `may_answer`, starting now.
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

impl ScriptedStream {
    async fn next_ping(&mut self) -> v1::WatchPing {
        if let Some(first) = self.first.take() {
            return first;
        }
        let next = tokio::time::timeout(PATIENCE, self.requests.message()).await;
        let next = next
            .expect("no ping arrives")
            .unwrap()
            .expect("the client closed the stream");
        assert_eq!(next.from_revision, "");
        next.ping.expect("a ping")
    }

    /// Answers the next ping.
    pub async fn pong(&mut self, staleness: Duration, points: (i64, i64)) {
        let ping = self.next_ping().await;
        self.answer(ping.nonce, staleness, points).await;
    }

    /// Answers the next ping. Returns `false` if the client closes the stream instead of sending a
    /// ping.
    pub async fn pong_if_there(&mut self, staleness: Option<Duration>, at: (i64, i64)) -> bool {
        let next = tokio::time::timeout(PATIENCE, self.requests.message()).await;
        let Ok(Some(request)) = next.expect("neither a ping nor the end of the stream arrives")
        else {
            return false;
        };
        let pong = pong(request.ping.unwrap().nonce, staleness, at);
        self.events.send(Ok(pong)).await.is_ok()
    }

    /// Waits for the next ping and returns its nonce, without answering it.
    pub async fn unanswered(&mut self) -> u64 {
        self.next_ping().await.nonce
    }

    pub async fn answer(&self, nonce: u64, staleness: Duration, points: (i64, i64)) {
        let pong = pong(nonce, Some(staleness), points);
        self.events.send(Ok(pong)).await.unwrap();
    }

    pub async fn send_change(&self, subject: Subject, points: (i64, i64)) {
        let changed = v1::WatchChanged {
            subject: Some(subject),
            revision: at(points.0),
            min_revision: at(points.1),
        };
        self.send(Ok(Event::Changed(changed))).await;
    }

    pub async fn send_token_change(&self, points: (i64, i64)) {
        self.send_change(Subject::TokenUid(TOKEN_UID.into()), points)
            .await;
    }

    /// Sends an event of a kind that the client does not know.
    pub async fn send_unknown_event(&self) {
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

    /// Reads until the client closes the stream. Returns `false` if the stream is still open after
    /// [`PATIENCE`].
    pub async fn ends(&mut self) -> bool {
        let gone = async { while let Ok(Some(_)) = self.requests.message().await {} };
        tokio::time::timeout(PATIENCE, gone).await.is_ok()
    }

    /// Waits until the client has processed all events sent so far.
    pub async fn wait_until_received(&mut self, points: (i64, i64)) {
        // The client processes events in order, and sends pings from the same loop. It may have
        // sent the first ping before it processed the events, but not the second.
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

/// Polls until the condition holds.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(
            std::time::Instant::now() < give_up,
            "did not happen in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Introspects a secret. Returns whether the token is active, and whether the answer came from the
/// cache.
pub async fn ask(client: &Client, secret: &str) -> (bool, bool) {
    let answer = client
        .introspect(&Question::new(secret, KEY))
        .await
        .unwrap();
    (answer.active(), answer.from_memory())
}

/// Calls [`ask`] in a separate task.
pub fn start_asking(client: &Client, secret: &str) -> JoinHandle<(bool, bool)> {
    let (client, secret) = (client.clone(), secret.to_owned());
    tokio::spawn(async move { ask(&client, &secret).await })
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
        Err(Status::unimplemented("no test needs this"))
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
        let scripted = ScriptedStream {
            from_revision: first.from_revision,
            first: first.ping,
            requests,
            events,
        };
        let _ = self.0.streams.send(scripted);
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}

#[tonic::async_trait]
impl ActionService for Service {
    async fn list_actions(
        &self,
        _: Request<v1::ListActionsRequest>,
    ) -> Result<Response<v1::ListActionsResponse>, Status> {
        Ok(Response::new(v1::ListActionsResponse {
            version: self.0.catalogue.lock().unwrap().clone(),
            actions: Vec::new(),
        }))
    }
}
