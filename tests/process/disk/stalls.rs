//! Tests a commit that takes longer than twice the deadline of its call. The caller gets DEADLINE,
//! the change is made later, and from then on no answer reflects the state before it.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use stacktoken::grpc::pb::{admin::v1 as admin, v1};
use tonic::{Code, Status};

use super::{
    book::AcknowledgedTokens,
    shim::{PreloadedFaults, Rule},
};
use crate::{
    program::folder,
    support::{
        introspect_request, now, permissions,
        requests::{
            EVERY_TOKEN, UNTIL_FIRST_USE, get_request, overlap_for, permit_request,
            revoke_all_request, revoke_request, rotate_request, set_expiry_request,
        },
    },
};

const DEADLINE: Duration = Duration::from_millis(500);
/// The maximum number of attempts to make a change whose commit begins within the deadline of its
/// call.
const ATTEMPTS: u32 = 5;
/// How many servers run at the same time.
const AT_ONCE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Revoke,
    /// A revoke whose client cancels the call before the commit.
    RevokeAndLeave,
    Expire,
    Narrow,
    Rotate,
    FirstUse,
    RevokeAll,
    Leaked,
    Suspend,
    Remove,
}

impl Change {
    const ALL: [Self; 10] = [
        Self::FirstUse,
        Self::Revoke,
        Self::RevokeAndLeave,
        Self::Expire,
        Self::Narrow,
        Self::Rotate,
        Self::RevokeAll,
        Self::Leaked,
        Self::Suspend,
        Self::Remove,
    ];

    /// Returns how long the commit takes. This is longer than twice the deadline or, for a first
    /// use, longer than twice the time limit for recording it.
    fn stall(self) -> Duration {
        match self {
            Self::FirstUse => Duration::from_millis(8_800),
            _ => 3 * DEADLINE,
        }
    }
}

/// A token, and the secret that it gets if it is rotated.
struct Subject {
    uid: String,
    secret: String,
    next: String,
}

async fn make(change: Change, book: &mut AcknowledgedTokens, of: &Subject) -> Result<(), Status> {
    let (stack, uid) = (book.stack.clone(), of.uid.as_str());
    let tokens = &mut book.owner.tokens;
    match change {
        Change::Revoke => tokens
            .revoke(revoke_request(&stack, uid, ""))
            .await
            .map(drop),
        Change::RevokeAndLeave => {
            let revoke = tokens.revoke(revoke_request(&stack, uid, ""));
            let left = tokio::time::timeout(DEADLINE / 5, revoke).await;
            assert!(left.is_err(), "the commit is not stalled");
            Err(Status::deadline_exceeded("left"))
        }
        Change::Expire => {
            let request = set_expiry_request(&stack, uid, now());
            tokens.set_expiry(request).await.map(drop)
        }
        Change::Narrow => {
            let request = permit_request(&stack, uid, permissions(v1::Access::Read));
            tokens.update(request).await.map(drop)
        }
        Change::Rotate => {
            let request = rotate_request(&stack, uid, overlap_for(0));
            tokens.rotate(request).await.map(drop)
        }
        Change::FirstUse => {
            let request = introspect_request(&stack, &of.next, &[]);
            book.service
                .introspection
                .introspect(request)
                .await
                .map(drop)
        }
        Change::RevokeAll => {
            let shown = tokens.revoke_all(revoke_all_request(&stack, &EVERY_TOKEN, None));
            let hash = shown.await.unwrap().into_inner().preview_hash;
            let request = revoke_all_request(&stack, &EVERY_TOKEN, Some(&hash));
            tokens.revoke_all(request).await.map(drop)
        }
        Change::Leaked => {
            let request = v1::ReportLeakedRequest {
                secret: of.secret.clone(),
                url: String::new(),
            };
            book.operator.leaks.report_leaked(request).await.map(drop)
        }
        Change::Suspend => {
            let request = admin::SuspendRequest {
                stack_api_key: stack,
                ..Default::default()
            };
            book.operator.stacks.suspend(request).await.map(drop)
        }
        Change::Remove => {
            let request = admin::RemoveRequest {
                stack_api_key: stack,
                ..Default::default()
            };
            book.operator.stacks.remove(request).await.map(drop)
        }
    }
}

