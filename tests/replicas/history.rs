//! Tests the history of a randomized run. Many clients use two replicas while a fault occurs every
//! two seconds, and every recorded answer is checked against the life cycle of its token. An answer
//! may be stale by at most the bound. STACKTOKEN_TEST_HISTORY_SECONDS sets the duration, and
//! STACKTOKEN_TEST_SEED the seed.

mod export;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use stacktoken::{app::Safeguards, grpc::pb::v1};
use tokio::{task::JoinSet, time::sleep};
use tonic::Code;

use crate::{
    cluster::{Cluster, DATABASE},
    control::assert_shows,
    proxy::Link,
    support::{Client, introspect_request, issue_request, reason},
};

const CLIENTS: u64 = 16;
const TOKENS: usize = 32;
const BOUND: Duration = Duration::from_secs(1);
const FAULT_EVERY: Duration = Duration::from_secs(2);

/// The life cycle of one token, as the clients that changed the token have recorded it.
#[derive(Clone, Default)]
struct TokenHistory {
    secret: String,
    uid: String,
    /// When a revoke was first sent. From then on the token may be dead.
    dying: Option<Instant>,
    /// Whether a client is replacing the token. Only one client may do so at a time.
    busy: bool,
    /// When a revoke was first acknowledged, and the revision of this revoke.
    dead: Option<(Instant, String)>,
}

/// One answer about a token.
struct Answer {
    token: usize,
    begun: Instant,
    ended: Instant,
    active: bool,
    /// Whether the call had the revision of the revoke as its `min_revision`.
    min_revision: bool,
    /// The revision that the answer reflects.
    revision: String,
}

#[derive(Default)]
struct Record {
    lives: Vec<TokenHistory>,
    /// The index in `lives` of the current token of each slot.
    slots: Vec<usize>,
    answers: Vec<Answer>,
    operations: usize,
    refused: BTreeMap<String, usize>,
    names: usize,
    /// The number of refusals with a code that no fault justifies.
    wrong: usize,
}

type SharedRecord = Arc<Mutex<Record>>;

impl Record {
    fn refuse(&mut self, status: &tonic::Status) {
        let known = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
        self.wrong += usize::from(!known);
        *self.refused.entry(reason(status)).or_default() += 1;
    }

    /// Describes each answer that no order of events can explain.
    fn violations(&self) -> Vec<String> {
        let wrong = |answer: &Answer| {
            let life = &self.lives[answer.token];
            let dead = life.dead.as_ref().map(|(at, _)| *at);
            if answer.active && answer.min_revision {
                return Some("active despite min_revision".to_owned());
            }
            if answer.active && dead.is_some_and(|at| answer.begun > at + BOUND) {
                let late = answer.begun - dead.unwrap();
                return Some(format!("active {late:?} after the revoke was acknowledged"));
            }
            let lived = life.dying.is_none_or(|at| answer.ended < at);
            (!answer.active && lived).then(|| "inactive although it was live".to_owned())
        };
        self.answers.iter().filter_map(wrong).collect()
    }
}

struct Timeline {
    stack: String,
    book: SharedRecord,
    until: Instant,
}

/// Runs one client. It mostly introspects tokens, and sometimes replaces one.
async fn play(course: Arc<Timeline>, sides: [(Client, Client); 2], seed: u64) {
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut sides = sides;
    while Instant::now() < course.until {
        let slot = random.next_u32() as usize % TOKENS;
        let side = &mut sides[random.next_u32() as usize % 2];
        let kind = random.next_u32();
        if random.next_u32() % 60 == 0 {
            renew(&course, &mut side.0, slot).await;
        } else {
            ask(&course, &mut side.1, slot, kind).await;
        }
    }
}

async fn ask(course: &Timeline, service: &mut Client, slot: usize, kind: u32) {
    let (asks_former, asks_since) = (kind.is_multiple_of(2), kind.is_multiple_of(4));
    let (token, life) = {
        let record = course.book.lock().unwrap();
        // Half of the calls are about a recently issued token, which may be dead already.
        let latest = record.lives.len() - TOKENS;
        let token = if asks_former {
            latest + slot
        } else {
            record.slots[slot]
        };
        let token = if asks_since {
            token.saturating_sub(TOKENS)
        } else {
            token
        };
        (token, record.lives[token].clone())
    };
    let mut request = introspect_request(&course.stack, &life.secret, &[]);
    let since = life.dead.filter(|_| asks_since);
    let min_revision = since.is_some();
    request.min_revision = since.map(|(_, revision)| revision).unwrap_or_default();
    let begun = Instant::now();
    let answered = service.introspection.introspect(request).await;
    let ended = Instant::now();
    let mut record = course.book.lock().unwrap();
    record.operations += 1;
    match answered {
        Ok(answer) => {
            let answer = answer.into_inner();
            record.answers.push(Answer {
                token,
                begun,
                ended,
                active: answer.active,
                min_revision,
                revision: answer.revision,
            });
        }
        Err(status) => record.refuse(&status),
    }
}

