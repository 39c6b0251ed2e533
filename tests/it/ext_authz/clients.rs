//! Tests the decision on every request that known clients of the content management API send.

use std::collections::BTreeSet;

use stacktoken::grpc::pb::v1::Access::Read;

use crate::support::{TestServer, permissions};

const JAVASCRIPT: &str = include_str!("data/javascript.txt");
const OTHER_CLIENTS: &str = include_str!("data/other_clients.txt");

/// A request, with the decisions for a READ_WRITE token and for a READ token.
struct Row<'a> {
    method: &'a str,
    path: &'a str,
    decisions: [&'a str; 2],
}

fn rows() -> Vec<Row<'static>> {
    let lines = JAVASCRIPT.lines().chain(OTHER_CLIENTS.lines());
    let rows = lines.filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let columns: Vec<_> = line.split(' ').collect();
        let [method, path, write, read] = columns[..] else {
            panic!("{line}")
        };
        Row {
            method,
            path,
            decisions: [write, read],
        }
    };
    rows.map(row).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_of_a_real_client_has_its_decision() {
    let server = TestServer::start().await;
    let writer = server.token("writer").await.secret;
    let reader = server.token_with("reader", permissions(Read)).await.secret;
    let rows = rows();
    let distinct: BTreeSet<_> = rows.iter().map(|row| (row.method, row.path)).collect();
    assert_eq!(distinct.len(), rows.len(), "a request twice");
    assert!(rows.len() >= 238 + 60, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        for (secret, decision) in [&writer, &reader].into_iter().zip(row.decisions) {
            let asked = server.request(row.method, row.path, secret).raw();
            let expected = match decision {
                "ALLOWED" => "OK".to_owned(),
                reason => format!("403 {reason}"),
            };
            let outcome = server.outcome_of(asked).await;
            if outcome != expected {
                wrong.push(format!(
                    "{} {}: {outcome}, not {expected}",
                    row.method, row.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_read_token_passes_where_a_request_writes() {
    // According to the documentation of the API, GET requests with these endings change content.
    let writes = ["/enable", "/disable", "/unschedule"];
    for row in rows() {
        let [_, read] = row.decisions;
        let gets = ["GET", "HEAD"].contains(&row.method);
        let writes = !gets || writes.iter().any(|end| row.path.ends_with(end));
        assert!(!writes || read != "ALLOWED", "{} {}", row.method, row.path);
    }
}
