//! Tests how a client is built, and which errors it reports.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use stacktoken::{
    domain::verdict::{ActionQuestion, Reason},
    grpc::pb::v1,
};
use stacktoken_client::{Builder, Client, Error, Question};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    scripted::{KEY, Server, active, ask, secret, until},
    support::{
        TestServer,
        certificates::{Ca, Mount, uri},
    },
};

fn wrong(builder: Builder) -> &'static str {
    match builder.build() {
        Err(Error::Setting { name, problem }) => {
            assert!(!problem.is_empty());
            name
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => "nothing",
    }
}

#[tokio::test]
async fn a_bad_setting_is_named() {
    let good = || Client::builder("http://127.0.0.1:1").bearer("jwt");
    assert_eq!(wrong(good()), "nothing");
    assert_eq!(wrong(good().address("http://localhost:1")), "nothing");
    assert_eq!(wrong(good().address("http://[::1]:1")), "nothing");
    assert_eq!(wrong(Client::builder("http://127.0.0.1:1")), "bearer");
    assert_eq!(wrong(good().address("not a url")), "address");
    assert_eq!(wrong(good().address("127.0.0.1:50051")), "address");
    assert_eq!(wrong(good().address("http://10.0.0.1:1")), "address");
    assert_eq!(
        wrong(good().address("http://localhost.example:1")),
        "address"
    );
    assert_eq!(
        wrong(good().address("http://10.0.0.1:1").allow_plaintext()),
        "nothing"
    );
    let pem = include_str!("../auth/tls/ca.pem");
    assert_eq!(wrong(good().ca_pem(pem)), "address");
    assert_eq!(wrong(good().ca_pem("x")), "ca_pem");
    assert_eq!(wrong(good().identity_pem(pem, "x")), "identity_pem");
    assert_eq!(
        wrong(good().freshness_bound(Duration::ZERO)),
        "freshness_bound"
    );
    assert_eq!(
        wrong(good().freshness_bound(Duration::MAX)),
        "freshness_bound"
    );
    assert_eq!(
        wrong(good().reuse_for(Duration::from_secs(61))),
        "reuse_for"
    );
    assert_eq!(wrong(good().cache_entries(0)), "cache_entries");
    assert_eq!(wrong(good().timeout(Duration::ZERO)), "timeout");
    assert_eq!(
        wrong(good().connect_timeout(Duration::ZERO)),
        "connect_timeout"
    );
}

#[test]
fn outside_of_a_runtime_there_is_no_client() {
    assert_eq!(
        wrong(Client::builder("http://127.0.0.1:1").bearer("jwt")),
        "build"
    );
}

#[tokio::test]
async fn a_client_without_a_server_fails_each_question() {
    let client = Client::builder("http://127.0.0.1:1")
        .bearer("jwt")
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let secret = secret();
    let began = Instant::now();
    for _ in 0..2 {
        let refused = client
            .introspect(&Question::new(&secret, KEY))
            .await
            .unwrap_err();
        let Error::Undecided { retry_after, .. } = &refused else {
            panic!("{refused:?}");
        };
        assert!(*retry_after > Duration::ZERO);
    }
    assert!(
        began.elapsed() < Duration::from_millis(700),
        "does not return within its timeout"
    );
    until("the client reports the fault", || {
        client
            .watch_fault()
            .is_some_and(|why| why.contains("127.0.0.1:1"))
    })
    .await;
}

#[tokio::test]
async fn a_failing_server_is_passed_over_and_another_asked() {
    let (down, up) = (Server::start().await, Server::start().await);
    down.answer(|_| Err(Status::unavailable("draining")));
    let client = down.builder().address(&up.address).build().unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&client, &secret()).await, (true, false));
    }
    // The server that answered is asked first from then on.
    assert_eq!((down.asked(), up.asked()), (1, 3));
}

#[tokio::test]
async fn an_outage_is_asked_again_after_the_time_it_names_if_that_fits() {
    let server = Server::start().await;
    let tries = AtomicU32::new(0);
    server.answer(move |_| {
        if tries.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(active(0));
        }
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(20)));
        Err(Status::with_error_details(
            tonic::Code::Unavailable,
            "away",
            details,
        ))
    });
    assert_eq!(ask(&server.client(), &secret()).await, (true, false));
    server.answer(|_| {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        Err(Status::with_error_details(
            tonic::Code::Unavailable,
            "away",
            details,
        ))
    });
    let (secret, asked) = (secret(), server.asked());
    let refused = server
        .client()
        .introspect(&Question::new(&secret, KEY))
        .await;
    let Err(Error::Undecided { retry_after, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (retry_after, server.asked() - asked),
        (Duration::from_secs(7), 1)
    );
}

