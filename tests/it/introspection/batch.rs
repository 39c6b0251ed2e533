//! Tests that a batch returns the same verdicts as single calls, in the order of the questions, and
//! evaluates all of them at one instant and on one revision. Each question has its own answer or
//! error.

use std::time::Duration;

use prost::Message as _;
use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};
use tonic_types::pb as rpc;

use crate::support::{
    TestServer, at,
    clients::{details, fields},
    clock::START,
    introspect_request,
    requests::{
        INCLUDES, answers, batch_request, branches, outcome, outcomes, refused, rename_request,
        results,
    },
};

/// A well-formed secret that was never issued.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

async fn ask(
    server: &TestServer,
    request: v1::BatchIntrospectRequest,
) -> Result<v1::BatchIntrospectResponse, Status> {
    let mut service = server.service().await;
    let answered = service.introspection.batch_introspect(request).await;
    answered.map(tonic::Response::into_inner)
}

fn question(stack: &str, secret: &str, actions: &[&str]) -> v1::IntrospectQuestion {
    let v1::IntrospectRequest {
        token,
        stack_api_key,
        actions,
        ..
    } = introspect_request(stack, secret, actions);
    v1::IntrospectQuestion {
        token,
        stack_api_key,
        actions,
        include: Vec::new(),
    }
}

