//! Tests that a secret is returned once and appears nowhere else (R9).

use std::collections::{BTreeMap, HashSet};

use prost::Message;
use stacktoken::grpc::pb::{admin::v1 as admin, audit::v1 as audit, v1};
use tonic::{Response, Status};

use crate::support::{
    ISSUER, TestServer,
    clients::fields,
    introspect_request, issue_request, never, person,
    requests::{
        batch_request, branches, get_request, list_request, modules, rename_request, results,
        revoke_request, set_expiry_request, update_request,
    },
};

fn holds(bytes: &[u8], secret: &str) -> bool {
    let found = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    found(secret.as_bytes())
}

async fn bytes<M: Message>(call: impl Future<Output = Result<Response<M>, Status>>) -> Vec<u8> {
    call.await.unwrap().into_inner().encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_in_the_answer_to_issue_and_nowhere_else() {
    let server = TestServer::start().await;
    let (stack, mut owner) = (&server.stack, server.owner().await);
    let issued = server.issue("deploy").await;
    let uid = issued.token.clone().unwrap().token_uid;
    let secret = issued.secret.clone();
    assert!(holds(&issued.encode_to_vec(), &secret));
    let mut other = issued.clone();
    other.secret.clear();
    assert!(
        !holds(&other.encode_to_vec(), &secret),
        "the secret is only in its own field"
    );
    assert!(
        !format!("{issued:?}").contains(&secret),
        "the debug output omits the secret"
    );
    let question = introspect_request(stack, &secret, &["entry.read"]);
    assert!(!format!("{question:?}").contains(&secret));
    let batch = batch_request(stack, &[&secret]);
    assert!(!format!("{batch:?}").contains(&secret));
    let mut service = server.service().await;
    let (tokens, audits) = (&mut owner.tokens, &mut owner.audit);
    let audited = audit::ListRequest {
        stack_api_key: stack.clone(),
        ..Default::default()
    };
    let answers = [
        bytes(tokens.get(get_request(stack, &uid))).await,
        bytes(tokens.list(list_request(stack))).await,
        bytes(tokens.update(rename_request(stack, &uid, "renamed"))).await,
        bytes(tokens.set_expiry(set_expiry_request(stack, &uid, never()))).await,
        bytes(service.introspection.introspect(question)).await,
        bytes(service.introspection.batch_introspect(batch)).await,
        bytes(tokens.revoke(revoke_request(stack, &uid, "done"))).await,
        bytes(audits.list(audited)).await,
        bytes(owner.stacks.get(admin::GetRequest {
            stack_api_key: stack.clone(),
        }))
        .await,
    ];
    for (at, answer) in answers.iter().enumerate() {
        assert!(answer.len() > 20 && !holds(answer, &secret), "answer {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_holds_no_secret_in_plain_text() {
    let server = TestServer::start().await;
    let mut secrets = Vec::new();
    for n in 0..5 {
        secrets.push(server.token(&format!("token {n}")).await.secret);
    }
    server.verdict(&secrets[0]).await;
    let mut files = 0;
    for entry in std::fs::read_dir(server.data_dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        for secret in &secrets {
            assert!(!holds(&bytes, secret));
            assert!(
                !holds(&bytes, &secret[..45]),
                "nor the secret without its checksum"
            );
        }
    }
    assert!(files >= 2, "there are at least a database and its journal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_issue_makes_another_secret() {
    let server = TestServer::start().await;
    server.set_limit(200).await;
    let mut secrets = HashSet::new();
    for n in 0..100 {
        assert!(secrets.insert(server.token(&format!("token {n}")).await.secret));
    }
}

/// Asserts that the call is refused because of this field, and that the error contains no part of
/// the secret.
fn assert_no_echo<T: std::fmt::Debug>(
    answered: Result<Response<T>, Status>,
    field: &str,
    secret: &str,
) {
    let status = answered.unwrap_err();
    assert_eq!(fields(&status), [field]);
    let part = &secret[5..];
    for said in [format!("{status:?}"), status.message().to_owned()] {
        assert!(
            !said.contains("stk1_") && !said.contains(part),
            "{field}: {said}"
        );
    }
    assert!(!holds(status.details(), part), "{field}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_field_of_a_token_that_holds_a_secret_is_refused_without_repeating_it() {
    let server = TestServer::start().await;
    let (stack, mut owner) = (&server.stack, server.owner().await);
    let token = server.token("deploy").await;
    let secret = token.secret.as_str();
    let said = format!("see {secret}, please");
    let good = || issue_request(stack, "another");
    let tokens = &mut owner.tokens;
    let request = v1::IssueRequest {
        description: said.clone(),
        ..good()
    };
    assert_no_echo(tokens.issue(request).await, "description", secret);
    let request = v1::IssueRequest {
        name: secret.into(),
        ..good()
    };
    assert_no_echo(tokens.issue(request).await, "name", secret);
    let request = v1::IssueRequest {
        stack_api_key: secret.into(),
        ..good()
    };
    assert_no_echo(tokens.issue(request).await, "stack_api_key", secret);
    for (key, value, field) in [(secret, "x", "labels"), ("key", secret, "labels[\"key\"]")] {
        let labels: BTreeMap<_, _> = [(key.to_owned(), value.to_owned())].into();
        let request = v1::IssueRequest {
            labels: labels.clone(),
            ..good()
        };
        assert_no_echo(tokens.issue(request).await, field, secret);
        let told = v1::Token {
            labels: labels.clone(),
            ..Default::default()
        };
        let request = update_request(stack, &token.uid, &["labels"], told);
        let of_token = format!("token.{field}");
        assert_no_echo(tokens.update(request).await, &of_token, secret);
        let request = v1::ListRequest {
            labels,
            ..list_request(stack)
        };
        assert_no_echo(tokens.list(request).await, field, secret);
    }
    let named = modules(v1::Access::Read, &[(secret, v1::Access::Read)]);
    let request = v1::IssueRequest {
        permissions: Some(named),
        ..good()
    };
    let field = "permissions.modules.grants[0].module";
    assert_no_echo(tokens.issue(request).await, field, secret);
    let named = branches(v1::Access::Read, &[secret], &[]);
    let request = v1::IssueRequest {
        permissions: Some(named),
        ..good()
    };
    assert_no_echo(
        tokens.issue(request).await,
        "permissions.branches.branches[0]",
        secret,
    );
    let expiry = crate::support::on_date(secret);
    let request = set_expiry_request(stack, &token.uid, expiry);
    assert_no_echo(tokens.set_expiry(request).await, "expiry.on_date", secret);
    let request = get_request(stack, secret);
    assert_no_echo(tokens.get(request).await, "token_uid", secret);
    let told = v1::Token {
        description: said.clone(),
        ..Default::default()
    };
    let request = update_request(stack, &token.uid, &["description"], told);
    assert_no_echo(tokens.update(request).await, "token.description", secret);
    let request = update_request(stack, &token.uid, &[secret], v1::Token::default());
    assert_no_echo(tokens.update(request).await, "update_mask.paths[0]", secret);
    let request = revoke_request(stack, &token.uid, &said);
    assert_no_echo(tokens.revoke(request).await, "reason", secret);
    let request = v1::ListRequest {
        name_contains: secret.into(),
        ..list_request(stack)
    };
    assert_no_echo(tokens.list(request).await, "name_contains", secret);
    let request = v1::ListRequest {
        name: secret.into(),
        ..list_request(stack)
    };
    assert_no_echo(tokens.list(request).await, "name", secret);
    for (subject, issuer, field) in [
        (secret, "https://login.test", "issued_by.subject"),
        ("ann", secret, "issued_by.issuer"),
    ] {
        let request = v1::ListRequest {
            issued_by: Some(v1::Actor {
                kind: 0,
                issuer: issuer.into(),
                subject: subject.into(),
            }),
            ..list_request(stack)
        };
        assert_no_echo(tokens.list(request).await, field, secret);
    }
    let request = v1::ListRequest {
        page_token: secret.into(),
        ..list_request(stack)
    };
    assert_no_echo(tokens.list(request).await, "page_token", secret);
    assert_eq!(server.limit().await.0, 1);
    assert_eq!(server.verdict(secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_holds_a_secret_in_the_wrong_place_is_refused_without_repeating_it() {
    let server = TestServer::start().await;
    let token = server
        .token_with("deploy", branches(v1::Access::Read, &["main"], &[]))
        .await;
    let secret = token.secret.as_str();
    let mut service = server.service().await;
    let question = |name: &str| v1::ActionQuestion {
        name: name.into(),
        ..Default::default()
    };
    for (question, field) in [
        (question(secret), "actions[0].name"),
        (
            v1::ActionQuestion {
                branch: secret.into(),
                ..question("entry.read")
            },
            "actions[0].branch",
        ),
        (
            v1::ActionQuestion {
                branch_alias: secret.into(),
                ..question("entry.read")
            },
            "actions[0].branch_alias",
        ),
        (
            v1::ActionQuestion {
                facts: [(secret.to_owned(), true)].into(),
                ..question("entry.read")
            },
            "actions[0].facts",
        ),
    ] {
        let mut batch = batch_request(&server.stack, &["junk", secret]);
        batch.questions[1].actions.push(question.clone());
        let answered = service.introspection.batch_introspect(batch).await.unwrap();
        let [Ok(_), Err(status)] = &results(answered.get_ref())[..] else {
            panic!("{answered:?}");
        };
        assert_no_echo(Err::<Response<()>, _>(status.clone()), field, secret);
        let request = v1::IntrospectRequest {
            actions: vec![question],
            ..introspect_request(&server.stack, secret, &[])
        };
        assert_no_echo(
            service.introspection.introspect(request).await,
            field,
            secret,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_field_of_a_stack_or_of_the_audit_is_refused_without_repeating_it_too() {
    let server = TestServer::start().await;
    let (stack, mut operator) = (&server.stack, server.operator().await);
    let token = server.token("deploy").await;
    let secret = token.secret.as_str();
    let good = || admin::RegisterRequest {
        name: "Another".into(),
        organization_uid: "org-1".into(),
        owner: Some(person("owner")),
        ..Default::default()
    };
    let stacks = &mut operator.stacks;
    let request = admin::RegisterRequest {
        name: secret.into(),
        ..good()
    };
    assert_no_echo(stacks.register(request).await, "name", secret);
    let request = admin::RegisterRequest {
        organization_uid: secret.into(),
        ..good()
    };
    assert_no_echo(stacks.register(request).await, "organization_uid", secret);
    for (person, field) in [
        (
            admin::Person {
                issuer: secret.into(),
                ..person("x")
            },
            "owner.issuer",
        ),
        (
            admin::Person {
                subject: secret.into(),
                ..person("x")
            },
            "owner.subject",
        ),
        (
            admin::Person {
                email: secret.into(),
                ..person("x")
            },
            "owner.email",
        ),
    ] {
        let request = admin::RegisterRequest {
            owner: Some(person),
            ..good()
        };
        assert_no_echo(stacks.register(request).await, field, secret);
    }
    let (stack_api_key, reason) = (stack.clone(), format!("because of {secret}"));
    let request = admin::SuspendRequest {
        stack_api_key,
        reason,
        validate_only: false,
    };
    assert_no_echo(stacks.suspend(request.clone()).await, "reason", secret);
    let admin::SuspendRequest {
        stack_api_key,
        reason,
        ..
    } = request.clone();
    let remove = admin::RemoveRequest {
        stack_api_key,
        reason,
        validate_only: false,
    };
    assert_no_echo(stacks.remove(remove).await, "reason", secret);
    let admin::SuspendRequest {
        stack_api_key,
        reason,
        ..
    } = request;
    let limit = admin::SetTokenLimitRequest {
        stack_api_key,
        max_tokens: Some(9),
        reason,
        validate_only: false,
    };
    assert_no_echo(stacks.set_token_limit(limit).await, "reason", secret);
    let none = audit::ListRequest::default;
    let actor = |issuer: &str, subject: &str| audit::ListRequest {
        actors: vec![audit::ActorFilter {
            issuer: issuer.into(),
            subject: subject.into(),
        }],
        ..none()
    };
    for (request, field) in [
        (actor(ISSUER, secret), "actors[0].subject"),
        (actor(secret, ""), "actors[0].issuer"),
        (
            audit::ListRequest {
                token_uids: vec![secret.into()],
                ..none()
            },
            "token_uids[0]",
        ),
        (
            audit::ListRequest {
                methods: vec![secret.into()],
                ..none()
            },
            "methods[0]",
        ),
        (
            audit::ListRequest {
                error_reasons: vec![secret.into()],
                ..none()
            },
            "error_reasons[0]",
        ),
        (
            audit::ListRequest {
                request_id: secret.into(),
                ..none()
            },
            "request_id",
        ),
        (
            audit::ListRequest {
                call_id: secret.into(),
                ..none()
            },
            "call_id",
        ),
    ] {
        assert_no_echo(operator.audit.list(request).await, field, secret);
    }
    assert_eq!(server.verdict(secret).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_id_that_is_a_secret_is_replaced() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    let mut request = tonic::Request::new(revoke_request(&server.stack, &token.uid, ""));
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", token.secret.parse().unwrap());
    let answer = server.owner().await.tokens.revoke(request).await.unwrap();
    assert!(answer.metadata().get("x-request-id").is_none());
    let events = server.audit().await;
    assert!(events.iter().all(|event| event.call_id != token.secret));
}

/// The document contains the test vectors for other implementations of the format.
#[test]
fn golden_vectors_are_published() {
    let manual = include_str!("../../docs/security.md");
    let rows = manual.lines().filter_map(|line| {
        let (secret, digest) = line
            .strip_prefix("| `")?
            .strip_suffix("` |")?
            .split_once("` | `")?;
        secret.starts_with("stk1_").then_some((secret, digest))
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    for (secret, digest) in rows {
        let recognized = stacktoken::domain::secret::recognize(secret).unwrap();
        let hex = recognized.as_bytes().iter();
        let hex: String = hex.map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, digest, "{secret}");
    }
}