/// Returns whether calls that only read the store reflect the change.
async fn is_made(change: Change, book: &mut AcknowledgedTokens, of: &Subject) -> bool {
    let request = get_request(&book.stack, &of.uid);
    let token = book.operator.tokens.get(request).await;
    let token = token.map(|answer| answer.into_inner().token.unwrap());
    let revoked = |token: &v1::Token| token.state() == v1::TokenState::Revoked;
    match (change, token) {
        (Change::Expire, Ok(token)) => token.state() == v1::TokenState::Expired,
        (Change::Narrow, Ok(token)) => token.permissions.unwrap().access() == v1::Access::Read,
        (Change::Rotate, Ok(token)) => token.generation == 2,
        (Change::FirstUse, Ok(_)) => {
            let request = introspect_request(&book.stack, &of.next, &[]);
            let answer = book.service.introspection.introspect(request).await;
            answer.is_ok_and(|answer| answer.into_inner().active)
        }
        (Change::Suspend, Ok(_)) => {
            let request = admin::GetRequest {
                stack_api_key: book.stack.clone(),
            };
            let stack = book
                .operator
                .stacks
                .get(request)
                .await
                .unwrap()
                .into_inner();
            stack.stack.unwrap().state() == v1::StackState::Suspended
        }
        (Change::Remove, token) => token.is_err(),
        (_, token) => revoked(&token.unwrap()),
    }
}

/// Returns whether the secret still permits `entry.update`. Every change here takes this permission
/// away.
async fn is_allowed(book: &mut AcknowledgedTokens, secret: &str) -> bool {
    let request = introspect_request(&book.stack, secret, &["entry.update"]);
    let answer = book.service.introspection.introspect(request).await;
    answer.unwrap().into_inner().decision() == v1::Decision::Allow
}

/// Makes the change while its commit is stalled, and waits until it is in the store. Returns
/// `false` if it never is, because on a busy machine the call can end before its commit begins.
async fn is_made_in_stall(
    change: Change,
    shim: &PreloadedFaults,
    (book, subject): (&mut AcknowledgedTokens, &Subject),
    meanwhile: &mut u32,
) -> bool {
    let stall = change.stall();
    shim.set(&[Rule {
        delay: u32::try_from(stall.as_millis()).unwrap(),
        ..Rule::fails("sync", "-wal", 0, 1)
    }]);
    let began = Instant::now();
    let status = make(change, book, subject).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{change:?}");
    while began.elapsed() < stall - DEADLINE / 4 {
        // The change is not acknowledged yet, so the verdict may be either, but it must not be an
        // error.
        is_allowed(book, &subject.secret).await;
        *meanwhile += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while !is_made(change, book, subject).await {
        if began.elapsed() > stall + Duration::from_secs(5) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

async fn stall(change: Change) {
    let folder = folder();
    let Some(shim) = PreloadedFaults::build(folder.path()) else {
        return;
    };
    let deadline = format!("{}ms", DEADLINE.as_millis());
    let dev = shim.start_with(folder.path(), |command| {
        command.env("STACKTOKEN_DEADLINE", deadline);
    });
    let mut book = AcknowledgedTokens::open(&dev).await;
    let uid = book.issue().await.unwrap();
    let mut subject = Subject {
        secret: book.entries[&uid].secret.clone(),
        next: String::new(),
        uid,
    };
    if change == Change::FirstUse {
        let request = rotate_request(&book.stack, &subject.uid, UNTIL_FIRST_USE);
        let rotated = book
            .owner
            .tokens
            .rotate(request)
            .await
            .unwrap()
            .into_inner();
        subject.next = rotated.secret;
    }
    // The first call records the first use; the second one is answered from the cache.
    assert!(is_allowed(&mut book, &subject.secret).await);
    assert!(is_allowed(&mut book, &subject.secret).await);
    let mut meanwhile = 0;
    let mut attempts = 1;
    while !is_made_in_stall(change, &shim, (&mut book, &subject), &mut meanwhile).await {
        assert!(attempts < ATTEMPTS, "{change:?} was never made");
        attempts += 1;
    }
    let after = Instant::now();
    while after.elapsed() < Duration::from_secs(1) {
        assert!(
            !is_allowed(&mut book, &subject.secret).await,
            "{change:?}: allowed {:?} after the store had the change",
            after.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{change:?}: {meanwhile} answers during the stall, none outdated after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_commit_outlasts_its_call_is_in_every_later_answer() {
    // `FirstUse` takes longest, so it is started first.
    let stalls = stream::iter(Change::ALL.map(stall));
    stalls.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}
