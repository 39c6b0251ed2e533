//! Tests traces as a real collector receives them. They have exactly the attributes that the
//! operator's page lists, the caller's trace as parent, and no data of the request. Log lines
//! contain the trace ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rustix::process::Signal;
use serde_json::Value;
use stacktoken::grpc::pb::v1;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    collector::{Collector, Span},
    program::{Dev, folder, run, text},
    support::{
        introspect_request, issue_request,
        raw::{self, Metadata},
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const INTROSPECT: &str = "stacktoken.v1.IntrospectionService/Introspect";
const ISSUE: &str = "stacktoken.v1.TokenService/Issue";

fn traced<T>(message: T, traceparent: &str, tracestate: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", traceparent.parse().unwrap());
    metadata.insert("tracestate", tracestate.parse().unwrap());
    request
}

/// Returns what identifies a span: its name, kind, status and every attribute.
fn seen(span: &Span) -> (String, String) {
    let attributes: Vec<_> = span
        .attributes
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let kind = span.kind.trim_start_matches("SPAN_KIND_");
    let status = span.status.trim_start_matches("STATUS_CODE_");
    (
        format!("{} {kind} {status}", span.name),
        attributes.join(" "),
    )
}

fn server(name: &str, status: &str, told: &str, error: &str) -> (String, String) {
    let method = if name == "grpc" { "_OTHER" } else { name };
    let error = if error.is_empty() {
        String::new()
    } else {
        format!("error.type=Str({error}) ")
    };
    (
        format!("{name} SERVER {status}"),
        format!(
            "{error}rpc.method=Str({method}) rpc.response.status_code=Str({told}) rpc.system.name=Str(grpc)"
        ),
    )
}

fn store(operation: &str) -> (String, String) {
    (
        format!("{operation} CLIENT UNSET"),
        format!("db.operation.name=Str({operation}) db.system.name=Str(sqlite)"),
    )
}

/// Makes calls. Returns the secret that they used, and the spans that the collector must receive.
async fn drive(dev: &Dev) -> (String, Vec<(String, String)>) {
    let stack = dev.get("stack_api_key").to_owned();
    let mut owner = dev.client("owner_jwt").await;
    let mut service = dev.client("service_jwt").await;
    let issued = owner.tokens.issue(issue_request(&stack, "traced")).await;
    let secret = issued.unwrap().into_inner().secret;
    let ask = || introspect_request(&stack, &secret, &["entry.update"]);
    let client = &mut service.introspection;
    // The first call misses the cache, the second one hits it.
    client.introspect(ask()).await.unwrap();
    client.introspect(ask()).await.unwrap();
    let refused = dev
        .client("stranger_jwt")
        .await
        .tokens
        .issue(issue_request(&stack, "x"))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    let jwt = Metadata::bearer(dev.get("owner_jwt"));
    let unknown = format!("/stacktoken.v1.TokenService/{secret}");
    let unknown = raw::call(&dev.channel().await, &unknown, jwt, vec![]).await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    // These calls have trace contexts: one to continue, one that is not sampled, and invalid ones.
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    client
        .introspect(traced(ask(), &sampled, "vendor=opaque"))
        .await
        .unwrap();
    let listed = v1::ListActionsRequest {};
    let leaking = format!("vendor={secret}");
    service
        .actions
        .list_actions(traced(listed, &sampled, &leaking))
        .await
        .unwrap();
    let unsampled = "00-11111111111111111111111111111111-b7ad6b7169203331-00";
    client
        .introspect(traced(ask(), unsampled, "v=1"))
        .await
        .unwrap();
    for malformed in [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "ff-22222222222222222222222222222222-b7ad6b7169203331-01",
        "22222222222222222222222222222222",
    ] {
        client
            .introspect(traced(ask(), malformed, "v=1"))
            .await
            .unwrap();
    }
    let mut health = HealthClient::new(dev.channel().await);
    health.check(HealthCheckRequest::default()).await.unwrap();
    let hit = || server(INTROSPECT, "UNSET", "OK", "");
    let list = "stacktoken.v1.ActionService/ListActions";
    let expected = vec![
        server(ISSUE, "UNSET", "OK", ""),
        store("issue"),
        hit(),
        // The first use of a secret is looked up, recorded, and looked up again.
        store("look_up"),
        store("record_first_use"),
        store("look_up"),
        hit(),
        server(ISSUE, "UNSET", "NOT_FOUND", "STACK_NOT_FOUND"),
        store("issue"),
        server("grpc", "ERROR", "UNIMPLEMENTED", "RPC_UNKNOWN"),
        hit(),
        server(list, "UNSET", "OK", ""),
        hit(),
        hit(),
        hit(),
    ];
    (secret, expected)
}

/// Returns the trace ids in the log lines about calls.
fn joined(folder: &Path) -> BTreeSet<String> {
    let log = fs::read_to_string(folder.join("stderr")).unwrap();
    let lines = log.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let calls = lines.filter(|line| line["fields"]["message"] == "call");
    calls
        .map(|line| line["trace_id"].as_str().unwrap_or("none").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_receives_exactly_the_documented_spans() {
    let Some(collector) = Collector::start() else {
        return;
    };
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command
            .args(["--otlp-endpoint", &collector.endpoint])
            .args(["--trace-sample-ratio", "1"])
            .args(["--log", "stacktoken=debug", "--log-format", "json"]);
    });
    let (secret, mut expected) = drive(&dev).await;
    // The program sends the remaining spans before it ends.
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    let spans = collector.await_spans(expected.len());
    let mut found: Vec<_> = spans.iter().map(seen).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    let of_client: Vec<_> = spans.iter().filter(|span| span.trace_id == TRACE).collect();
    assert_eq!(of_client.len(), 2);
    assert!(of_client.iter().all(|span| span.parent_id == PARENT));
    let states: BTreeSet<_> = of_client.iter().map(|span| span.state.as_str()).collect();
    assert_eq!(states, BTreeSet::from(["", "vendor=opaque"]));
    let by_id: BTreeMap<_, _> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(by_id.len(), spans.len());
    for span in &spans {
        assert_eq!(span.trace_id.len(), 32);
        let parent = by_id.get(span.parent_id.as_str());
        match span.kind.as_str() {
            "SPAN_KIND_CLIENT" => assert_eq!(parent.unwrap().trace_id, span.trace_id),
            _ => assert!(span.parent_id.is_empty() || span.trace_id == TRACE),
        }
        let resource: Vec<_> = span.resource.keys().map(String::as_str).collect();
        assert_eq!(
            resource,
            ["service.instance.id", "service.name", "service.version"]
        );
        assert_eq!(span.resource["service.name"], "Str(stacktoken)");
    }

    let told = collector.text();
    let subjects = ["owner@", "stk1_", &secret[5..20], dev.get("stack_api_key")];
    for private in subjects.into_iter().chain([dev.get("owner_jwt")]) {
        assert!(!told.contains(private), "{private}: {told}");
    }
    assert!(!told.contains("11111111111111111111111111111111"));
    assert!(!told.contains("22222222222222222222222222222222"));

    let traces: BTreeSet<_> = spans.iter().map(|span| span.trace_id.clone()).collect();
    let lines = joined(folder.path());
    assert!(traces.is_subset(&lines), "{traces:?} {lines:?}");
    // This trace was not sampled, but its id is logged nevertheless.
    assert!(lines.contains("11111111111111111111111111111111"));
    assert!(!lines.contains("none"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_variables_of_opentelemetry_configure_traces_too() {
    let Some(collector) = Collector::start() else {
        return;
    };
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint)
            .env("OTEL_TRACES_SAMPLER", "always_on")
            .env("OTEL_SERVICE_NAME", "tokens-of-the-cms")
            .env(
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=staging",
            );
    });
    let mut service = dev.client("service_jwt").await;
    let list = v1::ListActionsRequest {};
    service.actions.list_actions(list).await.unwrap();
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    let spans = collector.await_spans(1);
    let resource = &spans[0].resource;
    assert_eq!(resource["service.name"], "Str(tokens-of-the-cms)");
    assert_eq!(resource["deployment.environment.name"], "Str(staging)");
    assert!(resource.contains_key("service.instance.id"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ratio_decides_where_the_caller_does_not() {
    let Some(collector) = Collector::start() else {
        return;
    };
    let folder = folder();
    let mut dev = Dev::start_with(folder.path(), |command| {
        command
            .args(["--otlp-endpoint", &collector.endpoint])
            .args(["--trace-sample-ratio", "0.2"])
            // Spans are sent whatever the log level is.
            .args(["--log", "off"]);
    });
    let mut service = dev.client("service_jwt").await;
    let client = &mut service.actions;
    for _ in 0..1000 {
        let list = v1::ListActionsRequest {};
        client.list_actions(list).await.unwrap();
    }
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    for _ in 0..10 {
        let list = v1::ListActionsRequest {};
        client
            .list_actions(traced(list, &sampled, "v=1"))
            .await
            .unwrap();
    }
    dev.signal(Signal::TERM);
    assert!(dev.child.wait().unwrap().success());
    let spans = collector.await_spans(110);
    let (theirs, drawn): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.trace_id == TRACE);
    assert_eq!(theirs.len(), 10);
    // The limits are eight standard deviations away from the expected number.
    assert!((100..=300).contains(&drawn.len()), "{}", drawn.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_line_names_the_callers_trace_also_where_none_are_made() {
    for format in ["text", "json"] {
        let folder = folder();
        let mut dev = Dev::start_with(folder.path(), |command| {
            command.args(["--log", "stacktoken=debug", "--log-format", format]);
        });
        let mut service = dev.client("service_jwt").await;
        let sampled = format!("00-{TRACE}-{PARENT}-01");
        let list = v1::ListActionsRequest {};
        let client = &mut service.actions;
        client
            .list_actions(traced(list, &sampled, "v=1"))
            .await
            .unwrap();
        let list = v1::ListActionsRequest {};
        client.list_actions(list).await.unwrap();
        // Log lines are written asynchronously, so the program is stopped first, which writes the
        // rest.
        dev.signal(Signal::TERM);
        assert!(dev.child.wait().unwrap().success());
        let log = fs::read_to_string(folder.path().join("stderr")).unwrap();
        let calls: Vec<_> = log
            .lines()
            .filter(|line| line.contains("ListActions"))
            .collect();
        assert_eq!(calls.len(), 2, "{log}");
        let named = if format == "json" {
            format!(r#","trace_id":"{TRACE}"}}"#)
        } else {
            format!(" trace_id={TRACE}")
        };
        assert!(calls[0].ends_with(&named), "{}", calls[0]);
        if format == "json" {
            let line: Value = serde_json::from_str(calls[0]).unwrap();
            assert_eq!(line["trace_id"], TRACE);
        }
        assert!(!calls[1].contains("trace_id"), "{}", calls[1]);
    }
}

#[test]
fn a_bad_setting_of_traces_stops_the_start_and_is_named() {
    let folder = folder();
    let data = folder.path().display().to_string();
    for bad in [
        "collector:4317",
        "ftp://collector",
        "http://",
        "http://u:hunter2@collector:4317",
        "http://collector/v1/traces",
        "not a url",
        "",
    ] {
        let refused = run(&["dev", "--data-dir", &data, "--otlp-endpoint", bad]);
        let told = text(&refused.stderr);
        assert_eq!(
            (refused.status.code(), told.lines().count()),
            (Some(2), 1),
            "{told}"
        );
        assert!(told.contains("--otlp-endpoint"), "{told}");
        assert!(told.contains("http://HOST:PORT"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    for bad in ["1.5", "-0.1", "NaN", "often"] {
        let bad = format!("--trace-sample-ratio={bad}");
        let refused = run(&["dev", "--data-dir", &data, &bad]);
        let told = text(&refused.stderr);
        assert_eq!(
            (refused.status.code(), told.lines().count()),
            (Some(2), 1),
            "{told}"
        );
        assert!(told.contains("--trace-sample-ratio"), "{told}");
        assert!(told.contains("STACKTOKEN_TRACE_SAMPLE_RATIO"), "{told}");
        assert!(told.contains("from 0 to 1"), "{told}");
    }
}
