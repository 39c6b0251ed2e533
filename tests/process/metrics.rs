//! The metrics as a scraper has them: well-formed by Prometheus' own linter, and those that the
//! operator's page names.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{
    program::{Dev, folder, has_tool, scrape, text},
    support::{introspect_request, issue_request},
};

const PAGE: &str = include_str!("../../docs/operations.md");

/// A server that has had something to count.
async fn used(dev: &Dev) {
    let stack = dev.get("stack_api_key");
    let (mut owner, mut service) = (
        dev.client("owner_jwt").await,
        dev.client("service_jwt").await,
    );
    let issued = owner.tokens.issue(issue_request(stack, "counted")).await;
    let secret = issued.unwrap().into_inner().secret;
    for actions in [&[][..], &["entry.update"]] {
        let ask = introspect_request(stack, &secret, actions);
        service.introspection.introspect(ask).await.unwrap();
    }
    let again = owner.tokens.issue(issue_request(stack, "counted")).await;
    again.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_no_fault_with_the_metrics() {
    let Some(promtool) = has_tool(&["promtool"]) else {
        return;
    };
    let folder = folder();
    let dev = Dev::start(folder.path());
    used(&dev).await;
    let (head, body) = scrape(&dev, "").await;
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(
        body.contains("# TYPE stacktoken_errors_total counter"),
        "{body}"
    );
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(body.as_bytes()).unwrap();
    drop(input);
    let done = child.wait_with_output().unwrap();
    let told = text(&done.stdout) + &text(&done.stderr);
    assert!(done.status.success(), "{told}\n{body}");
    assert!(told.trim().is_empty(), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_that_reads_openmetrics_gets_it() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    used(&dev).await;
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, body) = scrape(&dev, accept).await;
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (_, plain) = scrape(&dev, "").await;
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.split(['{', ' ']).next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&body), samples(&plain));
}

/// There with TLS only, which `dev` has not; tests/it/tls reads it.
const WITH_TLS: &str = "stacktoken_tls_certificate_expiry_timestamp_seconds";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_operators_page_exists() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    used(&dev).await;
    let (_, body) = scrape(&dev, "").await;
    let names = PAGE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names: Vec<_> = names
        .filter(|name| name.starts_with("stacktoken_") || name.starts_with("rpc_server_"))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names.into_iter().filter(|name| *name != WITH_TLS) {
        assert!(body.contains(&format!("# TYPE {name} ")), "{name}: {body}");
    }
}
