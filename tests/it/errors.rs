//! Tests the structured data of errors: the metadata of `ErrorInfo`, and retry delays.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::DescriptorPool;
use stacktoken::{
    domain::{
        etag::Etag,
        federation::Obstacle,
        field::Violations,
        id::{StackUid, TokenUid},
        refusal::{CallerRequired, Refusal, RoleRequired},
        stack::{Role, TokenLimit},
    },
    grpc::{DESCRIPTORS, status},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    TestServer,
    clients::reason,
    issue_request,
    requests::{list_request, rename_request},
};

fn uid<K: newtype_uuid::TypedUuidKind>() -> newtype_uuid::TypedUuid<K> {
    newtype_uuid::GenericUuid::from_untyped_uuid(uuid::Uuid::nil())
}

/// Returns every refusal with all its optional data set.
fn every_refusal() -> Vec<Refusal> {
    let (token_uid, stack_uid): (TokenUid, StackUid) = (uid(), uid());
    vec![
        Refusal::RoleRequired(RoleRequired {
            roles: vec![Role::Owner, Role::Admin],
            callers: vec![CallerRequired::Operator, CallerRequired::Service],
            role: Some(Role::Developer),
        }),
        Refusal::StackNotFound,
        Refusal::TokenNotFound,
        Refusal::NameTaken { token_uid },
        Refusal::RequestIdReused { token_uid },
        Refusal::Invalid(Violations::default()),
        Refusal::StackKeyTaken {
            stack_uid,
            removed: true,
        },
        Refusal::LimitReached {
            limit: TokenLimit { used: 1, max: 1 },
            candidates: Vec::new(),
        },
        Refusal::TokenRevoked,
        Refusal::TokenExpired,
        Refusal::StackSuspended,
        Refusal::OwnerRequired,
        Refusal::PreviewChanged { count: 1 },
        Refusal::EtagMismatch {
            etag: Etag::of(&["a token"]),
        },
        Refusal::TokenFederated,
        Refusal::ExchangeRefused(Obstacle::RuleNotMatched),
        Refusal::SessionLimit { max: 1 },
        Refusal::RateLimited { retry_after_ms: 1 },
    ]
}

/// Returns the comment of each error reason in the contract.
fn comments() -> BTreeMap<String, String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let reasons = pool.get_enum_by_name("stacktoken.v1.ErrorReason").unwrap();
    let file = reasons.parent_file();
    let places = &file.file_descriptor_proto().source_code_info;
    let places = &places.as_ref().unwrap().location;
    let comment = |value: prost_reflect::EnumValueDescriptor| {
        let place = places.iter().find(|place| place.path == value.path());
        let reason = value.name().trim_start_matches("ERROR_REASON_").to_owned();
        let words = place.unwrap().leading_comments().split_whitespace();
        (reason, words.collect::<Vec<_>>().join(" "))
    };
    reasons.values().map(comment).collect()
}

