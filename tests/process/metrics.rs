//! Tests the metrics as Prometheus scrapes them: its linter must accept them, and every metric that
//! docs/operations.md names must exist.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use crate::{
    program::{Dev, folder, has_tool, scrape, text},
    support::{introspect_request, issue_request},
};

const PAGE: &str = include_str!("../../docs/operations.md");

/// Makes calls so that every metric has a value.
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

/// The only complaint of the linter. It is about a name that OpenTelemetry prescribes.
const KNOWN: &str = "db_client_connection_count non-histogram and non-summary metrics should not have \"_count\" suffix";

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
    // The linter exits with 3 if it has any complaint.
    assert_eq!(done.status.code(), Some(3), "{told}\n{body}");
    assert_eq!(told.trim(), KNOWN, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_that_reads_openmetrics_gets_it() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    used(&dev).await;
    let (_, before) = scrape(&dev, "").await;
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, body) = scrape(&dev, accept).await;
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (_, after) = scrape(&dev, "").await;
    // A series appears with its first event, which may happen between two scrapes.
    let [before, body, after] = [&before, &body, &after].map(|text| series(text));
    assert!(before.len() > 100, "{before:?}");
    assert!(before.is_subset(&body), "{:?}", before.difference(&body));
    assert!(body.is_subset(&after), "{:?}", body.difference(&after));
}

/// Returns every series in the text with its labels, but without its value.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| line.rsplit_once(' '));
    series.map(|(name, _)| name.to_owned()).collect()
}

const PREFIXES: [&str; 4] = ["stacktoken_", "rpc_server_", "db_client_", "process_"];

/// This metric exists only with TLS, which `dev` does not have. tests/it/tls checks it.
const WITH_TLS: &str = "stacktoken_tls_certificate_expiry_timestamp_seconds";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_operators_page_exists() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    used(&dev).await;
    let (_, body) = scrape(&dev, "").await;
    let names = PAGE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_label = |name: &str| body.contains(&format!("{name}=\""));
    let names: Vec<_> = names
        .filter(|name| !is_label(name))
        .filter(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names.into_iter().filter(|name| *name != WITH_TLS) {
        assert!(body.contains(&format!("# TYPE {name} ")), "{name}: {body}");
    }
}

/// Returns the value of the first sample whose line starts with this text.
fn value(body: &str, start: &str) -> f64 {
    let mut lines = body.lines();
    let line = lines.find(|line| line.starts_with(start));
    let line = line.unwrap_or_else(|| panic!("{start}: {body}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_operations_pools_and_the_process_are_measured_by_the_conventions() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    used(&dev).await;
    let (_, body) = scrape(&dev, "").await;
    let call = |method: &str, outcome: &str| {
        let sample =
            "rpc_server_call_duration_seconds_count{rpc_system_name=\"grpc\",rpc_method=\"";
        value(
            &body,
            &format!("{sample}stacktoken.v1.{method}\",{outcome}}}"),
        )
    };
    let done = "rpc_response_status_code=\"OK\",error_type=\"\"";
    assert!(call("TokenService/Issue", done) >= 1.0);
    assert_eq!(call("IntrospectionService/Introspect", done), 2.0);
    let refused = "rpc_response_status_code=\"ALREADY_EXISTS\",error_type=\"NAME_TAKEN\"";
    assert_eq!(call("TokenService/Issue", refused), 1.0);
    let operation = |name: &str| {
        let sample = "db_client_operation_duration_seconds_count{db_system_name=\"sqlite\",";
        value(
            &body,
            &format!("{sample}db_operation_name=\"{name}\",error_type=\"\"}}"),
        )
    };
    assert!(operation("issue") >= 1.0);
    assert!(operation("look_up") >= 1.0);
    for pool in ["writer", "reader", "control"] {
        let pool = format!("db_client_connection_pool_name=\"{pool}\"");
        let max = value(&body, &format!("db_client_connection_max{{{pool}}}"));
        let open: f64 = ["idle", "used"]
            .map(|state| {
                let state = format!("db_client_connection_state=\"{state}\"");
                value(
                    &body,
                    &format!("db_client_connection_count{{{pool},{state}}}"),
                )
            })
            .iter()
            .sum();
        assert!(open >= 1.0 && open <= max, "{pool}: {open} of {max}");
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
    ] {
        assert!(value(&body, name) > 0.0, "{name}");
    }
    let started = value(&body, "process_start_time_seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now.unwrap().as_secs_f64() - started;
    assert!((-1.0..600.0).contains(&age), "started {age} s ago");
    let build = format!(
        "stacktoken_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(value(&body, &build), 1.0);
}
