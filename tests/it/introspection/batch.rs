//! Many questions at once: the same verdicts as one by one, in the order asked, at one
//! instant and on one revision; all of them or none.

use std::time::Duration;

use prost::Message as _;
use stacktoken::grpc::pb::v1;
use tonic::{Code, Status};

use crate::support::{
    TestServer, at,
    clients::{details, fields},
    clock::START,
    introspect_request,
    requests::{batch_request, branches, outcome, refused, rename_request},
};

/// A right checksum, and nobody's token.
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

async fn ask(
    server: &TestServer,
    request: v1::BatchIntrospectRequest,
) -> Result<v1::BatchIntrospectResponse, Status> {
    let mut service = server.service().await;
    let answered = service.introspection.batch_introspect(request).await;
    answered.map(tonic::Response::into_inner)
}

/// The reasons of the answers, in order; `OK` where there is none.
fn reasons(response: &v1::BatchIntrospectResponse) -> Vec<String> {
    let reason = |answer: &v1::IntrospectResponse| match answer.reason() {
        v1::Reason::Unspecified => "OK".to_owned(),
        reason => reason.as_str_name().replace("REASON_", ""),
    };
    response.answers.iter().map(reason).collect()
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
    }
}

/// A hundred questions of every kind, and how many of the answers are NOT_RECOGNISED.
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
    // Once with nothing in memory, once with everything, and once with a part of it.
    for round in ["from the store", "from memory", "from both"] {
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
        assert_eq!(batch.answers.len(), 100);
        let mut service = server.service().await;
        for (at, (asked, answer)) in questions.iter().zip(&batch.answers).enumerate() {
            let single = v1::IntrospectRequest {
                token: asked.token.clone(),
                stack_api_key: asked.stack_api_key.clone(),
                actions: asked.actions.clone(),
                min_revision: String::new(),
            };
            let single = service.introspection.introspect(single).await.unwrap();
            let single = single.into_inner().encode_to_vec();
            assert_eq!(answer.encode_to_vec(), single, "{round}: {at} {asked:?}");
        }
        let known = |answer: &&v1::IntrospectResponse| !answer.revision.is_empty();
        let of_known: Vec<_> = batch.answers.iter().filter(known).collect();
        assert_eq!(of_known.len(), 60, "the other kinds are not recognised");
        for answer in of_known {
            assert_eq!(answer.revision, batch.revision, "{round}");
            assert_eq!(answer.evaluated_at, batch.answers[0].evaluated_at);
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
    // The second half is remembered when the batch comes, every other one.
    for token in tokens.iter().skip(25).step_by(2) {
        assert_eq!(server.verdict(&token.secret).await, "OK");
    }
    let shuffled: Vec<_> = (0..50).map(|at| &tokens[(at * 17 + 3) % 50]).collect();
    let secrets: Vec<_> = shuffled.iter().map(|token| token.secret.as_str()).collect();
    let answered = ask(&server, batch_request(&server.stack, &secrets)).await;
    let uids = answered.unwrap().answers.into_iter();
    let uids: Vec<_> = uids.map(|answer| answer.token.unwrap().token_uid).collect();
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
            Ok(answer) => assert_eq!(reasons(answer.get_ref()), vec!["OK"; count]),
            Err(status) => {
                assert_eq!(fields(&status), ["questions"]);
                let words = format!("has {count} entries: ask 1 to 100");
                assert!(status.message().contains(&words), "{}", status.message());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_every_question_is_told_with_its_path() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let good = question(&server.stack, &token.secret, &["entry.read"]);
    let mut questions = vec![good.clone(); 6];
    questions[1].token.clear();
    questions[3].stack_api_key = "x".repeat(129);
    questions[3].actions[0].name = "no verb".into();
    questions[5].token = "x".repeat(513);
    questions[5].actions = vec![v1::ActionQuestion::default(); 21];
    let request = v1::BatchIntrospectRequest {
        questions,
        min_revision: "yesterday".into(),
    };
    let status = ask(&server, request).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    assert_eq!(
        fields(&status),
        [
            "min_revision",
            "questions[1].token",
            "questions[3].stack_api_key",
            "questions[3].actions[0].name",
            "questions[5].token",
            "questions[5].actions",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_without_end_still_arrive() {
    let server = TestServer::start().await;
    let one_each = v1::IntrospectQuestion {
        stack_api_key: server.stack.clone(),
        ..Default::default()
    };
    let request = |question: &v1::IntrospectQuestion| v1::BatchIntrospectRequest {
        questions: vec![question.clone(); 100],
        min_revision: String::new(),
    };
    let status = ask(&server, request(&one_each)).await.unwrap_err();
    assert_eq!(fields(&status).len(), 100, "one in each is told");
    let everything = v1::IntrospectQuestion {
        actions: vec![v1::ActionQuestion::default(); 20],
        ..Default::default()
    };
    let status = ask(&server, request(&everything)).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    let told = fields(&status);
    assert!(told.len() > 50 && told.len() < 2200, "{}", told.len());
    let bad = details(&status).bad_request().unwrap().clone();
    let last = &bad.field_violations.last().unwrap().description;
    let rest = format!("and {} more faults", 2200 - told.len());
    assert!(last.contains(&rest), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_be_larger_than_other_requests_and_no_larger_than_its_limit() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let fact = |n| (format!("{n:064}"), "true".to_owned());
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
    let large = request(8, 15);
    assert!(
        (900_000..1 << 20).contains(&large.encoded_len()),
        "{}",
        large.encoded_len()
    );
    let answer = ask(&server, large).await.unwrap();
    assert_eq!(reasons(&answer), vec!["OK"; 100]);
    let larger = request(10, 15);
    assert!(larger.encoded_len() > 1 << 20);
    let status = ask(&server, larger).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::InvalidArgument, "INVALID_FIELD".into())
    );
    assert!(status.message().contains("1 MiB"), "{}", status.message());
    // The other RPCs of the service keep their own limit.
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
        ..question(&server.stack, &token.secret, &[])
    };
    let request = v1::BatchIntrospectRequest {
        questions: vec![asked; 100],
        min_revision: String::new(),
    };
    let answer = ask(&server, request).await.unwrap();
    assert_eq!(reasons(&answer), ["BRANCH_NOT_GRANTED"; 100]);
    // What is not in these: grants on every module and a stack's longest name, 1,000 bytes.
    let size = answer.encoded_len();
    assert!(size > 900_000 && size + 100_000 < 1 << 20, "{size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_one_batch_are_looked_up_once_each_and_all_at_once() {
    let server = TestServer::start().await;
    let (one, two) = (server.token("one").await, server.token("two").await);
    for token in [&one, &two] {
        // Its first use is on record, and a change has it thrown out of memory.
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
    assert_eq!(reasons(&answer)[..4], ["OK", "OK", "OK", "NOT_RECOGNISED"]);
    let after = missed().await;
    assert_eq!((after.0 - before.0, after.1 - before.1), (0.0, 3.0));
    ask(&server, request).await.unwrap();
    let again = missed().await;
    assert_eq!((again.0 - after.0, again.1 - after.1), (3.0, 0.0));
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
        "stacktoken_verdicts_total{reason=\"NOT_RECOGNISED\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_unrecognised_token_counts_against_the_rate_of_its_caller() {
    let server = TestServer::start_with(|tuning| {
        tuning.unrecognised_per_second = 40.try_into().unwrap();
    })
    .await;
    let token = server.token("deploy").await;
    let mut secrets = vec!["junk"; 30];
    secrets.push(&token.secret);
    let request = batch_request(&server.stack, &secrets);
    let answer = ask(&server, request.clone()).await.unwrap();
    assert_eq!(reasons(&answer)[29..], ["NOT_RECOGNISED", "OK"]);
    let status = ask(&server, request).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::ResourceExhausted, "RATE_LIMITED".into())
    );
    let details = details(&status);
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    // A batch without any is answered all the while.
    let request = batch_request(&server.stack, &[token.secret.as_str(); 100]);
    assert_eq!(reasons(&ask(&server, request).await.unwrap()), ["OK"; 100]);
    // One with more than there may ever be takes all that there is, once it is there.
    tokio::time::sleep(wait.max(Duration::from_millis(1_050))).await;
    let request = batch_request(&server.stack, &["junk"; 100]);
    assert_eq!(
        reasons(&ask(&server, request).await.unwrap()),
        ["NOT_RECOGNISED"; 100]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn if_one_cannot_be_decided_none_is() {
    let server = TestServer::start().await;
    let (held, cold) = (server.token("held").await, server.token("cold").await);
    assert_eq!(server.verdict(&held.secret).await, "OK");
    let outside = server.outside().await;
    outside.corrupt().await;
    let mixed = batch_request(&server.stack, &[&held.secret, "junk", &cold.secret]);
    let status = ask(&server, mixed.clone()).await.unwrap_err();
    assert_eq!(
        refused(&status),
        (Code::Unavailable, "STORE_UNAVAILABLE".into())
    );
    assert!(details(&status).retry_info().is_some());
    let of_memory = batch_request(&server.stack, &[&held.secret, "junk"]);
    let answer = ask(&server, of_memory).await.unwrap();
    assert_eq!(reasons(&answer), ["OK", "NOT_RECOGNISED"]);
    outside.mend().await;
    let answer = ask(&server, mixed).await.unwrap();
    assert_eq!(reasons(&answer), ["OK", "NOT_RECOGNISED", "OK"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_revoke_the_next_batch_says_so() {
    let server = TestServer::start().await;
    let (doomed, live) = (server.token("doomed").await, server.token("live").await);
    let request = batch_request(&server.stack, &[&doomed.secret, &live.secret]);
    let before = ask(&server, request.clone()).await.unwrap();
    assert_eq!(reasons(&before), ["OK", "OK"]);
    server.revoke(&doomed.uid).await;
    let after = ask(&server, request).await.unwrap();
    assert_eq!(reasons(&after), ["REVOKED", "OK"]);
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
    assert_eq!(reasons(&answer), ["OK", "NOT_RECOGNISED"]);
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
