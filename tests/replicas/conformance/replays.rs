//! Compares repeated calls with the same idempotency key that return no secret.

use std::time::Duration;

use stacktoken::{
    domain::{
        audit::AuditAction,
        caller::{Call, Mode},
        incident::{PreviewHash, RevokeFilter},
        refusal::Refusal,
        request::Request,
    },
    store::{AuditFilter, Error, Next, Register, Retention, RevokeAll, RevokedAll},
};

use super::{Engine, KEY, OTHER, reason, refusal, register_command};

const DAY: Duration = Duration::from_secs(86_400);

async fn audited(engine: &Engine, action: AuditAction) -> usize {
    let (call, filter) = (
        engine.operator(),
        AuditFilter {
            actions: Some(vec![action]),
            ..AuditFilter::default()
        },
    );
    let page = engine.store.list_audit(&call, &filter, (100, None)).await;
    page.unwrap().events.len()
}

async fn purge(engine: &Engine, days: u32) -> u64 {
    let keep = Retention {
        now: engine.operator().received_at,
        kept_for: days * DAY,
    };
    let batch = engine.store.purge_replays(keep).await.unwrap();
    assert_eq!(batch.next, Next::Done);
    batch.rows.into_iter().map(|(_, rows)| rows).sum()
}

pub async fn registrations(engine: &Engine) -> Vec<String> {
    let (store, call) = (&engine.store, engine.operator());
    let command = |key: &str, content: &[u8]| Register {
        request: Request::parse("once", content).unwrap(),
        ..register_command(key)
    };
    let mut noted = Vec::new();
    let first = store
        .register_stack(&call, &command(KEY, b"a"))
        .await
        .unwrap();
    engine.clock.advance(DAY);
    // Each attempt generates a new stack key, but the repetition returns the key that was
    // registered.
    let again = store
        .register_stack(&call, &command(OTHER, b"a"))
        .await
        .unwrap();
    assert_eq!(
        (&again.stack, again.revision),
        (&first.stack, first.revision)
    );
    noted.push(format!("{} {}", first.again, again.again));
    let other = store.register_stack(&call, &command(OTHER, b"b")).await;
    noted.push(format!("{:?}", refusal(other)));
    let theirs = engine.call(call.caller.actor.kind, "another operator");
    let taken = store.register_stack(&theirs, &command(KEY, b"a")).await;
    noted.push(format!("{:?}", refusal(taken)));
    let free = store.register_stack(&theirs, &command(OTHER, b"b")).await;
    noted.push(free.unwrap().stack.key.to_string());
    noted.push(
        audited(engine, AuditAction::StackRegister)
            .await
            .to_string(),
    );
    noted.push(purge(engine, 2).await.to_string());
    noted.push(purge(engine, 1).await.to_string());
    let taken = store.register_stack(&call, &command(KEY, b"a")).await;
    noted.push(format!("{:?}", refusal(taken)));
    noted
}

fn revoke_all(key: &str, previewed: Option<PreviewHash>) -> RevokeAll {
    RevokeAll {
        stack_key: super::key_of(key),
        filter: RevokeFilter::All,
        reason: reason(),
        previewed,
        request: Request::parse("once", b"a").unwrap(),
        size: 2,
        after: None,
    }
}

fn preview(call: Call) -> Call {
    Call {
        mode: Mode::Preview,
        ..call
    }
}

/// Returns the names on every page of a preview, and its hash.
async fn shown(engine: &Engine, key: &str) -> (Vec<String>, PreviewHash) {
    let mut command = revoke_all(key, None);
    let mut names = Vec::new();
    loop {
        let call = preview(engine.owner());
        let shown = engine.store.revoke_all(&call, &command).await.unwrap();
        names.extend(
            shown
                .page
                .tokens
                .iter()
                .map(|token| token.name.as_str().to_owned()),
        );
        command.after = shown.page.next;
        if command.after.is_none() {
            return (names, shown.preview);
        }
    }
}

fn describe(done: &RevokedAll) -> String {
    format!("{} {} {}", done.count, done.revision.is_some(), done.again)
}

pub async fn revocations(engine: &Engine) -> Vec<String> {
    let key = engine.register(KEY).await;
    let mut noted = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        engine.issue(&key, name, None).await.unwrap();
    }
    let (names, hash) = shown(engine, KEY).await;
    noted.extend(names);
    let command = revoke_all(KEY, Some(hash));
    let owner = engine.owner();
    let done = engine.store.revoke_all(&owner, &command).await.unwrap();
    noted.push(describe(&done));
    engine.clock.advance(DAY);
    engine.issue(&key, "later", None).await.unwrap();
    let again = engine.store.revoke_all(&owner, &command).await.unwrap();
    assert_eq!(
        (&again.tokens, again.revision),
        (&done.tokens, done.revision)
    );
    noted.push(describe(&again));
    let call = preview(engine.owner());
    let again = engine.store.revoke_all(&call, &command).await.unwrap();
    noted.push(describe(&again));
    let other = RevokeAll {
        request: Request::parse("once", b"b").unwrap(),
        ..command.clone()
    };
    let other: Result<_, Error> = engine.store.revoke_all(&owner, &other).await;
    assert_eq!(refusal(other), Refusal::RequestIdTaken);
    noted.push(
        audited(engine, AuditAction::TokenRevokeAll)
            .await
            .to_string(),
    );
    noted.push(purge(engine, 1).await.to_string());
    let forgotten = engine.store.revoke_all(&owner, &command).await;
    noted.push(format!("{:?}", refusal(forgotten)));
    noted
}