/// Revokes the token of a slot, and issues a new one for the slot.
async fn renew(course: &Timeline, owner: &mut Client, slot: usize) {
    let (token, uid, name) = {
        let mut record = course.book.lock().unwrap();
        let token = record.slots[slot];
        if std::mem::replace(&mut record.lives[token].busy, true) {
            return;
        }
        record.lives[token].dying.get_or_insert_with(Instant::now);
        record.names += 1;
        (
            token,
            record.lives[token].uid.clone(),
            format!("token {}", record.names),
        )
    };
    let request = v1::RevokeRequest {
        stack_api_key: course.stack.clone(),
        token_uid: uid,
        reason: String::new(),
        validate_only: false,
        etag: String::new(),
    };
    let revoked = owner.tokens.revoke(request).await;
    let acknowledged = Instant::now();
    {
        let mut record = course.book.lock().unwrap();
        record.operations += 1;
        match revoked {
            Ok(revoked) => {
                let revision = revoked.into_inner().revision;
                record.lives[token]
                    .dead
                    .get_or_insert((acknowledged, revision));
            }
            Err(status) => {
                record.lives[token].busy = false;
                return record.refuse(&status);
            }
        }
    }
    let issued = owner
        .tokens
        .issue(issue_request(&course.stack, &name))
        .await;
    let mut record = course.book.lock().unwrap();
    record.operations += 1;
    match issued {
        Ok(issued) => {
            let issued = issued.into_inner();
            let uid = issued.token.unwrap().token_uid;
            record.lives.push(TokenHistory {
                secret: issued.secret,
                uid,
                ..TokenHistory::default()
            });
            record.slots[slot] = record.lives.len() - 1;
        }
        Err(status) => {
            // The slot keeps its token. The next attempt revokes the token again, which changes
            // nothing, and then issues another one.
            record.lives[token].busy = false;
            record.refuse(&status);
        }
    }
}

/// Injects one fault and ends it. Returns its name.
async fn fault(cluster: &mut Cluster, random: &mut ChaCha20Rng) -> &'static str {
    let lasting = Duration::from_millis(300 + u64::from(random.next_u32() % 1400));
    let side = |cluster: &Cluster, first: bool, link| {
        if first {
            cluster.a.links(link)
        } else {
            cluster.b.links(link)
        }
    };
    let first = random.next_u32().is_multiple_of(2);
    match random.next_u32() % 5 {
        0 => {
            side(cluster, first, Link::Cut);
            sleep(lasting).await;
            side(cluster, first, Link::Up);
            "cut"
        }
        1 => {
            side(cluster, first, Link::BlackHole);
            sleep(lasting).await;
            side(cluster, first, Link::Up);
            "black hole"
        }
        2 => {
            cluster.postgres.freeze(true);
            sleep(lasting).await;
            cluster.postgres.freeze(false);
            "frozen"
        }
        3 => {
            let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE datname = 'tokens' AND pid <> pg_backend_pid()";
            cluster.postgres.run(DATABASE, all);
            "terminated"
        }
        _ => {
            cluster.postgres.restart();
            "crashed"
        }
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Which faults occur during a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// Different faults one after the other, chosen by the seed.
    Seeded,
    /// One fault: B is behind a black hole during the whole run.
    HoleAtB,
}

/// Runs the clients. Returns the record, and the names of the faults that were injected.
async fn run(
    cluster: &mut Cluster,
    lasting: Duration,
    seed: u64,
    fault_by: Faults,
) -> (Record, Vec<&'static str>) {
    cluster.allow_tokens(1000).await;
    let mut record = Record::default();
    for at in 0..TOKENS {
        let issued = cluster.issue(&format!("first {at}")).await;
        let uid = issued.token.unwrap().token_uid;
        record.lives.push(TokenHistory {
            secret: issued.secret,
            uid,
            ..TokenHistory::default()
        });
        record.slots.push(at);
    }
    for life in &record.lives {
        cluster.b.warm(&cluster.stack, &life.secret).await;
    }
    if fault_by == Faults::HoleAtB {
        cluster.b.links(Link::BlackHole);
    }
    let course = Arc::new(Timeline {
        stack: cluster.stack.clone(),
        book: Arc::new(Mutex::new(record)),
        until: Instant::now() + lasting,
    });
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let sides = [&cluster.a, &cluster.b].map(|side| (side.owner.clone(), side.service.clone()));
        clients.spawn(play(course.clone(), sides, seed * CLIENTS + client));
    }
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut faults = Vec::new();
    while fault_by == Faults::Seeded && Instant::now() + FAULT_EVERY < course.until {
        let next = Instant::now() + FAULT_EVERY;
        faults.push(fault(cluster, &mut random).await);
        sleep(next.saturating_duration_since(Instant::now())).await;
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let course = Arc::into_inner(course).unwrap();
    let record = Arc::into_inner(course.book).unwrap().into_inner().unwrap();
    (record, faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_in_a_sequence_of_faults_is_wrong() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let seed = setting("STACKTOKEN_TEST_SEED", 1);
    let lasting = Duration::from_secs(setting("STACKTOKEN_TEST_HISTORY_SECONDS", 12));
    let (record, faults) = run(&mut cluster, lasting, seed, Faults::Seeded).await;
    let violations = record.violations();
    record.export("faults");
    println!(
        "history: seed {seed}, {} operations, {} answers, {} tokens, faults {faults:?}, refused {:?}, {} violations",
        record.operations,
        record.answers.len(),
        record.lives.len(),
        record.refused,
        violations.len(),
    );
    assert!(
        violations.is_empty(),
        "{:#?}",
        &violations[..violations.len().min(10)]
    );
    assert_eq!(record.wrong, 0, "{:?}", record.refused);
    assert!(record.operations > 1000 && !faults.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lease_the_same_check_finds_wrong_answers() {
    let without = Safeguards {
        lease: false,
        ..Safeguards::default()
    };
    assert_shows(without, async |cluster| {
        let (record, _) = run(cluster, Duration::from_secs(5), 3, Faults::HoleAtB).await;
        record.export("without-lease");
        !record.violations().is_empty()
    })
    .await;
}