/// Returns a hundred questions of ten kinds.
async fn of_every_kind(server: &TestServer) -> Vec<v1::IntrospectQuestion> {
    let expired = server.token_until("expired", at(START + 60)).await;
    let revoked = server.token("revoked").await;
    server.revoke(&revoked.uid).await;
    server.clock.advance(Duration::from_secs(60));
    let narrow = branches(v1::Access::Read, &["main"], &["live"]);
    let narrow = server.token_with("narrow", narrow).await;
    let brief = server
        .token_until("brief", at(server.clock.seconds() + 1))
        .await;
    let live = server.token("live").await;
    let other = server.register("Other").await;
    let kinds = [
        (&server.stack, live.secret.as_str(), &["entry.update"][..]),
        (&server.stack, UNKNOWN, &[]),
        (&server.stack, &revoked.secret, &["entry.read"]),
        (&other, &live.secret, &[]),
        (&server.stack, "junk", &["entry.read"]),
        (
            &server.stack,
            &narrow.secret,
            &["entry.read", "asset.update"],
        ),
        (&server.stack, &expired.secret, &[]),
        (&server.stack, &brief.secret, &["token.create"]),
        (&server.stack, &live.secret, &["no.such", "stack.read"]),
        (&other, &revoked.secret, &["entry.read"]),
    ];
    let asked = (0..100).map(|at| kinds[(at * 7) % kinds.len()]);
    asked
        .map(|(stack, secret, actions)| question(stack, secret, actions))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_answers_are_those_of_a_hundred_single_questions() {
    let server = TestServer::start().await;
    let questions = of_every_kind(&server).await;
    // The rounds run with an empty cache, with a full cache and with a partly filled cache.
    for round in ["from the store", "from the cache", "from both"] {
        if round == "from both" {
            server.revoke(&server.token("another").await.uid).await;
            server.suspend().await;
            server.resume().await;
            for asked in questions.iter().take(3) {
                let secret = asked.token.as_str();
                server.introspect(secret, &[]).await;
            }
        }
        let request = v1::BatchIntrospectRequest {
            questions: questions.clone(),
            min_revision: String::new(),
        };
        let batch = ask(&server, request).await.unwrap();
        let answers = answers(&batch);
        assert_eq!(answers.len(), 100);
        let mut service = server.service().await;
        for (at, (asked, answer)) in questions.iter().zip(&answers).enumerate() {
            let single = v1::IntrospectRequest {
                token: asked.token.clone(),
                stack_api_key: asked.stack_api_key.clone(),
                actions: asked.actions.clone(),
                include: asked.include.clone(),
                min_revision: String::new(),
            };
            let single = service.introspection.introspect(single).await.unwrap();
            let single = single.into_inner().encode_to_vec();
            assert_eq!(answer.encode_to_vec(), single, "{round}: {at} {asked:?}");
        }
        let known = |answer: &&&v1::IntrospectResponse| !answer.revision.is_empty();
        let of_known: Vec<_> = answers.iter().filter(known).collect();
        assert_eq!(
            of_known.len(),
            60,
            "the other four kinds are not recognized"
        );
        for answer in of_known {
            assert_eq!(answer.revision, batch.revision, "{round}");
            assert_eq!(answer.evaluated_at, answers[0].evaluated_at);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answers_stand_in_the_order_of_the_questions() {
    let server = TestServer::start().await;
    server.set_limit(60).await;
    let mut tokens = Vec::new();
    for n in 0..50 {
        tokens.push(server.token(&format!("token {n:02}")).await);
    }
    // Every other token in the second half is cached before the batch.
    for token in tokens.iter().skip(25).step_by(2) {
        assert_eq!(server.verdict(&token.secret).await, "OK");
    }
    let shuffled: Vec<_> = (0..50).map(|at| &tokens[(at * 17 + 3) % 50]).collect();
    let secrets: Vec<_> = shuffled.iter().map(|token| token.secret.as_str()).collect();
    let answered = ask(&server, batch_request(&server.stack, &secrets)).await;
    let answered = answered.unwrap();
    let uids = answers(&answered).into_iter();
    let uids: Vec<_> = uids.map(|answer| answer.token_uid.clone()).collect();
    let expected: Vec<_> = shuffled.iter().map(|token| token.uid.clone()).collect();
    assert_eq!(uids, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_of_one_to_a_hundred_questions() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    for (count, expected) in [
        (0, "InvalidArgument INVALID_FIELD"),
        (1, "OK"),
        (4, "OK"),
        (5, "OK"),
        (100, "OK"),
        (101, "InvalidArgument INVALID_FIELD"),
    ] {
        let secrets = vec![token.secret.as_str(); count];
        let request = batch_request(&server.stack, &secrets);
        let answered = server
            .service()
            .await
            .introspection
            .batch_introspect(request)
            .await;
        assert_eq!(outcome(&answered), expected, "{count}");
        match answered {
            Ok(answer) => assert_eq!(outcomes(answer.get_ref()), vec!["OK"; count]),
            Err(status) => {
                assert_eq!(fields(&status), ["questions"]);
                let words = format!("has {count} entries: ask 1 to 100");
                assert!(status.message().contains(&words), "{}", status.message());
            }
        }
    }
}

/// Returns the status of a single call without the request id, because a question in a batch has no
/// request id.
fn without_request_id(status: &Status) -> Vec<u8> {
    let mut error = rpc::Status::decode(status.details()).unwrap();
    let count = error.details.len();
    error
        .details
        .retain(|detail| !detail.type_url.ends_with("google.rpc.RequestInfo"));
    assert_eq!(error.details.len() + 1, count, "{status:?}");
    error.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_question_refuses_no_other_and_its_error_is_that_of_a_single_call() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let good = question(&server.stack, &token.secret, &["entry.read"]);
    let mut questions = vec![good.clone(); 6];
    questions[1].token.clear();
    questions[2].actions[0].name = "no verb".into();
    questions[2].include = vec![99];
    questions[3].stack_api_key = "x".repeat(60_000);
    questions[4].token = "x".repeat(60_000);
    questions[5].actions = vec![v1::ActionQuestion::default(); 21];
    let request = v1::BatchIntrospectRequest {
        questions: questions.clone(),
        min_revision: String::new(),
    };
    let response = ask(&server, request).await.unwrap();
    assert_eq!(
        outcomes(&response),
        [
            "OK",
            "NOT_RECOGNIZED",
            "InvalidArgument INVALID_FIELD",
            "NOT_RECOGNIZED",
            "NOT_RECOGNIZED",
            "InvalidArgument INVALID_FIELD",
        ]
    );
    let results = results(&response);
    let faults = |at: usize| fields(results[at].as_ref().unwrap_err());
    assert_eq!(faults(2), ["actions[0].name", "include[0]"]);
    assert_eq!(faults(5), ["actions"]);
    let mut service = server.service().await;
    for at in [2, 5] {
        let v1::IntrospectQuestion {
            token,
            stack_api_key,
            actions,
            include,
        } = questions[at].clone();
        let single = v1::IntrospectRequest {
            token,
            stack_api_key,
            actions,
            include,
            min_revision: String::new(),
        };
        let status = service.introspection.introspect(single).await.unwrap_err();
        let error = results[at].as_ref().unwrap_err();
        assert_eq!(error.details(), without_request_id(&status), "{at}");
    }
    let errors = "stacktoken_errors_total{reason=\"INVALID_FIELD\"} 4";
    let metrics = server.metrics().await;
    assert!(
        metrics.contains(errors),
        "two errors of the batch and two of single calls: {metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_concerns_the_whole_batch_is_refused_whole() {
    let server = TestServer::start().await;
    let request = v1::BatchIntrospectRequest {
        min_revision: "yesterday".into(),
        ..batch_request(&server.stack, &["junk"])
    };
    let status = ask(&server, request).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    assert_eq!(fields(&status), ["min_revision"]);
    let request = v1::BatchIntrospectRequest {
        min_revision: "yesterday".into(),
        questions: Vec::new(),
    };
    let status = ask(&server, request).await.unwrap_err();
    assert_eq!(fields(&status), ["min_revision", "questions"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_without_end_still_arrive() {
    let server = TestServer::start().await;
    let everything = v1::IntrospectQuestion {
        actions: vec![
            v1::ActionQuestion {
                branch: "x".repeat(65),
                branch_alias: "x".repeat(65),
                facts: (0..16).map(|n| (format!("{n:065}"), true)).collect(),
                ..Default::default()
            };
            6
        ],
        include: vec![99; 16],
        ..Default::default()
    };
    let request = v1::BatchIntrospectRequest {
        questions: vec![everything; 100],
        min_revision: String::new(),
    };
    assert!(request.encoded_len() < 1 << 20, "{}", request.encoded_len());
    let response = ask(&server, request).await.unwrap();
    assert_eq!(outcomes(&response), ["InvalidArgument INVALID_FIELD"; 100]);
    let size = response.encoded_len();
    assert!(size > 300_000 && size + 50_000 < 1 << 20, "{size}");
    let status = results(&response)[99].clone().unwrap_err();
    let told = fields(&status).len();
    let faults = 6 * (3 + 16) + 16;
    assert!(told > 20 && told < faults, "{told}");
    let bad = details(&status).bad_request().unwrap().clone();
    let last = &bad.field_violations.last().unwrap().description;
    let rest = format!("and {} more faults", faults - told);
    assert!(last.contains(&rest), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_be_larger_than_other_requests_and_no_larger_than_its_limit() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let fact = |n| (format!("{n:064}"), true);
    let action = |facts| v1::ActionQuestion {
        name: "entry.read".into(),
        facts: (0..facts).map(fact).collect(),
        ..Default::default()
    };
    let of = |actions, facts| v1::IntrospectQuestion {
        actions: vec![action(facts); actions],
        ..question(&server.stack, &token.secret, &[])
    };
    let request = |actions, facts| v1::BatchIntrospectRequest {
        questions: vec![of(actions, facts); 100],
        min_revision: String::new(),
    };
    let large = request(8, 16);
    assert!(
        (900_000..1 << 20).contains(&large.encoded_len()),
        "{}",
        large.encoded_len()
    );
    let answer = ask(&server, large).await.unwrap();
    assert_eq!(outcomes(&answer), vec!["OK"; 100]);
    let larger = request(10, 16);
    assert!(larger.encoded_len() > 1 << 20);
    let status = ask(&server, larger).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    assert!(status.message().contains("1 MiB"), "{}", status.message());
    // The other RPCs of the service have their own, smaller limit.
    let mut single = introspect_request(&server.stack, &token.secret, &[]);
    single.token = "x".repeat(70_000);
    let told = server
        .service()
        .await
        .introspection
        .introspect(single)
        .await;
    let told = told.unwrap_err();
    assert!(
        told.message().contains("cannot be read"),
        "{}",
        told.message()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_answers_to_a_hundred_questions_fit() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..100).map(|n| format!("{n:0>64}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wide = branches(v1::Access::ReadWrite, &names, &[]);
    let token = server.token_with(&"\u{1f511}".repeat(50), wide).await;
    let action = v1::ActionQuestion {
        name: "content_type.update".into(),
        branch_alias: "x".repeat(64),
        ..Default::default()
    };
    let asked = v1::IntrospectQuestion {
        actions: vec![action; 20],
        include: INCLUDES.map(Into::into).to_vec(),
        ..question(&server.stack, &token.secret, &[])
    };
    let request = v1::BatchIntrospectRequest {
        questions: vec![asked; 100],
        min_revision: String::new(),
    };
    let answer = ask(&server, request).await.unwrap();
    assert_eq!(outcomes(&answer), ["BRANCH_NOT_GRANTED"; 100]);
    // Grants on every module and the longest stack name would add 1,000 bytes to each answer.
    let size = answer.encoded_len();
    assert!(size > 850_000 && size + 100_000 < 1 << 20, "{size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_one_batch_are_looked_up_once_each_and_all_at_once() {
    let server = TestServer::start().await;
    let (one, two) = (server.token("one").await, server.token("two").await);
    for token in [&one, &two] {
        // The first use is recorded, then a change evicts the token from the cache.
        assert_eq!(server.verdict(&token.secret).await, "OK");
        let renamed = rename_request(&server.stack, &token.uid, &token.uid);
        server.owner().await.tokens.update(renamed).await.unwrap();
    }
    let missed = async || {
        let text = server.metrics().await;
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.rsplit(' ').next());
            value.unwrap_or("0").parse::<f64>().unwrap()
        };
        (
            value("stacktoken_cache_hits_total "),
            value("stacktoken_cache_misses_total "),
        )
    };
    let before = missed().await;
    let secrets: Vec<&str> = [&one.secret, &two.secret, &one.secret, UNKNOWN]
        .into_iter()
        .map(|secret: &str| secret)
        .cycle()
        .take(100)
        .collect();
    let request = batch_request(&server.stack, &secrets);
    let answer = ask(&server, request.clone()).await.unwrap();
    assert_eq!(outcomes(&answer)[..4], ["OK", "OK", "OK", "NOT_RECOGNIZED"]);
    let after = missed().await;
    assert_eq!((after.0 - before.0, after.1 - before.1), (0.0, 3.0));
    // An unknown secret is cached for a second only, which a busy machine may need between two calls.
    let mut seen = Vec::new();
    while !seen.contains(&(3.0, 0.0)) {
        assert!(seen.len() < 5, "{seen:?}");
        let before = missed().await;
        ask(&server, request.clone()).await.unwrap();
        let after = missed().await;
        seen.push((after.0 - before.0, after.1 - before.1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verdict_of_a_batch_is_counted() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let secrets = [&token.secret, UNKNOWN, &token.secret, "junk", "more junk"];
    let request = batch_request(&server.stack, &secrets);
    ask(&server, request).await.unwrap();
    let metrics = server.metrics().await;
    for line in [
        "stacktoken_verdicts_total{reason=\"OK\"} 2",
        "stacktoken_verdicts_total{reason=\"NOT_RECOGNIZED\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_unrecognized_token_counts_against_the_rate_of_its_caller() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognized_per_second = 40.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await;
    let mut secrets = vec!["junk"; 30];
    secrets.push(&token.secret);
    let request = batch_request(&server.stack, &secrets);
    let answer = ask(&server, request.clone()).await.unwrap();
    assert_eq!(outcomes(&answer)[29..], ["NOT_RECOGNIZED", "OK"]);
    // Some unknown tokens exceed the rate limit; the known token is still answered.
    let answer = ask(&server, request).await.unwrap();
    let seen = outcomes(&answer);
    let limited = "ResourceExhausted RATE_LIMITED";
    assert_eq!(
        (seen[0].as_str(), seen[29].as_str()),
        ("NOT_RECOGNIZED", limited)
    );
    assert_eq!(seen[30], "OK");
    let status = results(&answer)[29].clone().unwrap_err();
    let details = details(&status);
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    let request = batch_request(&server.stack, &[token.secret.as_str(); 100]);
    assert_eq!(outcomes(&ask(&server, request).await.unwrap()), ["OK"; 100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_decided_is_an_error_of_its_own_question() {
    let server = TestServer::start().await;
    let (held, cold) = (server.token("held").await, server.token("cold").await);
    assert_eq!(server.verdict(&held.secret).await, "OK");
    let outside = server.outside().await;
    outside.corrupt().await;
    let mixed = batch_request(
        &server.stack,
        &[&held.secret, "junk", &cold.secret, &held.secret],
    );
    let response = ask(&server, mixed.clone()).await.unwrap();
    let outage = "Unavailable STORE_UNAVAILABLE";
    assert_eq!(outcomes(&response), ["OK", "NOT_RECOGNIZED", outage, "OK"]);
    let status = results(&response)[2].clone().unwrap_err();
    assert!(details(&status).retry_info().is_some());
    let single = introspect_request(&server.stack, &cold.secret, &[]);
    let mut service = server.service().await;
    let single = service.introspection.introspect(single).await.unwrap_err();
    assert_eq!(status.details(), without_request_id(&single));
    outside.restore().await;
    let response = ask(&server, mixed).await.unwrap();
    assert_eq!(outcomes(&response), ["OK", "NOT_RECOGNIZED", "OK", "OK"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_revoke_the_next_batch_says_so() {
    let server = TestServer::start().await;
    let (doomed, live) = (server.token("doomed").await, server.token("live").await);
    let request = batch_request(&server.stack, &[&doomed.secret, &live.secret]);
    let before = ask(&server, request.clone()).await.unwrap();
    assert_eq!(outcomes(&before), ["OK", "OK"]);
    server.revoke(&doomed.uid).await;
    let after = ask(&server, request).await.unwrap();
    assert_eq!(outcomes(&after), ["REVOKED", "OK"]);
    assert_ne!(after.revision, before.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_reflects_the_revision_asked_for_or_is_refused() {
    let server = TestServer::start().await;
    let issued = server.issue("deploy").await;
    let secrets = [issued.secret.as_str(), "junk"];
    let since = |revision: &str| v1::BatchIntrospectRequest {
        min_revision: revision.into(),
        ..batch_request(&server.stack, &secrets)
    };
    let answer = ask(&server, since(&issued.revision)).await.unwrap();
    assert_eq!(outcomes(&answer), ["OK", "NOT_RECOGNIZED"]);
    assert_eq!(answer.revision, issued.revision);
    let (epoch, position) = issued.revision.split_at(16);
    let position = i64::from_str_radix(position, 16).unwrap();
    for unknown in [
        format!("{epoch}{:x}", position + 1),
        format!("0000000000000000{position:x}"),
    ] {
        let status = ask(&server, since(&unknown)).await.unwrap_err();
        assert_eq!(
            refused(&status),
            (Code::OutOfRange, "REVISION_UNKNOWN".into()),
            "{unknown}"
        );
    }
}