/// Returns the metadata keys that a comment documents: the backquoted words after `Metadata`.
fn documented(comment: &str) -> BTreeSet<String> {
    let Some((_, metadata)) = comment.split_once("Metadata") else {
        return BTreeSet::new();
    };
    let quoted = metadata.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn the_metadata_of_each_reason_is_what_its_comment_documents() {
    let comments = comments();
    let mut sent = BTreeMap::<String, BTreeSet<String>>::new();
    for refusal in every_refusal() {
        let status = status::of(refusal, "id");
        let info = status.get_details_error_info().unwrap();
        for (key, value) in &info.metadata {
            assert!(!value.is_empty(), "{}: {key} is empty", info.reason);
            let snake = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(key.bytes().all(snake), "{}: {key}", info.reason);
        }
        let keys = sent.entry(info.reason).or_default();
        keys.extend(info.metadata.into_keys());
    }
    for (reason, comment) in &comments {
        let sent = sent.remove(reason).unwrap_or_default();
        assert_eq!(sent, documented(comment), "{reason}");
    }
    assert!(sent.is_empty(), "not in the contract: {sent:?}");
}

fn metadata(status: &Status) -> BTreeMap<String, String> {
    let info = status.get_details_error_info().unwrap();
    info.metadata.into_iter().collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_name_names_the_token_that_has_it() {
    let server = TestServer::start().await;
    let holder = server.token("deploy").await;
    let other = server.token("other").await;
    let mut owner = server.owner().await;
    let named = pairs(&[("token_uid", &holder.uid)]);
    let issue = owner.tokens.issue(issue_request(&server.stack, "deploy"));
    let status = issue.await.unwrap_err();
    assert_eq!(
        (reason(&status).as_str(), metadata(&status)),
        ("NAME_TAKEN", named.clone())
    );
    let rename = rename_request(&server.stack, &other.uid, "deploy");
    let status = owner.tokens.update(rename).await.unwrap_err();
    assert_eq!(
        (reason(&status).as_str(), metadata(&status)),
        ("NAME_TAKEN", named)
    );
    // A caller that may not see the token does not learn its id.
    let mut developer = server.developer().await;
    let issue = developer
        .tokens
        .issue(issue_request(&server.stack, "deploy"));
    let status = issue.await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_REQUIRED");
    assert!(!metadata(&status).contains_key("token_uid"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_role_is_in_the_error_details() {
    let server = TestServer::start().await;
    let governors = ("required_roles", "OWNER,ADMIN");
    let mut developer = server.developer().await;
    let issue = developer.tokens.issue(issue_request(&server.stack, "x"));
    let status = issue.await.unwrap_err();
    assert_eq!(
        metadata(&status),
        pairs(&[governors, ("role", "DEVELOPER")])
    );
    let list = developer.tokens.list(list_request(&server.stack));
    let status = list.await.unwrap_err();
    let operator = ("required_callers", "OPERATOR");
    assert_eq!(
        metadata(&status),
        pairs(&[governors, operator, ("role", "DEVELOPER")])
    );
    // A service has no role in a stack, so the server does not load any.
    let mut service = server.service().await;
    let issue = service.tokens.issue(issue_request(&server.stack, "x"));
    let status = issue.await.unwrap_err();
    assert_eq!(metadata(&status), pairs(&[governors]));
    let mut owner = server.owner().await;
    let question = crate::support::introspect_request(&server.stack, "junk", &[]);
    let status = owner.introspection.introspect(question).await.unwrap_err();
    let introspector = ("required_callers", "INTROSPECTOR");
    assert_eq!(metadata(&status), pairs(&[introspector]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_key_names_the_stack_that_has_it() {
    let server = TestServer::start().await;
    let mut operator = server.operator().await;
    let get = stacktoken::grpc::pb::admin::v1::GetRequest {
        stack_api_key: server.stack.clone(),
    };
    let stack = operator.stacks.get(get).await.unwrap().into_inner().stack;
    let register = stacktoken::grpc::pb::admin::v1::RegisterRequest {
        stack_api_key: server.stack.clone(),
        name: "Another".into(),
        organization_uid: "org-1".into(),
        owner: Some(crate::support::person("owner")),
        ..Default::default()
    };
    let status = operator.stacks.register(register).await.unwrap_err();
    let stack_uid = stack.unwrap().stack_uid;
    let expected = pairs(&[("stack_uid", &stack_uid), ("removed", "false")]);
    assert_eq!(
        (reason(&status).as_str(), metadata(&status)),
        ("STACK_KEY_TAKEN", expected)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_delay_is_also_sent_as_grpc_pushback() {
    let server = TestServer::start_with(|tuning| {
        tuning.changes_per_second = 1.try_into().unwrap();
        tuning.changes_burst = 5.try_into().unwrap();
    })
    .await;
    let mut owner = server.owner().await;
    let mut refused = None;
    for at in 0..40 {
        let issue = owner
            .tokens
            .issue(issue_request(&server.stack, &format!("{at}")));
        if let Err(status) = issue.await
            && reason(&status) == "RATE_LIMITED"
        {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("a limit of one change a second is reached");
    let delay = status
        .get_details_retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback.to_str().unwrap(), delay.as_millis().to_string());
    let mut anonymous = server.anonymous().await;
    let missing = anonymous.tokens.list(list_request(&server.stack));
    let status = missing.await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_none());
}
