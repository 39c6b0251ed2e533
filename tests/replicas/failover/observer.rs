//! Asks a replica about tokens continuously. Checks every answer against the changes that were
//! acknowledged when the call began.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use stacktoken::grpc::pb::v1;
use tokio::{task::JoinSet, time::sleep};
use tonic::{Code, Request};

use crate::support::{Client, introspect_request, reason, requests::revoke_request};

/// The freshness bound of the replicas.
pub const BOUND: Duration = Duration::from_secs(1);
/// The time within which a call must be answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A token, with what the test knows about it.
#[derive(Clone)]
pub struct Token {
    pub uid: String,
    pub secret: String,
    issued_at: Instant,
    /// When a revoke was first sent. From then on the token may be dead.
    revoking_at: Option<Instant>,
    /// When a revoke was acknowledged. From then on the token is dead.
    revoked_at: Option<Instant>,
}

impl From<v1::IssueResponse> for Token {
    fn from(issued: v1::IssueResponse) -> Self {
        Self {
            uid: issued.token.unwrap().token_uid,
            secret: issued.secret,
            issued_at: Instant::now(),
            revoking_at: None,
            revoked_at: None,
        }
    }
}

/// The tokens that the observer asks about.
#[derive(Clone)]
pub struct Tokens {
    pub stack: String,
    tokens: Arc<Mutex<Vec<Token>>>,
}

impl Tokens {
    pub fn new(stack: &str, tokens: Vec<Token>) -> Self {
        Self {
            stack: stack.to_owned(),
            tokens: Arc::new(Mutex::new(tokens)),
        }
    }

    /// Adds a token to those that the observer asks about.
    pub fn add(&self, token: Token) {
        self.tokens.lock().unwrap().push(token);
    }

    /// Removes tokens that were revoked longer ago than this.
    pub fn stop_asking_about(&self, after: Duration) {
        let mut tokens = self.tokens.lock().unwrap();
        tokens.retain(|token| token.revoked_at.is_none_or(|at| at.elapsed() < after));
    }

    /// Revokes a token, and retries until the revoke is acknowledged. Returns the revision of the
    /// revoke.
    pub async fn revoke(&self, owner: &Client, uid: &str, within: Duration) -> String {
        self.change(uid, |token| {
            token.revoking_at.get_or_insert(Instant::now());
        });
        let until = Instant::now() + within;
        let revision = loop {
            let request = revoke_request(&self.stack, uid, "");
            match owner.tokens.clone().revoke(request).await {
                Ok(revoked) => break revoked.into_inner().revision,
                Err(status) => assert!(Instant::now() < until, "{status:?}"),
            }
            sleep(Duration::from_millis(10)).await;
        };
        self.change(uid, |token| token.revoked_at = Some(Instant::now()));
        revision
    }

    fn change(&self, uid: &str, change: impl FnOnce(&mut Token)) {
        let mut tokens = self.tokens.lock().unwrap();
        tokens
            .iter_mut()
            .find(|token| token.uid == uid)
            .map(change)
            .unwrap();
    }

    fn pick(&self, turn: usize) -> Token {
        let tokens = self.tokens.lock().unwrap();
        tokens[turn % tokens.len()].clone()
    }

    /// Returns what is known by now about a token that was picked earlier.
    fn current(&self, picked: Token) -> Token {
        let tokens = self.tokens.lock().unwrap();
        let known = tokens.iter().find(|token| token.uid == picked.uid);
        known.cloned().unwrap_or(picked)
    }
}

/// How many answers of each kind there were so far.
#[derive(Clone, Debug, Default)]
pub struct ObservedAnswer {
    pub answers: usize,
    /// Active answers about a revoked token, to calls that began later than the bound after the
    /// revoke was acknowledged.
    pub stale: usize,
    /// How long after the freshness bound the latest call with a stale answer began.
    pub stalest: Duration,
    /// Inactive answers about a token that is live.
    pub wrong: usize,
    /// Inactive answers about tokens that were issued within the bound before the call. They are
    /// correct, because a replica that still has a lease from the former primary cannot know such a
    /// token.
    pub not_known_yet: usize,
    pub refused: BTreeMap<String, usize>,
    pub last_refused: Option<Instant>,
}

impl ObservedAnswer {
    /// Asserts that every answer was right and that every refusal has one of the expected reasons.
    pub fn assert_right(&self) {
        assert_eq!((self.stale, self.wrong), (0, 0), "{self:?}");
        for reason in self.refused.keys() {
            let known = ["NOT_FRESH", "STORE_UNAVAILABLE", "DEADLINE"].contains(&reason.as_str());
            assert!(known, "{self:?}");
        }
    }

    /// Returns for how long after this instant calls were still refused.
    pub fn recovery(&self, since: Instant) -> Duration {
        let last = self.last_refused;
        last.map_or(Duration::ZERO, |at| at.saturating_duration_since(since))
    }

    fn record(&mut self, token: &Token, begun: Instant, active: bool) {
        self.answers += 1;
        let dead_for_all = token.revoked_at.map(|at| at + BOUND);
        let stale = dead_for_all.filter(|at| active && begun > *at);
        if let Some(at) = stale {
            self.stale += 1;
            self.stalest = self.stalest.max(begun - at);
        }
        let wrong = !active && token.revoking_at.is_none();
        let known = begun > token.issued_at + BOUND;
        self.wrong += usize::from(wrong && known);
        self.not_known_yet += usize::from(wrong && !known);
    }

    fn note_refusal(&mut self, status: &tonic::Status) {
        let expected = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
        assert!(expected, "{status:?}");
        *self.refused.entry(reason(status)).or_default() += 1;
        self.last_refused = Some(Instant::now());
    }
}

/// Callers that introspect the same tokens at one replica until they are stopped, to record what it
/// answers during a failover.
pub struct Observer {
    seen: Arc<Mutex<ObservedAnswer>>,
    callers: JoinSet<()>,
}

impl Observer {
    /// Starts four callers that ask about these tokens.
    pub fn start(service: &Client, tokens: &Tokens) -> Self {
        let seen = Arc::new(Mutex::new(ObservedAnswer::default()));
        let mut callers = JoinSet::new();
        for first in 0..4 {
            let (seen, service, tokens) = (seen.clone(), service.clone(), tokens.clone());
            callers.spawn(async move {
                for turn in first.. {
                    ask(&seen, &service, &tokens, turn).await;
                    sleep(Duration::from_millis(2)).await;
                }
            });
        }
        Self { seen, callers }
    }

    /// Returns the counts so far, and resets them.
    pub fn take(&self) -> ObservedAnswer {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Stops the callers and returns the counts.
    pub async fn stop(mut self) -> ObservedAnswer {
        // A caller panics if it finds a fault, so the panic must fail the test.
        while let Some(ended) = self.callers.try_join_next() {
            ended.unwrap();
        }
        self.callers.shutdown().await;
        self.take()
    }
}

async fn ask(seen: &Mutex<ObservedAnswer>, service: &Client, tokens: &Tokens, turn: usize) {
    let token = tokens.pick(turn);
    let mut request = Request::new(introspect_request(&tokens.stack, &token.secret, &[]));
    request.set_timeout(ANSWER_WITHIN);
    let begun = Instant::now();
    let answered = service.clone().introspection.introspect(request).await;
    let token = tokens.current(token);
    let mut seen = seen.lock().unwrap();
    match answered {
        Ok(answer) => seen.record(&token, begun, answer.get_ref().active),
        Err(status) => seen.note_refusal(&status),
    }
}
