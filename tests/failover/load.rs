//! The load: callers that introspect, owners that issue and revoke, and a probe that writes
//! directly to the database to find out when it accepts writes.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::sqlx::{self, Row as _};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Request;

use crate::{
    observer::{ObservedAnswer, Observer, Token, Tokens},
    replica::{Service, connect},
    routing::Routing,
    support::{Client, issue_request},
};

/// The number of tokens that stay live for the whole run.
const LIVE: usize = 8;
const WRITERS: usize = 4;
/// The time from when a token is issued until it is revoked.
const LIFE: Duration = Duration::from_millis(400);
/// How long a token is still introspected after it was revoked.
const ASKED_FOR: Duration = Duration::from_secs(15);
/// The maximum time for which a revoke is repeated until it is acknowledged.
const REVOKED_WITHIN: Duration = Duration::from_secs(120);

/// The changes that the server has acknowledged.
#[derive(Clone, Default)]
pub struct Written {
    issued: Vec<String>,
    revoked: Vec<String>,
}

pub struct Load {
    observers: Vec<(&'static str, bool, Observer)>,
    writers: JoinSet<()>,
    written: Arc<Mutex<Written>>,
    stopping: Arc<AtomicBool>,
    probe: JoinSet<()>,
    probes: Arc<Mutex<Vec<Probe>>>,
}

/// One direct write to the database. It uses the route that follows the primary.
#[derive(Clone, Copy)]
struct Probe {
    ended: Instant,
    accepted: bool,
}

/// The period during which the database accepted no writes.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub lasted: Duration,
    pub accepts_at: Instant,
}

impl Load {
    pub async fn start(service: &Service, routing: &Routing) -> Self {
        let tokens = Tokens::new(&service.stack, Vec::new());
        let written = Arc::new(Mutex::new(Written::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        for at in 0..LIVE {
            let name = format!("live {at}");
            let issued = issue(&service.replicas[0].owner, &tokens.stack, &name);
            let token = issued.await.expect("a healthy service");
            written.lock().unwrap().issued.push(token.uid.clone());
            tokens.add(token);
        }
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            // Writers use only the two replicas whose route follows the primary.
            let owner = service.replicas[writer % 2].owner.clone();
            let (tokens, written, stopping) = (tokens.clone(), written.clone(), stopping.clone());
            writers.spawn(write(owner, tokens, written, (stopping, writer)));
        }
        let observers = service.replicas.iter().map(|replica| {
            let observer = Observer::start(&replica.service, &tokens);
            (replica.name, replica.follows, observer)
        });
        let observers = observers.collect();
        let probes = Arc::new(Mutex::new(Vec::new()));
        let mut probe = JoinSet::new();
        probe.spawn(run_probes(routing.primary, probes.clone()));
        Self {
            observers,
            writers,
            written,
            stopping,
            probe,
            probes,
        }
    }

    /// Resets the counters and the recorded probes.
    pub fn begin(&self) {
        self.take();
        self.probes.lock().unwrap().clear();
    }

    pub fn take(&self) -> Vec<(&'static str, bool, ObservedAnswer)> {
        let taken = self.observers.iter();
        taken
            .map(|(name, follows, observer)| (*name, *follows, observer.take()))
            .collect()
    }

    /// Returns the outage after `since`. It lasts from the last accepted write before the first
    /// failed one to the first accepted write after the last failed one.
    pub fn outage(&self, since: Instant) -> Outage {
        let probes = self.probes.lock().unwrap();
        let Some(last) = probes.iter().rposition(|probe| !probe.accepted) else {
            return Outage {
                lasted: Duration::ZERO,
                accepts_at: since,
            };
        };
        let first = probes.iter().position(|probe| !probe.accepted).unwrap();
        let good = first.checked_sub(1).map_or(since, |at| probes[at].ended);
        let accepts_at = probes
            .get(last + 1)
            .map_or_else(Instant::now, |at| at.ended);
        Outage {
            lasted: accepts_at - good,
            accepts_at,
        }
    }

    /// Stops all callers. A caller panics if it sees a wrong answer, and the panic then fails the
    /// test.
    pub async fn stop(mut self) -> Written {
        self.stopping.store(true, Ordering::SeqCst);
        while let Some(ended) = self.writers.join_next().await {
            ended.unwrap();
        }
        for (.., observer) in self.observers {
            observer.stop().await;
        }
        self.probe.shutdown().await;
        self.written.lock().unwrap().clone()
    }
}

async fn issue(owner: &Client, stack: &str, name: &str) -> Result<Token, tonic::Status> {
    let mut request = Request::new(issue_request(stack, name));
    request.set_timeout(Duration::from_secs(3));
    let issued = owner.tokens.clone().issue(request).await?;
    Ok(Token::from(issued.into_inner()))
}

async fn write(
    owner: Client,
    tokens: Tokens,
    written: Arc<Mutex<Written>>,
    (stopping, writer): (Arc<AtomicBool>, usize),
) {
    for at in 0.. {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(token) = issue(&owner, &tokens.stack, &format!("token {writer}-{at}")).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let uid = token.uid.clone();
        written.lock().unwrap().issued.push(uid.clone());
        tokens.add(token);
        sleep(LIFE).await;
        tokens.revoke(&owner, &uid, REVOKED_WITHIN).await;
        written.lock().unwrap().revoked.push(uid);
        tokens.stop_asking_about(ASKED_FOR);
    }
}

/// Writes to the database repeatedly, each time on a new connection.
async fn run_probes(port: u16, probes: Arc<Mutex<Vec<Probe>>>) {
    loop {
        let accepted = timeout(Duration::from_secs(1), async {
            let mut connection = connect(port, "tokens").await?;
            let sql = "CREATE TABLE IF NOT EXISTS probe (n int)";
            sqlx::query(sql).execute(&mut connection).await.ok()?;
            let sql = "INSERT INTO probe VALUES (1)";
            sqlx::query(sql).execute(&mut connection).await.ok()
        });
        let accepted = accepted.await.ok().flatten().is_some();
        let ended = Instant::now();
        probes.lock().unwrap().push(Probe { ended, accepted });
        sleep(Duration::from_millis(50)).await;
    }
}

impl Written {
    pub fn counts(&self) -> (usize, usize) {
        (self.issued.len(), self.revoked.len())
    }

    /// Returns how many acknowledged issues and revokes are missing from the database.
    pub async fn lost(&self, routing: &Routing) -> (usize, usize) {
        let mut connection = connect(routing.primary, "tokens").await.unwrap();
        let mut uids = HashSet::new();
        let mut dead = HashSet::new();
        let sql = "SELECT uid::text AS uid, revoked_at IS NOT NULL AS dead FROM tokens";
        for row in sqlx::query(sql).fetch_all(&mut connection).await.unwrap() {
            let uid: String = row.get("uid");
            if row.get("dead") {
                dead.insert(uid.clone());
            }
            uids.insert(uid);
        }
        let missing = |among: &HashSet<String>, acknowledged: &[String]| {
            acknowledged
                .iter()
                .filter(|uid| !among.contains(*uid))
                .count()
        };
        (missing(&uids, &self.issued), missing(&dead, &self.revoked))
    }
}
