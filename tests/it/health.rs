//! Tests the health protocol, which needs no credentials. A service is reported as serving exactly
//! when it can serve.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, Value};
use stacktoken::auth::{self, Authenticator, HttpFetcher};
use tempfile::TempDir;
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus::{self, NotServing, ServiceUnknown, Serving},
    health_client::HealthClient,
};

use crate::{
    reflection,
    support::{
        ManualClock, TestIssuer, TestServer, clients::details, database::eventually,
        issuer::ISSUERS_FILE, raw, reason,
    },
};

const OVERALL: &str = "";
const INTROSPECTION: &str = "stacktoken.v1.IntrospectionService";
const TOKEN: &str = "stacktoken.v1.TokenService";
const NAMES: [&str; 3] = [OVERALL, INTROSPECTION, TOKEN];

/// The services that write. They have the status of TokenService; all other services have the
/// status of IntrospectionService.
const WRITING: [&str; 4] = [
    TOKEN,
    "stacktoken.v1.LeakService",
    "stacktoken.v1.ExchangeService",
    "stacktoken.admin.v1.StackService",
];

/// Returns every service of the contract, Envoy's service, and the process as a whole.
fn all_names() -> Vec<String> {
    let services = raw::services();
    let ours = services
        .iter()
        .map(|service| service.full_name().to_owned());
    let besides = [OVERALL, "envoy.service.auth.v3.Authorization"];
    ours.chain(besides.map(str::to_owned)).collect()
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

async fn check(server: &TestServer, service: &str) -> Result<ServingStatus, tonic::Status> {
    let mut client = HealthClient::new(server.channel().await);
    let answered = client.check(about(service)).await?;
    Ok(answered.into_inner().status())
}

async fn watch(server: &TestServer, service: &str) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(server.channel().await);
    let mut request = tonic::Request::new(about(service));
    let id = "the-watch".parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);
    client.watch(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let patience = Duration::from_secs(20);
    let told = tokio::time::timeout(patience, stream.message()).await;
    told.expect("no change of the health status")
        .unwrap()
        .unwrap()
        .status()
}

