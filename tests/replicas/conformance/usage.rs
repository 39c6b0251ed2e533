//! Compares how the last use of tokens is recorded and listed on both engines.

use std::{sync::Arc, time::Instant};

use stacktoken::{
    domain::{
        caller::{Actor, CallerKind},
        id::{self, TokenUid},
        refusal::Refusal,
        stack::StackKey,
        timestamp::Timestamp,
    },
    store::{ListQuery, Order, TokenFilter, Use},
};

use super::{Engine, KEY, first_use, later, refusal, rotate};

fn service(subject: &str) -> Arc<Actor> {
    Arc::new(Actor {
        kind: CallerKind::Service,
        issuer: "https://login.test".into(),
        subject: subject.into(),
    })
}

fn used(token: TokenUid, by: &Arc<Actor>, at: Timestamp) -> Use {
    Use {
        token,
        service: by.clone(),
        at,
    }
}

async fn last_use(engine: &Engine, key: &StackKey, uid: TokenUid) -> Option<Timestamp> {
    let token = engine.store.get(&engine.owner(), key, uid).await.unwrap();
    token.last_used_at
}

async fn unused(engine: &Engine, key: &StackKey, at: Timestamp) -> Vec<String> {
    let mut query = ListQuery {
        stack_key: Some(key.clone()),
        filter: TokenFilter {
            unused_since: Some(at),
            ..TokenFilter::default()
        },
        order: Order::OldestFirst,
        size: 1,
        after: None,
    };
    let mut names = Vec::new();
    loop {
        let page = engine.store.list(&engine.owner(), &query).await.unwrap();
        names.extend(
            page.tokens
                .iter()
                .map(|token| token.name.as_str().to_owned()),
        );
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    names
}

/// Records uses out of order and by several services. The last use only ever moves forward, and is
/// the latest use by any service.
pub async fn uses(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, _) = engine.issue(&key, "used", None).await.unwrap();
    let (other, _) = engine.issue(&key, "other", None).await.unwrap();
    let start = engine.owner().received_at;
    let odd = service(r#"a "quoted" \ naïve 日本 'subject'"#);
    let (one, two) = (service("one"), service("two"));
    let gone = id::generate(start, engine.entropy.as_ref()).unwrap();
    let mut noted = Vec::new();
    assert_eq!(last_use(engine, &key, token.uid).await, None);
    for batch in [
        vec![used(token.uid, &one, later(start, 60))],
        // These uses are out of order, as if they came from two replicas. The recorded time must
        // not go back.
        vec![used(token.uid, &one, later(start, 30))],
        vec![
            used(token.uid, &two, later(start, 90)),
            // This token was purged in the meantime. Its use is skipped, and the other uses are
            // recorded.
            used(gone, &one, later(start, 99)),
            used(token.uid, &odd, later(start, 50)),
            used(other.uid, &odd, later(start, 40)),
        ],
        vec![],
        vec![used(token.uid, &one, later(start, 95))],
        vec![used(token.uid, &two, later(start, 94))],
    ] {
        store.record_uses(&batch).await.unwrap();
        let used = last_use(engine, &key, token.uid).await;
        noted.push(format!(
            "{used:?} {:?}",
            last_use(engine, &key, other.uid).await
        ));
    }
    assert_eq!(
        last_use(engine, &key, token.uid).await,
        Some(later(start, 95))
    );
    for seconds in [0, 40, 41, 95, 96] {
        let named = unused(engine, &key, later(start, seconds)).await;
        noted.push(format!("{seconds} {named:?}"));
    }
    noted
}

/// Records a first use that is older than the last use. The last use stays, and there is no error.
pub async fn first_uses(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, first) = engine.issue(&key, "rotated", None).await.unwrap();
    first_use(engine, &first).await;
    let at = engine.owner().received_at;
    assert_eq!(last_use(engine, &key, token.uid).await, Some(at));
    let by = service("content-api");
    let ahead = later(at, 3600);
    store
        .record_uses(&[used(token.uid, &by, ahead)])
        .await
        .unwrap();
    let overlap = stacktoken::domain::rotation::Overlap::UNTIL_FIRST_USE;
    let (done, second) = rotate(engine, (&key, token.uid), (overlap, None)).await;
    let answered = done.unwrap().token.last_used_at;
    assert_eq!(answered, Some(ahead), "the response to a change has it too");
    let ended = first_use(engine, &second).await;
    assert_eq!(last_use(engine, &key, token.uid).await, Some(ahead));
    vec![format!("{ended}")]
}

/// Lists the candidates that a refused `Issue` names: the token that expires soonest, the oldest
/// unused token, and the one that has been idle for longest. If there is no such token, the next
/// best is named.
pub async fn candidates(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let mut uids = Vec::new();
    for at in 0..10 {
        let expires_in = [2, 5].contains(&at).then(|| 9000 - at * 100);
        let issued = engine.issue(&key, &format!("token {at}"), expires_in).await;
        uids.push(issued.unwrap().0.uid);
    }
    let start = engine.owner().received_at;
    let by = service("one");
    let mut noted = Vec::new();
    let mut names = Vec::new();
    // Token 7 has been idle for longest, then token 3, then token 9.
    for round in [
        vec![],
        vec![(3, 50), (7, 20), (9, 80)],
        vec![(0, 70), (1, 60), (2, 10), (4, 99), (5, 5), (6, 98), (8, 97)],
    ] {
        let batch = round
            .into_iter()
            .map(|(token, seconds): (usize, u64)| used(uids[token], &by, later(start, seconds)));
        store.record_uses(&batch.collect::<Vec<_>>()).await.unwrap();
        match refusal(engine.issue(&key, "one more", None).await.map(drop)) {
            Refusal::LimitReached { candidates, .. } => {
                names.push(candidates.iter().map(|named| named.name.clone()).collect());
                noted.push(format!(
                    "{:?}",
                    candidates.iter().map(|named| named.why).collect::<Vec<_>>()
                ));
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: [&[&str]; 3] = [
        &["token 5", "token 0", "token 1"],
        &["token 5", "token 0", "token 7"],
        // No token is unused, so the third candidate is the second one in order of idle time.
        &["token 5", "token 2", "token 7"],
    ];
    let names: Vec<Vec<String>> = names;
    assert_eq!(names, expected);
    noted
}

/// Three times, records as many uses as fit into one statement.
pub async fn many_uses(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, _) = engine.issue(&key, "used by many", None).await.unwrap();
    let start = engine.owner().received_at;
    let services: Vec<_> = (0..10_000)
        .map(|at| service(&format!("system:serviceaccount:cms:service-{at}")))
        .collect();
    for round in 1..=3 {
        let batch: Vec<_> = services
            .iter()
            .map(|by| used(token.uid, by, later(start, round)))
            .collect();
        let begun = Instant::now();
        store.record_uses(&batch).await.unwrap();
        println!(
            "{}: {} uses in {:?}",
            engine.name,
            batch.len(),
            begun.elapsed()
        );
    }
    vec![format!("{:?}", last_use(engine, &key, token.uid).await)]
}
