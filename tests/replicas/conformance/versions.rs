//! Compares changes with the etag of the version that the caller has read on both engines.

use futures_util::future::join_all;
use stacktoken::{
    domain::{
        clock::Clock as _,
        edit::{Edit, Part, PermissionsEdit, PermissionsParts},
        etag::{Etag, Target},
        permissions::Access,
        refusal::Refusal,
        text::Description,
        token::Expiry,
    },
    store::{Error, MaybeChanged},
};

use super::{Engine, KEY, reason, refusal};

fn describe(text: &str) -> Edit {
    Edit {
        description: Some(Description::parse(text).unwrap()),
        ..Edit::default()
    }
}

/// Returns the current etag from the refusal of a change with another etag.
fn current<T: std::fmt::Debug>(done: Result<T, Error>) -> Etag {
    match refusal(done) {
        Refusal::EtagMismatch { etag } => etag,
        other => panic!("{other:?}"),
    }
}

/// Updates a token with the same etag in concurrent calls. Asserts that exactly one call succeeds
/// and that the token has the description from this call. Returns how many calls succeeded.
async fn race(engine: &Engine, target: &Target) -> String {
    let changes = (0..8).map(|n| async move {
        loop {
            let edit = describe(&format!("by {n}"));
            match engine.store.update(&engine.owner(), target, &edit).await {
                // The queue of a stack is limited, so callers that find it full try again.
                Err(Error::Crowded | Error::Conflict(_)) => {}
                done => break (n, done.map(|(done, _)| done)),
            }
        }
    });
    let ended = join_all(changes).await;
    let won = ended.iter().filter(|(_, done)| done.is_ok());
    let won: Vec<_> = won.map(|(n, _)| *n).collect();
    let [winner] = won[..] else {
        panic!("{ended:?}")
    };
    for (_, lost) in ended.into_iter().filter(|(_, done)| done.is_err()) {
        current::<MaybeChanged>(lost);
    }
    let (call, key) = (engine.owner(), &target.stack_key);
    let read = engine.store.get(&call, key, target.uid).await.unwrap();
    assert_eq!(read.description.as_str(), format!("by {winner}"));
    format!("{} of 8", won.len())
}

pub async fn versions(engine: &Engine) -> Vec<String> {
    let (store, key) = (&engine.store, engine.register(KEY).await);
    let (token, _) = engine.issue(&key, "versioned", Some(600)).await.unwrap();
    let now = || engine.clock.now();
    let read = Target {
        etag: Some(token.etag(now())),
        ..Target::new(key.clone(), token.uid)
    };
    let mut noted = Vec::new();
    let owner = engine.owner();
    let (first, _) = store
        .update(&owner, &read, &describe("first"))
        .await
        .unwrap();
    let second = store.update(&owner, &read, &describe("second")).await;
    assert_eq!(current(second), first.token.etag(now()));
    let redate = store.set_expiry(&owner, &read, Expiry::Never).await;
    assert_eq!(current(redate), first.token.etag(now()));
    assert_eq!(
        current(store.end_overlap(&owner, &read).await),
        first.token.etag(now())
    );
    let revoke = store.revoke(&owner, &read, &reason()).await;
    assert_eq!(current(revoke), first.token.etag(now()));
    let read = Target {
        etag: Some(first.token.etag(now())),
        ..read
    };
    let (same, _) = store
        .update(&owner, &read, &describe("first"))
        .await
        .unwrap();
    noted.push(format!("changed again: {}", same.changed));
    noted.push(race(engine, &read).await);

    let parts = |parts| Edit {
        permissions: Some(PermissionsEdit::Parts(parts)),
        ..Edit::default()
    };
    let target = Target::new(key.clone(), token.uid);
    for edit in [
        PermissionsParts {
            access: Some(Access::Read),
            ..PermissionsParts::default()
        },
        PermissionsParts {
            modules: Part::Set(Vec::new()),
            ..PermissionsParts::default()
        },
        PermissionsParts {
            modules: Part::Remove,
            ..PermissionsParts::default()
        },
    ] {
        let done = store.update(&owner, &target, &parts(edit)).await;
        noted.push(match done {
            Ok((done, _)) => format!("{} {:?}", done.changed, done.token.permissions),
            refused => format!("{:?}", refusal(refused)),
        });
    }
    noted
}