/// Starts a server with separate key files for users and for services, which do not exist yet.
/// Returns the server and the keys to put into the files.
async fn without_keys() -> (TestServer, String) {
    let data_dir = Arc::new(TempDir::new().unwrap());
    let clock = ManualClock::new();
    let issuer = TestIssuer::new();
    let jwks = issuer.jwks();
    let kinds = ["operators.json", "services.json"].into_iter();
    let mut kinds = kinds.chain(std::iter::repeat("users.json"));
    let parts = ISSUERS_FILE.split("jwks.json");
    let file: String = parts
        .flat_map(|part| [part, kinds.next().unwrap_or_default()])
        .collect();
    let file = file.strip_suffix("users.json").unwrap().to_owned();
    let entries = auth::parse(&file, data_dir.path()).unwrap();
    let fetcher = Arc::new(HttpFetcher::default());
    let known = Authenticator::new(entries, fetcher, clock.clone(), auth::DEFAULT_MAX_STALE);
    let (server, _) = TestServer::launch(data_dir, clock, |_| {}, (issuer, known)).await;
    (server, jwks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_is_serving_once_the_server_is() {
    let server = TestServer::start().await;
    for name in all_names() {
        assert_eq!(check(&server, &name).await.unwrap(), Serving, "{name:?}");
        assert_eq!(next(&mut watch(&server, &name).await).await, Serving);
    }
}

/// Calls `List` with the descriptors that reflection serves, as grpcurl does. Returns the statuses.
async fn listed(server: &TestServer) -> BTreeMap<String, String> {
    let files = reflection::v1::files_of(server, "grpc.health.v1.Health").await;
    let mut pool = DescriptorPool::new();
    for file in files.unwrap() {
        pool.decode_file_descriptor_proto(file.as_slice()).unwrap();
    }
    let health = pool.get_service_by_name("grpc.health.v1.Health").unwrap();
    let list = health.methods().find(|method| method.name() == "List");
    let list = list.expect("reflection does not list List");
    let path = raw::path_of(&list);
    let channel = server.channel().await;
    let answer = raw::call(&channel, &path, raw::Metadata::nothing(), Vec::new()).await;
    let answer = DynamicMessage::decode(list.output(), answer.unwrap().as_slice()).unwrap();
    let statuses = answer.get_field_by_name("statuses").unwrap();
    let statuses = statuses.as_map().unwrap().iter();
    let status = |(name, health): (&MapKey, &Value)| {
        let health = health.as_message().unwrap();
        let status = health.get_field_by_name("status").unwrap();
        let status = ServingStatus::try_from(status.as_enum_number().unwrap()).unwrap();
        (
            name.as_str().unwrap().to_owned(),
            status.as_str_name().to_owned(),
        )
    };
    statuses.map(status).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_answers_the_health_of_every_name_as_reflection_describes_it() {
    let server = TestServer::start().await;
    let all = |status: &str| -> BTreeMap<_, _> {
        let names = all_names().into_iter();
        names.map(|name| (name, status.to_owned())).collect()
    };
    assert_eq!(listed(&server).await, all("SERVING"));
    let (unready, jwks) = without_keys().await;
    assert_eq!(listed(&unready).await, all("NOT_SERVING"));
    fs::write(unready.data_dir.path().join("services.json"), &jwks).unwrap();
    unready.clock.advance(Duration::from_secs(60));
    let mut some = all("SERVING");
    for name in WRITING {
        some.insert(name.to_owned(), "NOT_SERVING".to_owned());
    }
    eventually("services have keys", async || {
        (listed(&unready).await == some).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_serves_from_when_its_callers_can_be_known_until_they_cannot() {
    let (server, jwks) = without_keys().await;
    let folder = server.data_dir.path();
    let mut watched = Vec::new();
    for name in NAMES {
        assert_eq!(check(&server, name).await.unwrap(), NotServing, "{name:?}");
        let mut stream = watch(&server, name).await;
        assert_eq!(next(&mut stream).await, NotServing);
        watched.push(stream);
    }
    let [overall, introspection, token] = watched.as_mut_slice() else {
        panic!("three names");
    };
    let later = || server.clock.advance(Duration::from_secs(60));

    fs::write(folder.join("services.json"), &jwks).unwrap();
    later();
    assert_eq!(next(introspection).await, Serving);
    assert_eq!(next(overall).await, Serving);
    assert_eq!(check(&server, TOKEN).await.unwrap(), NotServing);

    fs::write(folder.join("users.json"), &jwks).unwrap();
    later();
    assert_eq!(next(token).await, Serving);

    // Keys that were not refreshed for a day are no longer used.
    fs::remove_file(folder.join("services.json")).unwrap();
    server.clock.advance(Duration::from_hours(25));
    assert_eq!(next(introspection).await, NotServing);
    assert_eq!(next(overall).await, NotServing);
    fs::write(folder.join("services.json"), &jwks).unwrap();
    later();
    assert_eq!(next(introspection).await, Serving);
    assert_eq!(next(overall).await, Serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_keys_are_unavailable_a_call_is_unavailable_and_not_unauthenticated() {
    let (server, _) = without_keys().await;
    let request = crate::support::introspect_request("blt00c0ffee00c0ffee", "stk1_", &[]);
    let mut service = server.service().await;
    let status = service.introspection.introspect(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "KEYS_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_writes_fail_tokens_cannot_be_changed_and_questions_are_answered() {
    let server = TestServer::start().await;
    let token = server.token("deploy").await;
    assert_eq!(server.verdict(&token.secret).await, "OK");
    let mut tokens = watch(&server, TOKEN).await;
    assert_eq!(next(&mut tokens).await, Serving);
    let outside = server.outside().await;
    for table in ["meta", "tokens", "audit_events"] {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            outside
                .run(&format!(
                    "CREATE TRIGGER no_{event}_{table} BEFORE {event} ON {table} \
                     BEGIN SELECT RAISE(ABORT, 'writes fail'); END"
                ))
                .await;
        }
    }
    assert_eq!(next(&mut tokens).await, NotServing);
    for name in all_names() {
        let writes = WRITING.contains(&name.as_str());
        let expected = if writes { NotServing } else { Serving };
        assert_eq!(check(&server, &name).await.unwrap(), expected, "{name:?}");
    }
    assert_eq!(server.verdict(&token.secret).await, "OK");
    for table in ["meta", "tokens", "audit_events"] {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            outside
                .run(&format!("DROP TRIGGER no_{event}_{table}"))
                .await;
        }
    }
    assert_eq!(next(&mut tokens).await, Serving);
    server.revoke(&token.uid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_does_not_find_a_name_that_is_no_service() {
    let server = TestServer::start().await;
    for name in [
        "stacktoken.v1",
        "stacktoken.v1.tokenservice",
        " ",
        "nothing",
    ] {
        let status = check(&server, name).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{name:?}");
        assert!(status.message().contains(TOKEN), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_of_a_name_that_is_no_service_says_so_and_stays_open() {
    let server = TestServer::start().await;
    let mut stream = watch(&server, "nothing").await;
    assert_eq!(next(&mut stream).await, ServiceUnknown);
    let silence = Duration::from_millis(100);
    let more = tokio::time::timeout(silence, stream.message()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_watcher_sees_not_serving_before_the_stream_ends() {
    let server = TestServer::start_with(|tuning| {
        tuning.drain_delay = Some(Duration::from_millis(200));
    })
    .await;
    let mut streams = Vec::new();
    for name in NAMES {
        let mut stream = watch(&server, name).await;
        assert_eq!(next(&mut stream).await, Serving);
        streams.push(stream);
    }
    let stopping = tokio::spawn(server.stop());
    for mut stream in streams {
        assert_eq!(next(&mut stream).await, NotServing);
        let status = stream.message().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(reason(&status), "DRAINING");
        let request = details(&status).request_info().cloned();
        assert_eq!(request.unwrap().request_id, "the-watch");
    }
    stopping.await.unwrap().unwrap();
}