#[tokio::test]
async fn the_credential_is_read_again_for_every_call() {
    let server = Server::start().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("jwt");
    let sent = || {
        server
            .script
            .credentials
            .lock()
            .unwrap()
            .pop_back()
            .unwrap()
    };
    let by_file = Client::builder(&server.address)
        .bearer_file(&file)
        .build()
        .unwrap();
    let one = secret();
    let refused = by_file
        .introspect(&Question::new(&one, KEY))
        .await
        .unwrap_err();
    assert!(matches!(&refused, Error::Credential(_)), "{refused:?}");
    assert!(
        refused.to_string().contains(file.to_str().unwrap()),
        "{refused}"
    );
    for jwt in ["first", "second"] {
        std::fs::write(&file, format!("{jwt}\n")).unwrap();
        ask(&by_file, &secret()).await;
        assert_eq!(sent(), Some(format!("Bearer {jwt}")));
    }
    let count = AtomicU32::new(0);
    let source = move || match count.fetch_add(1, Ordering::SeqCst) {
        // The stream may also have requested a credential between two questions.
        9.. => Err("no more".into()),
        at => Ok(format!("number-{at}")),
    };
    let by_source = Client::builder(&server.address)
        .bearer_from(source)
        .build()
        .unwrap();
    ask(&by_source, &secret()).await;
    let first = sent();
    ask(&by_source, &secret()).await;
    assert_ne!(first, sent());
    std::fs::write(&file, "a\nb").unwrap();
    let refused = by_file
        .introspect(&Question::new(&one, KEY))
        .await
        .unwrap_err();
    assert!(matches!(&refused, Error::Credential(_)), "{refused:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_no_verdict() {
    let server = Server::start().await;
    let client = server.client();
    let strange: [fn(&mut v1::IntrospectResponse); 8] = [
        |answer| answer.token = None,
        |answer| answer.stack = None,
        |answer| answer.permissions = None,
        |answer| answer.permissions.as_mut().unwrap().access = 77,
        |answer| answer.token_uid = "x".into(),
        |answer| answer.results = vec![v1::ActionResult::default()],
        |answer| answer.reason = 77,
        |answer| answer.active = false,
    ];
    for make in strange {
        server.answer(move |_| {
            let mut answer = active(0);
            make(&mut answer);
            Ok(answer)
        });
        let secret = secret();
        let refused = client
            .introspect(&Question::new(&secret, KEY))
            .await
            .unwrap_err();
        assert!(matches!(refused, Error::Unreadable { .. }), "{refused:?}");
    }
}

/// A later server version may add reasons. The client treats a reason that it does not know neither
/// as "allowed" nor as an error.
#[tokio::test]
async fn a_reason_of_a_later_version_is_not_allowed() {
    let server = Server::start().await;
    let client = server.client();
    let actions = [ActionQuestion {
        name: "entry.read".into(),
        ..Default::default()
    }];
    let secret = secret();
    let question = Question::new(&secret, KEY).about(&actions);
    server.answer(|_| {
        Ok(v1::IntrospectResponse {
            reason: 77,
            decision: 77,
            ..v1::IntrospectResponse::default()
        })
    });
    let inactive = client.introspect(&question).await.unwrap();
    assert!(!inactive.active() && !inactive.allowed());
    assert_eq!(inactive.reason(), Some(Reason::Unknown));
    server.answer(|_| {
        Ok(v1::IntrospectResponse {
            reason: 77,
            decision: v1::Decision::Deny.into(),
            results: vec![v1::ActionResult {
                name: "entry.read".into(),
                reason: 77,
                missing: Some(v1::ActionRequirement::default()),
                ..Default::default()
            }],
            ..active(0)
        })
    });
    let denied = client.introspect(&question).await.unwrap();
    assert!(denied.active() && !denied.allowed());
    assert_eq!(denied.reason(), Some(Reason::Unknown));
}

/// A later server version may add error reasons. The client classifies an unknown one by the gRPC
/// code.
#[tokio::test]
async fn an_error_reason_of_a_later_version_counts_by_its_code() {
    let server = Server::start().await;
    let client = server.client();
    let secret = secret();
    for (code, is_undecided) in [
        (Code::Unavailable, true),
        (Code::ResourceExhausted, true),
        (Code::FailedPrecondition, false),
    ] {
        server.answer(move |_| {
            let mut details = ErrorDetails::with_error_info("OF_LATER", "stacktoken", []);
            // This retry delay is longer than the client's timeout.
            details.set_retry_info(Some(Duration::from_secs(60)));
            Err(Status::with_error_details(
                code,
                "of a later version",
                details,
            ))
        });
        let refused = client.introspect(&Question::new(&secret, KEY)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.is_undecided(), is_undecided, "{refused:?}");
        assert!(refused.to_string().contains("OF_LATER"), "{refused}");
    }
}

#[tokio::test]
async fn what_is_wrong_says_what_to_do() {
    let server = TestServer::start().await;
    let address = format!("http://{}", server.address);
    let token = server.token("a token").await;
    let question = Question::new(&token.secret, &server.stack);
    let client = |jwt: String| Client::builder(&address).bearer(jwt).build().unwrap();
    let at = server.clock.seconds();
    let entitled = client(server.issuer.service("content-api", at));
    for jwt in ["nonsense".to_owned(), server.issuer.service("mailer", at)] {
        let client = client(jwt);
        let refused = client.introspect(&question).await.unwrap_err();
        assert!(matches!(refused, Error::NotEntitled { .. }), "{refused:?}");
        until("the client reports the fault", || {
            client.watch_fault().is_some_and(|why| {
                why.starts_with("CREDENTIAL_INVALID") || why.starts_with("ROLE_REQUIRED")
            })
        })
        .await;
    }
    let actions = [ActionQuestion {
        name: "entry".into(),
        ..Default::default()
    }];
    let refused = entitled
        .introspect(&question.about(&actions))
        .await
        .unwrap_err();
    let Error::Question { fields, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(fields[0].0, "actions[0].name");
    let other = "00000000000000ff1";
    let refused = entitled
        .introspect(&question.since(other))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, Error::RevisionUnknown { .. }),
        "{refused:?}"
    );
    let shown = format!("{question:?} {refused:?} {refused}");
    assert!(!shown.contains(&token.secret), "{shown}");
    let revoked = server.token("revoked").await;
    let request = crate::support::requests::revoke_request(&server.stack, &revoked.uid, "");
    let mut owner = server.owner().await;
    let revision = owner
        .tokens
        .revoke(request)
        .await
        .unwrap()
        .into_inner()
        .revision;
    let question = Question::new(&revoked.secret, &server.stack).since(&revision);
    let answer = entitled.introspect(&question).await.unwrap();
    assert_eq!(answer.reason(), Some(Reason::Revoked));
}

