//! Tests that a request through Envoy, the program and its store is one trace at a real collector.

use crate::{
    collector::{Collector, Span},
    envoy::{Envoy, Upstreams, binary},
    fixture::MeshFixture,
    program::{Dev, folder},
    support::issue_request,
    upstream::Upstream,
};

const README: &str = include_str!("../../README.md");

/// Draws the spans of a trace as a tree: each span is indented below its parent.
fn picture(spans: &[Span], parent: &str, depth: usize) -> String {
    let mut out = String::new();
    for span in spans.iter().filter(|span| span.parent_id == parent) {
        let service = &span.resource["service.name"];
        let service = service.trim_start_matches("Str(").trim_end_matches(')');
        let kind = span.kind.trim_start_matches("SPAN_KIND_");
        let line = format!("{service}: {} ({kind})\n", span.name);
        out.push_str(&"  ".repeat(depth));
        out.push_str(&line);
        out.push_str(&picture(spans, &span.id, depth + 1));
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_one_trace_from_envoy_to_the_store() {
    let (Some(envoy), Some(collector)) = (binary(), Collector::start()) else {
        return;
    };
    let folder = folder();
    let dev = Dev::start_with(folder.path(), |command| {
        // stacktoken itself samples nothing, so only Envoy's sampling decision applies.
        command.args([
            "--otlp-endpoint",
            &collector.endpoint,
            "--trace-sample-ratio",
            "0",
        ]);
    });
    let upstream = Upstream::start().await;
    let behind = Upstreams {
        stacktoken: dev.get("grpc_address"),
        jwt: dev.get("service_jwt"),
        upstream: upstream.address,
    };
    let port = collector.endpoint.rsplit_once(':').unwrap().1;
    let envoy = Envoy::start(&envoy, folder.path(), &behind, |config| {
        config
            .replace(
                "random_sampling: {value: 1}",
                "random_sampling: {value: 100}",
            )
            .replace("port_value: 4317", &format!("port_value: {port}"))
    })
    .await;
    let stack = dev.get("stack_api_key");
    let mut owner = dev.client("owner_jwt").await;
    let issued = owner.tokens.issue(issue_request(stack, "traced")).await;
    let secret = issued.unwrap().into_inner().secret;
    let headers = [("authorization", secret.as_str()), ("api_key", stack)];
    let answer = envoy
        .send("GET", "/v3/content_types/a/entries/b", &headers)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    let spans = collector.await_spans(6);
    let trace = &spans[0].trace_id;
    assert!(
        spans.iter().all(|span| span.trace_id == *trace),
        "{spans:?}"
    );
    let picture = picture(&spans, "", 0);
    assert!(
        README.contains(&picture),
        "the README does not contain\n{picture}"
    );
    assert!(!collector.text().contains("stk1_"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_has_a_trace_made_that_envoy_did_not_draw() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (drawn, wanted) in [("0", "-00"), ("100", "-01")] {
        let change = |config: String| {
            let (from, to) = ("{value: 1}", format!("{{value: {drawn}}}"));
            assert_eq!(config.matches(from).count(), 1);
            config.replacen(from, &to, 1)
        };
        let Some(fixture) = MeshFixture::start(change).await else {
            return;
        };
        let tokens = fixture.tokens().await;
        let live = tokens["live"].secret.as_str();
        let stack = fixture.dev.get("stack_api_key");
        for asking in [
            ("traceparent", PARENT),
            ("x-client-trace-id", "mine"),
            ("x-envoy-force-trace", "true"),
        ] {
            let sent = [("authorization", live), ("api_key", stack), asking];
            let answer = fixture.envoy.send("GET", "/v3/assets", &sent).await;
            let got = answer.upstream_got("traceparent");
            assert!(got[0].ends_with(wanted), "{asking:?} of {drawn} %: {got:?}");
        }
    }
}
