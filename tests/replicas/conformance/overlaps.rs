//! Compares the two live secrets of a token during a rotation on both engines.

use std::time::Duration;

use stacktoken::{
    domain::{
        clock::Clock as _, etag::Target, id::TokenUid, rotation::Overlap, stack::StackKey,
        token::Token, token_secret::TokenSecret,
    },
    store::{ListQuery, Order, TokenFilter},
};

use super::{Engine, KEY, first_use, reason, refusal, rotate, states};

/// Returns the live secrets of a token. Asserts that `get` and `list` agree on them.
async fn seen(engine: &Engine, key: &StackKey, uid: TokenUid) -> String {
    let token = engine.store.get(&engine.owner(), key, uid).await.unwrap();
    let query = ListQuery {
        stack_key: Some(key.clone()),
        filter: TokenFilter::default(),
        order: Order::NewestFirst,
        size: 50,
        after: None,
    };
    let page = engine.store.list(&engine.owner(), &query).await.unwrap();
    let listed = page.tokens.into_iter().find(|token| token.uid == uid);
    assert_eq!(listed.as_ref(), Some(&token));
    shown(engine, &token)
}

/// Formats the live secrets of a token, without their random hints.
fn shown(engine: &Engine, token: &Token) -> String {
    let live = token.live_secrets(engine.clock.now()).cloned();
    let live = live.map(|secret| {
        assert_eq!(secret.hint.len(), 4);
        let hint = String::new();
        TokenSecret { hint, ..secret }
    });
    format!("{:?}", live.collect::<Vec<_>>())
}

pub async fn overlaps(engine: &Engine) -> Vec<String> {
    const HOUR: Overlap = Overlap::For(Duration::from_secs(3600));
    const A_MINUTE_AT_MOST: Overlap = Overlap::UntilFirstUse {
        at_most: Duration::from_secs(60),
    };
    let key = engine.register(KEY).await;
    engine.issue(&key, "other", None).await.unwrap();
    let (token, first) = engine.issue(&key, "rotated", None).await.unwrap();
    let at = (&key, token.uid);
    let target = Target::new(key.clone(), token.uid);
    let mut noted = vec![seen(engine, &key, token.uid).await];
    first_use(engine, &first).await;
    let (mut secrets, mut former) = (Vec::new(), first);
    for overlap in [HOUR, A_MINUTE_AT_MOST, HOUR] {
        let (done, newer) = rotate(engine, at, (overlap, None)).await;
        let done = done.unwrap();
        noted.push(format!("{:?}", done.overlap_ends_at));
        noted.push(seen(engine, &key, token.uid).await);
        assert_eq!(done.token.secrets.newest_hint(), newer.hint());
        assert_eq!(shown(engine, &done.token), noted[noted.len() - 1]);
        first_use(engine, &newer).await;
        noted.push(seen(engine, &key, token.uid).await);
        secrets.push(std::mem::replace(&mut former, newer));
    }
    for _ in 0..2 {
        engine.clock.advance(Duration::from_secs(1));
        let (ended, _) = engine
            .store
            .end_overlap(&engine.owner(), &target)
            .await
            .unwrap();
        noted.push(format!("{}", ended.changed));
        noted.push(seen(engine, &key, token.uid).await);
    }
    let all: Vec<_> = secrets.iter().chain([&former]).collect();
    noted.push(states(engine, &all).await);
    let (_, revoked) = engine
        .store
        .revoke(&engine.owner(), &target, &reason())
        .await
        .unwrap();
    let dead = engine.store.end_overlap(&engine.owner(), &target).await;
    noted.push(format!("{:?}", refusal(dead)));
    let (other, _) = engine.issue(&key, "sole", None).await.unwrap();
    let sole = engine
        .store
        .end_overlap(&engine.owner(), &Target::new(key.clone(), other.uid))
        .await;
    let (sole, current) = sole.unwrap();
    assert!(!sole.changed && current.position > revoked.position);
    noted
}