/// The client needs no other credential than its certificate, and trusts only servers whose
/// certificate is signed by the configured CA.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_certificate_is_enough_and_a_strange_server_is_not_trusted() {
    const ENTRIES: &str = r#"
[[mtls]]
identity   = "spiffe://example.org/content-api"
caller     = "service"
introspect = true
"#;
    let (ca, strange) = (Ca::new("test CA"), Ca::new("another CA"));
    let mount = Mount::new(&ca.server(), &[&ca]);
    let mut server = TestServer::start_tls(mount.files(true), ENTRIES, |_| {}).await;
    server.stack = KEY.into();
    let pair = ca.client(&[uri("spiffe://example.org/content-api")]);
    let address = format!(
        "https://localhost:{}",
        server.address.rsplit(':').next().unwrap()
    );
    let builder = || {
        Client::builder(&address)
            .identity_pem(pair.cert.as_str(), pair.key.as_str())
            .timeout(Duration::from_millis(500))
    };
    let client = builder().ca_pem(ca.pem()).build().unwrap();
    let secret = secret();
    let question = Question::new(&secret, KEY);
    let answer = client.introspect(&question).await.unwrap();
    assert_eq!(answer.reason(), Some(Reason::NotRecognized));
    until("the client watches", || client.watch_fault().is_none()).await;
    let client = builder().ca_pem(strange.pem()).build().unwrap();
    let refused = client.introspect(&question).await.unwrap_err();
    assert!(refused.is_undecided(), "{refused:?}");
    assert_eq!(
        wrong(Client::builder(&address).bearer("jwt").ca_pem("no PEM")),
        "ca_pem"
    );
}
