//! Tests `Watch` on one server: which changes are sent, and how a stream starts and ends.

use std::time::Duration;

use stacktoken::grpc::pb::{
    admin::v1 as admin,
    v1::{self, WatchRequest, watch_response::Event},
};
use tonic::{Code, Status, transport::Endpoint};

use crate::support::{
    Client, TestServer,
    clients::{details, fields},
    database::eventually,
    permissions, person, reason,
    requests::{
        UNTIL_FIRST_USE, end_overlap_request, overlap_for, revoke_request, rotate_request,
        set_expiry_request, update_request,
    },
    watching::{Watching, from, ping, staleness, subject},
};

async fn watching(server: &TestServer) -> Watching {
    Watching::open(&server.service().await, "").await.unwrap()
}

async fn refused(server: &TestServer, revision: &str) -> Status {
    let opened = Watching::open(&server.service().await, revision).await;
    opened.err().expect("a refusal")
}

/// Makes `2 * times` changes that are sent on streams.
async fn suspend_and_resume(server: &TestServer, times: usize) {
    let mut operator = server.operator().await;
    for _ in 0..times {
        let stack_api_key = server.stack.clone();
        let reason = String::new();
        let suspend = admin::SuspendRequest {
            validate_only: false,
            stack_api_key: stack_api_key.clone(),
            reason: reason.clone(),
        };
        operator.stacks.suspend(suspend).await.unwrap();
        let resume = admin::ResumeRequest {
            validate_only: false,
            stack_api_key,
            reason,
        };
        operator.stacks.resume(resume).await.unwrap();
    }
}

