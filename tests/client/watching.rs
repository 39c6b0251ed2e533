//! The stream's life: resumed, started over, dropped when silent.

use std::{sync::atomic::Ordering, time::Duration};

use stacktoken::grpc::pb::v1::watch_changed::Subject;
use tonic::Status;

use crate::played::{OTHER_TOKEN_UID, Server, ask, at, secret, until};

#[tokio::test]
async fn a_stream_is_resumed_from_the_last_point_and_memory_trusted_from_its_first_pong() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 6).await;
    let secret = secret();
    ask(&client, &secret).await;
    stream
        .tell(Subject::TokenUid(OTHER_TOKEN_UID.into()), (8, 9))
        .await;
    drop(stream);
    let mut next = server.next_stream().await;
    assert_eq!(next.from_revision, at(8));
    // Without a pong the old lease runs out, however much is told.
    server.clock.advance(Duration::from_millis(1001));
    next.tell(Subject::TokenUid(OTHER_TOKEN_UID.into()), (9, 9))
        .await;
    assert_eq!(client.entries(), 1);
    assert_eq!(ask(&client, &secret).await, (true, false));
    let mut trusted = false;
    for _ in 0..4 {
        next.pong(Duration::ZERO, (9, 9)).await;
        trusted |= client.lease_age().is_some_and(|age| age.is_zero());
    }
    assert!(trusted, "{:?}", client.lease_age());
    assert_eq!(ask(&client, &secret).await, (true, true));
}

#[tokio::test]
async fn what_was_missed_between_two_streams_is_told_before_memory_is_trusted() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 5).await;
    let secret = secret();
    ask(&client, &secret).await;
    drop(stream);
    let mut next = server.next_stream().await;
    next.tell_token((6, 6)).await;
    next.pong(Duration::ZERO, (6, 6)).await;
    until("the pong is heard", || client.watch_fault().is_none()).await;
    assert_eq!(client.entries(), 0);
}

#[tokio::test]
async fn a_history_that_cannot_be_resumed_is_forgotten_at_once() {
    for status in [
        Status::out_of_range("REVISION_UNKNOWN"),
        Status::out_of_range("REVISION_PURGED"),
        // Of another version, whose revisions look different.
        Status::invalid_argument("from_revision is not a revision"),
    ] {
        let mut server = Server::start().await;
        let (client, stream) = server.watched(5, 5).await;
        let secret = secret();
        ask(&client, &secret).await;
        stream.fail(status).await;
        until("all is forgotten", || client.entries() == 0).await;
        assert_eq!(client.lease_age(), None);
        let next = server.next_stream().await;
        assert_eq!(next.from_revision, "");
        assert_eq!(ask(&client, &secret).await, (true, false));
        assert_eq!(ask(&client, &secret).await, (true, false));
    }
}

#[tokio::test]
async fn any_other_end_keeps_what_is_remembered() {
    for status in [
        Status::aborted("WATCH_LAGGED"),
        Status::unavailable("DRAINING"),
        Status::unauthenticated("CREDENTIAL_INVALID"),
        Status::internal("a bug"),
    ] {
        let mut server = Server::start().await;
        let (client, stream) = server.watched(5, 5).await;
        let secret = secret();
        ask(&client, &secret).await;
        stream.fail(status).await;
        let _next = server.watch(&client, 5, 5).await;
        assert_eq!(ask(&client, &secret).await, (true, true));
    }
}

/// A replica that lags behind what an earlier stream told could otherwise bring it back.
#[tokio::test]
async fn what_an_answer_must_reflect_never_goes_back_with_another_stream() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 9).await;
    drop(stream);
    until("the end is heard", || client.watch_fault().is_some()).await;
    let mut next = server.next_stream().await;
    assert_eq!(next.from_revision, at(5));
    next.pong(Duration::ZERO, (5, 5)).await;
    until("the pong is heard", || client.watch_fault().is_none()).await;
    ask(&client, &secret()).await;
    assert_eq!(server.last_min(), at(9));
}

#[tokio::test]
async fn a_silent_stream_is_dropped_and_another_opened() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 5).await;
    let secret = secret();
    ask(&client, &secret).await;
    stream.unanswered().await;
    server.clock.advance(Duration::from_millis(1001));
    // The lease is past, whether or not the silence was noticed.
    assert_eq!(ask(&client, &secret).await, (true, false));
    let _next = server.watch(&client, 5, 5).await;
    assert_eq!(server.script.opened.load(Ordering::SeqCst), 2);
    assert_eq!(ask(&client, &secret).await, (true, true));
}

/// A server that ends every stream at once would be asked for another twenty times a second, by
/// each of its clients.
#[tokio::test]
async fn streams_that_end_at_once_are_opened_ever_more_slowly() {
    let mut server = Server::start().await;
    let client = server.client();
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        let stream = server.watch(&client, 5, 5).await;
        stream.fail(Status::aborted("WATCH_LAGGED")).await;
        until("the end is heard", || client.watch_fault().is_some()).await;
    }
    server.next_stream().await;
    // Three quarters, at least, of 50, 100, 200 and 400 ms.
    assert!(begun.elapsed() >= Duration::from_millis(560));
}

/// It answers every ping, and has heard of no changes itself since it was cut off.
#[tokio::test]
async fn a_server_that_stays_behind_is_left_for_another() {
    let mut server = Server::start().await;
    let (bound, step) = (Duration::from_millis(200), Duration::from_millis(100));
    let client = server.builder().freshness_bound(bound).build().unwrap();
    let mut stream = server.watch(&client, 5, 5).await;
    let mut behind = Duration::ZERO;
    loop {
        server.clock.advance(step);
        behind += step;
        if !stream.pong_if_there(Some(behind), (5, 5)).await {
            break;
        }
        assert!(behind < 20 * bound, "nobody leaves");
    }
    assert!(behind > 4 * bound, "left after {behind:?} already");
    let next = server.next_stream().await;
    assert_eq!(next.from_revision, at(5), "what is remembered is kept");
}

/// No time is not no time ago.
#[tokio::test]
async fn a_pong_that_does_not_say_how_stale_it_is_gives_no_lease() {
    let mut server = Server::start().await;
    let client = server.client();
    let mut stream = server.next_stream().await;
    assert!(stream.pong_if_there(None, (5, 5)).await);
    let _next = server.next_stream().await;
    assert_eq!(client.lease_age(), None);
}

#[tokio::test]
async fn the_stream_ends_with_the_last_client() {
    let mut server = Server::start().await;
    let (client, mut stream) = server.watched(5, 5).await;
    let clone = client.clone();
    drop(client);
    stream.heard((5, 5)).await;
    assert_eq!(clone.watch_fault(), None);
    drop(clone);
    assert!(stream.ends().await);
}
