//! Tests how the stream is resumed, started over, and replaced when it is silent.

use std::{sync::atomic::Ordering, time::Duration};

use stacktoken::grpc::pb::v1::watch_changed::Subject;
use tonic::Status;

use crate::scripted::{OTHER_TOKEN_UID, Server, ask, at, secret, until};

#[tokio::test]
async fn a_stream_is_resumed_from_the_last_point_and_the_cache_trusted_from_its_first_pong() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 6).await;
    let secret = secret();
    ask(&client, &secret).await;
    stream
        .send_change(Subject::TokenUid(OTHER_TOKEN_UID.into()), (8, 9))
        .await;
    drop(stream);
    let mut next = server.next_stream().await;
    assert_eq!(next.from_revision, at(8));
    // Without a pong the lease expires, no matter how many changes arrive.
    server.clock.advance(Duration::from_millis(1001));
    next.send_change(Subject::TokenUid(OTHER_TOKEN_UID.into()), (9, 9))
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
async fn changes_missed_between_two_streams_arrive_before_the_cache_is_used() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 5).await;
    let secret = secret();
    ask(&client, &secret).await;
    drop(stream);
    let mut next = server.next_stream().await;
    next.send_token_change((6, 6)).await;
    next.pong(Duration::ZERO, (6, 6)).await;
    until("the pong arrives", || client.watch_fault().is_none()).await;
    assert_eq!(client.entries(), 0);
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_clears_the_cache_at_once() {
    for status in [
        Status::out_of_range("REVISION_UNKNOWN"),
        Status::out_of_range("REVISION_PURGED"),
        // A server of another version sends this error, because its revisions have another form.
        Status::invalid_argument("from_revision is not a revision"),
    ] {
        let mut server = Server::start().await;
        let (client, stream) = server.watched(5, 5).await;
        let secret = secret();
        ask(&client, &secret).await;
        stream.fail(status).await;
        until("the cache is empty", || client.entries() == 0).await;
        assert_eq!(client.lease_age(), None);
        let next = server.next_stream().await;
        assert_eq!(next.from_revision, "");
        assert_eq!(ask(&client, &secret).await, (true, false));
        assert_eq!(ask(&client, &secret).await, (true, false));
    }
}

#[tokio::test]
async fn any_other_end_of_a_stream_keeps_the_cache() {
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

/// If `min_revision` went back with a new stream, a lagging replica could return facts from before
/// a change that an earlier stream has sent, and the client would cache them.
#[tokio::test]
async fn the_minimum_revision_never_goes_back_with_another_stream() {
    let mut server = Server::start().await;
    let (client, stream) = server.watched(5, 9).await;
    drop(stream);
    until("the stream ends", || client.watch_fault().is_some()).await;
    let mut next = server.next_stream().await;
    assert_eq!(next.from_revision, at(5));
    next.pong(Duration::ZERO, (5, 5)).await;
    until("the pong arrives", || client.watch_fault().is_none()).await;
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
    // The lease has expired, no matter whether the client has noticed the silence.
    assert_eq!(ask(&client, &secret).await, (true, false));
    let _next = server.watch(&client, 5, 5).await;
    assert_eq!(server.script.opened.load(Ordering::SeqCst), 2);
    assert_eq!(ask(&client, &secret).await, (true, true));
}

/// Every stream ends at once. A client without back-off would open twenty streams per second.
#[tokio::test]
async fn streams_that_end_at_once_are_opened_ever_more_slowly() {
    let mut server = Server::start().await;
    let client = server.client();
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        let stream = server.watch(&client, 5, 5).await;
        stream.fail(Status::aborted("WATCH_LAGGED")).await;
        until("the stream ends", || client.watch_fault().is_some()).await;
    }
    server.next_stream().await;
    // The four back-offs are 50, 100, 200 and 400 ms, each shortened by at most a quarter.
    assert!(begun.elapsed() >= Duration::from_millis(560));
}

/// The server answers every ping, but it is cut off from the store and so receives no changes.
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
        assert!(behind < 20 * bound, "the client stays at the stale server");
    }
    assert!(behind > 4 * bound, "the client left after only {behind:?}");
    let next = server.next_stream().await;
    assert_eq!(
        next.from_revision,
        at(5),
        "the client does not resume, so it lost its cache"
    );
}

/// The client must not treat a missing `staleness` as zero.
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
    stream.wait_until_received((5, 5)).await;
    assert_eq!(clone.watch_fault(), None);
    drop(clone);
    assert!(stream.ends().await);
}