async fn revoked(server: &TestServer, name: &str) -> String {
    let uid = server.issue(name).await.token.unwrap().token_uid;
    let request = revoke_request(&server.stack, &uid, "");
    let mut owner = server.owner().await;
    owner.tokens.revoke(request).await.unwrap();
    format!("token {uid}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_token_that_can_alter_a_verdict_is_reported() {
    let server = TestServer::start().await;
    let stack = server.stack.clone();
    let mut owner = server.owner().await.tokens;
    let issued = server.issue("told of").await;
    let uid = issued.token.unwrap().token_uid;
    let mut watching = watching(&server).await;
    let this = format!("token {uid}");

    let narrowed = v1::Token {
        permissions: Some(permissions(v1::Access::Read)),
        ..Default::default()
    };
    let update = update_request(&stack, &uid, &["permissions"], narrowed);
    owner.update(update).await.unwrap();
    assert_eq!(subject(&watching.changed().await), this, "updated");

    let later = crate::support::at(server.clock.seconds() + 3600);
    let redated = set_expiry_request(&stack, &uid, later);
    owner.set_expiry(redated).await.unwrap();
    assert_eq!(subject(&watching.changed().await), this, "redated");

    let rotate = rotate_request(&stack, &uid, UNTIL_FIRST_USE);
    let newer = owner.rotate(rotate).await.unwrap().into_inner();
    assert_eq!(subject(&watching.changed().await), this, "rotated");

    assert!(server.introspect(&newer.secret, &[]).await.active);
    assert_eq!(subject(&watching.changed().await), this, "first use");

    let rotate = rotate_request(&stack, &uid, overlap_for(60));
    owner.rotate(rotate).await.unwrap();
    assert_eq!(subject(&watching.changed().await), this, "rotated again");
    let end = end_overlap_request(&stack, &uid);
    owner.end_overlap(end).await.unwrap();
    assert_eq!(subject(&watching.changed().await), this, "overlap ended");

    owner
        .revoke(revoke_request(&stack, &uid, ""))
        .await
        .unwrap();
    assert_eq!(subject(&watching.changed().await), this, "revoked");
    let (more, _) = watching.pong().await.unwrap();
    assert!(more.is_empty(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_stack_is_reported_for_the_stack() {
    let server = TestServer::start().await;
    let get = admin::GetRequest {
        stack_api_key: server.stack.clone(),
    };
    let mut operator = server.operator().await;
    let stack = operator.stacks.get(get).await.unwrap().into_inner();
    let this = format!("stack {}", stack.stack.unwrap().stack_uid);
    let mut watching = watching(&server).await;
    suspend_and_resume(&server, 1).await;
    for _ in 0..2 {
        assert_eq!(subject(&watching.changed().await), this);
    }
    let remove = admin::RemoveRequest {
        validate_only: false,
        stack_api_key: server.stack.clone(),
        reason: String::new(),
    };
    operator.stacks.remove(remove).await.unwrap();
    assert_eq!(subject(&watching.changed().await), this);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_harmless_change_is_not_sent_but_moves_the_resume_point() {
    let server = TestServer::start().await;
    let mut watching = watching(&server).await;
    let (_, before) = watching.pong().await.unwrap();
    let issued = server.issue("harmless").await;
    let mut operator = server.operator().await;
    let limit = admin::SetTokenLimitRequest {
        validate_only: false,
        stack_api_key: server.stack.clone(),
        max_tokens: Some(20),
        reason: "grows".into(),
    };
    operator.stacks.set_token_limit(limit).await.unwrap();
    server.register("Another").await;
    let member = admin::SetMemberRequest {
        validate_only: false,
        stack_api_key: server.stack.clone(),
        member: Some(person("newcomer")),
        role: v1::Role::Admin.into(),
    };
    let last = operator.stacks.set_member(member).await.unwrap();
    assert!(server.introspect(&issued.secret, &[]).await.active);
    let last = last.into_inner().revision;
    let reached = eventually("the last change is published", async || {
        let (changes, pong) = watching.pong().await.unwrap();
        assert!(changes.is_empty(), "{changes:?}");
        (pong.revision == last).then_some(pong)
    })
    .await;
    assert_ne!(before.revision, reached.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_resumed_from_a_revision_reports_the_changes_since() {
    let server = TestServer::start().await;
    let mut first = watching(&server).await;
    let one = revoked(&server, "one").await;
    let changed = first.changed().await;
    assert_eq!(subject(&changed), one);
    let mut wanted = Vec::new();
    for name in ["two", "three", "four"] {
        wanted.push(revoked(&server, name).await);
    }
    // Once the poller has published these changes, a new stream gets them from the backlog only,
    // and each of them once.
    for this in &wanted {
        assert_eq!(subject(&first.changed().await), *this);
    }
    let service = server.service().await;
    let mut second = Watching::open(&service, &changed.revision).await.unwrap();
    let (told, pong) = second.pong().await.unwrap();
    assert_eq!(told.iter().map(subject).collect::<Vec<_>>(), wanted);
    // A stream can resume from the revision of each change and then gets only the changes after it.
    for (at, changed) in told.iter().enumerate() {
        let again = Watching::open(&service, &changed.revision).await;
        let (rest, _) = again.unwrap().pong().await.unwrap();
        let rest: Vec<_> = rest.iter().map(subject).collect();
        assert_eq!(rest, wanted[at + 1..]);
    }
    let mut third = Watching::open(&service, &pong.revision).await.unwrap();
    assert!(third.pong().await.unwrap().0.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_cannot_be_gone_on_from_is_refused_with_what_to_do() {
    let server = TestServer::start().await;
    let (_, pong) = watching(&server).await.pong().await.unwrap();
    let (epoch, position) = pong.revision.split_at(16);
    for garbage in ["zz", "0", &format!("{}x", pong.revision), "é", "stk1_"] {
        let status = refused(&server, garbage).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{garbage}");
        assert_eq!(fields(&status), ["from_revision"], "{garbage}");
    }
    let ahead = u64::from_str_radix(position, 16).unwrap() + 1;
    for unknown in [
        format!("{epoch}{ahead:x}"),
        format!("{epoch}{:x}", i64::MAX),
        format!("{:016x}{position}", 12345),
    ] {
        let status = refused(&server, &unknown).await;
        assert_eq!(status.code(), Code::OutOfRange, "{unknown}");
        assert_eq!(reason(&status), "REVISION_UNKNOWN", "{unknown}");
        assert!(status.message().contains("clear your cache"), "{status:?}");
    }
    let service = server.service().await;
    let zero = format!("{epoch}0");
    Watching::open(&service, &zero).await.unwrap();
    let outside = server.outside().await;
    outside
        .run("UPDATE meta SET value = 2 WHERE name = 'purged'")
        .await;
    for (at, purged) in [(0, true), (1, true), (2, false)] {
        let opened = Watching::open(&service, &format!("{epoch}{at:x}")).await;
        assert_eq!(opened.is_err(), purged, "{at}");
        if let Err(status) = opened {
            assert_eq!(status.code(), Code::OutOfRange);
            assert_eq!(reason(&status), "REVISION_PURGED");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_10_000_changes_are_not_reported_one_by_one() {
    let server = TestServer::start().await;
    let (_, pong) = watching(&server).await.pong().await.unwrap();
    let outside = server.outside().await;
    let more = |count: usize| {
        format!(
            "INSERT INTO changes (stack_uid, token_uid, kind, changed_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             SELECT c.stack_uid, c.token_uid, 'revoked', c.changed_at FROM n, \
             (SELECT * FROM changes LIMIT 1) c"
        )
    };
    let service = server.service().await;
    outside.run(&more(10_000)).await;
    let mut told = Watching::open(&service, &pong.revision).await.unwrap();
    // Some changes can arrive twice, once from the backlog and once from a published batch.
    assert!(told.pong().await.unwrap().0.len() >= 10_000);
    outside.run(&more(1)).await;
    let status = refused(&server, &pong.revision).await;
    assert_eq!(reason(&status), "REVISION_PURGED");
    // An open stream also ends with this error if one poll finds too many changes to list.
    let mut open = watching(&server).await;
    outside.run(&more(10_001)).await;
    let status = open.end().await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(reason(&status), "REVISION_PURGED");
    assert!(watching(&server).await.pong().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_changes_that_were_not_read_are_purged_the_stream_ends() {
    let server = TestServer::start().await;
    let mut open = watching(&server).await;
    let outside = server.outside().await;
    outside
        .run("UPDATE meta SET value = 1000000 WHERE name = 'purged'")
        .await;
    let status = open.end().await;
    assert_eq!(reason(&status), "REVISION_PURGED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_store_ends_the_stream_with_another_epoch() {
    let server = TestServer::start().await;
    let mut open = watching(&server).await;
    let outside = server.outside().await;
    outside
        .run("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
        .await;
    let status = open.end().await;
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(reason(&status), "REVISION_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_request_is_a_ping_and_nothing_else() {
    let server = TestServer::start().await;
    for (request, wanted) in [
        (from("0000000000000000"), vec!["from_revision", "ping"]),
        (WatchRequest::default(), vec!["ping"]),
        (
            WatchRequest {
                from_revision: "x".into(),
                ..ping(1)
            },
            vec!["from_revision"],
        ),
    ] {
        let mut watching = watching(&server).await;
        watching.send(request);
        let status = watching.end().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(fields(&status), wanted);
        let request = details(&status).request_info().cloned();
        assert_eq!(request.unwrap().request_id, "the-watch");
    }
    let metrics = server.metrics().await;
    let counted = "stacktoken_errors_total{reason=\"INVALID_FIELD\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_pings_at_once_the_latest_is_answered_and_at_most_20_a_second() {
    let server = TestServer::start().await;
    let service = server.service().await;
    let mut watching = Watching::open_with(&service, ping(1_000)).await.unwrap();
    let started = std::time::Instant::now();
    for nonce in 0..1_000 {
        watching.send(ping(nonce));
    }
    let mut pongs = 0;
    loop {
        let Event::Pong(pong) = watching.next().await.unwrap() else {
            panic!("nothing changed");
        };
        pongs += 1;
        if pong.nonce == 999 {
            break;
        }
    }
    let at_most = 2.0 + started.elapsed().as_secs_f64() * 20.0;
    assert!(f64::from(pongs) <= at_most, "{pongs} pongs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_client_still_receives_changes() {
    let server = TestServer::start().await;
    let mut watching = watching(&server).await;
    watching.requests = None;
    let this = revoked(&server, "told of").await;
    assert_eq!(subject(&watching.changed().await), this);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_the_deadline_nor_the_room_for_calls_binds_a_stream() {
    let server = TestServer::start_with(|tuning| {
        tuning.deadline = Duration::from_millis(500);
        tuning.max_calls = 1;
    })
    .await;
    let mut watching = watching(&server).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let this = revoked(&server, "told of").await;
    assert_eq!(subject(&watching.changed().await), this);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_message_ends_at_the_deadline() {
    let server = TestServer::start_with(|tuning| {
        tuning.deadline = Duration::from_millis(300);
    })
    .await;
    let mut service = server.service().await;
    let silent = tokio_stream::pending::<WatchRequest>();
    let status = service.introspection.watch(silent).await.err().unwrap();
    assert_eq!(reason(&status), "DEADLINE");
    // A client that closes its side at once sends no message, so the server does not wait for one.
    let empty = tokio_stream::empty::<WatchRequest>();
    service.introspection.watch(empty).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_beyond_the_limit_of_streams_is_overloaded_until_one_ends() {
    let server = TestServer::start_with(|tuning| {
        tuning.max_watches = 2;
        tuning.client_limits.max_watches_per_caller = Some(2);
    })
    .await;
    let service = server.service().await;
    let first = Watching::open(&service, "").await.unwrap();
    let mut second = Watching::open(&service, "").await.unwrap();
    let status = Watching::open(&service, "").await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "OVERLOADED");
    assert!(server.metrics().await.contains("stacktoken_watches 2"));
    // A refused stream takes no permit, and a `Health.Watch` stream takes none either.
    for _ in 0..3 {
        assert_eq!(reason(&refused(&server, "zz").await), "OVERLOADED");
    }
    drop(first);
    let mut third = eventually("a permit is free", async || {
        Watching::open(&service, "").await.ok()
    })
    .await;
    let this = revoked(&server, "told of").await;
    for watching in [&mut second, &mut third] {
        assert_eq!(subject(&watching.changed().await), this);
    }
    for nobody in [server.service_without_role().await, server.owner().await] {
        let status = Watching::open(&nobody, "").await.err().unwrap();
        assert_eq!(reason(&status), "ROLE_REQUIRED");
    }
    drop((second, third));
    eventually("no stream is open", async || {
        let metrics = server.metrics().await;
        metrics.contains("stacktoken_watches 0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_never_has_more_than_its_share_of_watches() {
    let server = TestServer::start_with(|tuning| tuning.max_watches = 8).await;
    let as_service = async |subject: &str| {
        let jwt = server.issuer.service(subject, server.clock.seconds());
        server.with_authorization(format!("Bearer {jwt}")).await
    };
    let mut open = Vec::new();
    for subject in ["gateway-1", "gateway-2", "gateway-3", "content-api"] {
        // Each stream has its own connection, because the limit applies to the caller.
        for _ in 0..2 {
            let watching = Watching::open(&as_service(subject).await, "").await;
            open.push(watching.unwrap_or_else(|status| panic!("{subject}: {status:?}")));
        }
        let status = Watching::open(&as_service(subject).await, "").await.err();
        assert_eq!(reason(&status.unwrap()), "OVERLOADED", "{subject}");
    }
    drop(open.remove(0));
    let gateway = as_service("gateway-1").await;
    eventually("its permit is free again", async || {
        Watching::open(&gateway, "").await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_beginning_gives_its_place_back() {
    let server = TestServer::start_with(|tuning| tuning.max_watches = 1).await;
    for _ in 0..5 {
        assert_eq!(reason(&refused(&server, "zz").await), "INVALID_FIELD");
    }
    watching(&server).await;
}

/// Creates a client with a tiny flow-control window, so that the server can send no more than the
/// client reads.
async fn narrow(server: &TestServer) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(1024);
    let jwt = server.issuer.service("content-api", server.clock.seconds());
    let channel = endpoint.connect().await.unwrap();
    Client::new(channel, Some(format!("Bearer {jwt}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_must_start_over_and_delays_no_other() {
    let server = TestServer::start_with(|tuning| tuning.watch_queue = 16).await;
    let mut slow = Watching::open(&narrow(&server).await, "").await.unwrap();
    let mut quick = watching(&server).await;
    let told = tokio::spawn(async move {
        for _ in 0..200 {
            quick.changed().await;
        }
        quick
    });
    suspend_and_resume(&server, 100).await;
    let mut quick = told.await.unwrap();
    assert!(quick.pong().await.unwrap().0.is_empty());
    let (mut read, mut last) = (0, String::new());
    let status = loop {
        match slow.next().await {
            Ok(Event::Changed(changed)) => {
                read += 1;
                last = changed.revision;
            }
            Ok(Event::Pong(pong)) => panic!("{pong:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(reason(&status), "WATCH_LAGGED");
    let metrics = server.metrics().await;
    assert!(metrics.contains("stacktoken_watch_lagged_total 1"));
    let counted = "stacktoken_errors_total{reason=\"WATCH_LAGGED\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    // A stream that resumes from the last revision gets all the remaining changes.
    let service = server.service().await;
    let mut again = Watching::open(&service, &last).await.unwrap();
    assert_eq!(read + again.pong().await.unwrap().0.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_ends_its_streams() {
    let server = TestServer::start().await;
    let mut open = watching(&server).await;
    let mut half_closed = watching(&server).await;
    half_closed.requests = None;
    let stopping = tokio::spawn(server.stop());
    for watching in [&mut open, &mut half_closed] {
        let status = watching.end().await;
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reason(&status), "DRAINING");
        assert!(details(&status).retry_info().is_some());
        let request = details(&status).request_info().cloned();
        assert_eq!(request.unwrap().request_id, "the-watch");
    }
    stopping.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_unreadable_pongs_report_their_staleness() {
    let server = TestServer::start().await;
    let mut watching = watching(&server).await;
    let (_, fresh) = watching.pong().await.unwrap();
    assert_eq!(staleness(&fresh), Duration::ZERO);
    let outside = server.outside().await;
    outside
        .run("ALTER TABLE changes RENAME TO changes_elsewhere")
        .await;
    // A poll that started before the table was renamed can still renew the lease.
    let stale = eventually("a stale pong", async || {
        server.clock.advance(Duration::from_secs(10));
        let (_, pong) = watching.pong().await.unwrap();
        (staleness(&pong) >= Duration::from_secs(20)).then_some(pong)
    })
    .await;
    outside
        .run("ALTER TABLE changes_elsewhere RENAME TO changes")
        .await;
    let well = eventually("a fresh pong", async || {
        let (_, pong) = watching.pong().await.unwrap();
        (staleness(&pong) == Duration::ZERO).then_some(pong)
    })
    .await;
    assert_eq!(stale.revision, well.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_rotation_ends_is_reported_with_its_end() {
    let server = TestServer::start().await;
    let issued = server.issue("rotated").await;
    let uid = issued.token.unwrap().token_uid;
    let mut owner = server.owner().await;
    let ends = async |secret: &str| {
        let answer = server.introspect(secret, &[]).await;
        let token = answer.token.unwrap();
        token.superseded_at.map(|at| at.seconds)
    };
    assert_eq!(ends(&issued.secret).await, None);
    let request = rotate_request(&server.stack, &uid, overlap_for(60));
    let rotated = owner.tokens.rotate(request).await.unwrap().into_inner();
    let wanted = rotated.overlap_ends_at.unwrap().seconds;
    assert_eq!(wanted, server.clock.seconds() + 60);
    assert_eq!(ends(&issued.secret).await, Some(wanted));
    assert_eq!(ends(&rotated.secret).await, None);
}
