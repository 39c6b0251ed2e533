//! Tests fields at the limits of their values. The same scripts run on PostgreSQL in
//! `tests/replicas/edges.rs`.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};
use tonic::Code;

use crate::{
    coverage::table::{Fixture, TABLE, metadata_of, right_caller},
    support::{
        TestServer,
        clients::fields,
        edges::{self, Callers},
        raw::{Metadata, call, methods, outcome, path_of},
    },
};

async fn callers(server: &TestServer) -> Callers {
    Callers {
        owner: server.owner().await,
        operator: server.operator().await,
        stacks: [server.stack.clone(), server.register("Another").await],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_of_anything_else_is_refused_and_a_forged_one_is_no_fault() {
    let server = TestServer::start().await;
    edges::page_tokens(callers(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impossible_person_is_refused_in_every_field() {
    let server = TestServer::start().await;
    edges::identities(callers(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_look_the_same_are_the_same_and_those_that_do_not_show_are_refused() {
    let server = TestServer::start().await;
    edges::names(callers(&server).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_registrations_of_one_key_at_once_one_succeeds() {
    let server = TestServer::start().await;
    let operators = [server.operator().await, server.operator().await];
    edges::registrations(&operators).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_subject_is_refused_and_the_longest_one_is_accepted() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let path = "/stacktoken.v1.TokenService/ListStacks";
    let (bad, longest) = edges::subjects();
    let refused = (Code::Unauthenticated, "CREDENTIAL_INVALID".to_owned());
    for subject in bad {
        let claims = edges::claims_of(&subject, server.clock.seconds());
        let sent = Metadata::bearer(&server.issuer.sign(&claims));
        let answered = call(&channel, path, sent, Vec::new()).await;
        assert_eq!(
            outcome(&answered),
            refused,
            "{} characters",
            subject.chars().count()
        );
    }
    let claims = edges::claims_of(&longest, server.clock.seconds());
    let sent = Metadata::bearer(&server.issuer.sign(&claims));
    let answered = call(&channel, path, sent, Vec::new()).await;
    assert_eq!(outcome(&answered), (Code::Ok, String::new()));
}

const DURATION: &str = "google.protobuf.Duration";
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// Returns the paths of all durations and timestamps in a message. The timestamps of a token are
/// left out, because the server ignores them in requests.
fn times_in(message: &MessageDescriptor, path: &str) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for field in message.fields() {
        let Kind::Message(inner) = field.kind() else {
            continue;
        };
        let path = format!("{path}{}", field.name());
        match inner.full_name() {
            DURATION => found.push((path, DURATION)),
            TIMESTAMP => found.push((path, TIMESTAMP)),
            "stacktoken.v1.Token" => {}
            _ => found.extend(times_in(&inner, &format!("{path}."))),
        }
    }
    found
}

/// Sets the field at a path, and creates the messages along the path.
fn set(message: &mut DynamicMessage, path: &str, (seconds, nanos): (i64, i32)) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let field = message.descriptor().get_field_by_name(name).unwrap();
    let Value::Message(inner) = message.get_field_mut(&field) else {
        panic!("{path} is not a message");
    };
    match rest {
        Some(rest) => set(inner, rest, (seconds, nanos)),
        None => {
            inner.set_field_by_name("seconds", Value::I64(seconds));
            inner.set_field_by_name("nanos", Value::I32(nanos));
        }
    }
}

/// Returns pairs of seconds and nanoseconds that are invalid for this type.
fn ill_formed(kind: &str) -> Vec<(i64, i32)> {
    let mut pairs = vec![
        (0, -1),
        (0, 1_000_000_000),
        (1, i32::MIN),
        (1, i32::MAX),
        (i64::MAX, i32::MAX),
        (i64::MIN, i32::MIN),
    ];
    pairs.extend(match kind {
        DURATION => [
            (1, -1),
            (-1, 1),
            (315_576_000_001, 0),
            (-315_576_000_001, 0),
        ],
        _ => [
            (253_402_300_800, 0),
            (-62_135_596_801, 0),
            (i64::MAX, 0),
            (i64::MIN, 0),
        ],
    });
    pairs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ill_formed_duration_or_timestamp_is_named_wherever_it_occurs() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let world = Fixture::new(&server).await;
    let mut tried = Vec::new();
    for method in methods() {
        let path = path_of(&method);
        let row = TABLE.iter().find(|row| row.path == path).unwrap();
        for (field, kind) in times_in(&method.input(), "") {
            for pair in ill_formed(kind) {
                let request = (row.request)(&world);
                let request = DynamicMessage::decode(method.input(), request.as_slice());
                let mut request = request.unwrap();
                set(&mut request, &field, pair);
                let sent = metadata_of(&server, right_caller(row.whom));
                let message = prost::Message::encode_to_vec(&request);
                let answered = call(&channel, row.path, sent, message).await;
                let what = format!("{path} {field} {pair:?}");
                let invalid = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
                assert_eq!(outcome(&answered), invalid, "{what}");
                let named = fields(&answered.unwrap_err());
                assert!(named.contains(&field), "{what}: {named:?}");
            }
            tried.push(field);
        }
    }
    for known in [
        "expiry.at",
        "expiry.after",
        "overlap.overlap_for",
        "overlap.at_most",
    ] {
        assert!(
            tried.iter().any(|field| field == known),
            "{known}: {tried:?}"
        );
    }
    assert!(tried.len() >= 12, "{tried:?}");
}
