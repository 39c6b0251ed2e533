//! Tests the `context_extensions` of Envoy's routes.

use crate::{
    fixture::MeshFixture,
    program::scrape,
    routes::{ENTRIES, RULES, outcome},
};

const GUIDE: &str = include_str!("../../docs/envoy.md");

/// Returns the documented configuration with the guide's route for publish rules added. The route
/// has these `context_extensions` instead of those in the guide.
fn with_rules(config: String, extensions: &str) -> String {
    let (_, block) = GUIDE.split_once("```yaml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert!(block.contains(RULES), "{block}");
    let stated = "fact.has_approvers: \"false\"";
    assert_eq!(block.matches(stated).count(), 1, "{block}");
    let lines = block.replacen(stated, extensions, 1);
    let lines: String = lines
        .lines()
        .map(|line| format!("              {line}\n"))
        .collect();
    let last = "              # Everything else goes by the route table.\n";
    assert_eq!(config.matches(last).count(), 1);
    config.replacen(last, &format!("{lines}{last}"), 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_asks_for_what_is_not_there_is_denied_and_counted_but_fills_no_log() {
    let change = |config: String| {
        let from = "context_extensions: {actions: \"entry.read,asset.read\"}";
        let unknown = config.replacen(from, "context_extensions: {actions: \"entry.peel\"}", 1);
        with_rules(unknown, "actoins: \"entry.read\"")
    };
    let Some(fixture) = MeshFixture::start(change).await else {
        return;
    };
    let tokens = fixture.tokens().await;
    let (live, stack) = (&tokens["live"].secret, fixture.dev.get("stack_api_key"));
    let sent = [("authorization", live.as_str()), ("api_key", stack)];
    for (path, wanted) in [
        ("/graphql", "403 ACTION_UNKNOWN"),
        (RULES, "403 ROUTE_MISCONFIGURED"),
        (ENTRIES, "200"),
    ] {
        let answer = fixture.envoy.send("GET", path, &sent).await;
        assert_eq!(outcome(&answer), wanted, "{path}");
    }
    let (_, metrics) = scrape(&fixture.dev, "").await;
    let line = "stacktoken_checks_total{outcome=\"DENIED\",reason=\"ROUTE_MISCONFIGURED\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    for name in ["stdout", "stderr"] {
        let log = std::fs::read_to_string(fixture.dev.folder.join(name)).unwrap();
        assert!(!log.contains("context_extensions"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fact_is_what_its_route_states() {
    let change = |config| with_rules(config, "fact.has_approvers: \"false\"");
    let Some(fixture) = MeshFixture::start(change).await else {
        return;
    };
    let tokens = fixture.tokens().await;
    let stack = fixture.dev.get("stack_api_key");
    for (token, wanted) in [("live", "200"), ("reader", "403 READ_ONLY")] {
        let secret = tokens[token].secret.as_str();
        let sent = [("authorization", secret), ("api_key", stack)];
        let answer = fixture.envoy.send("POST", RULES, &sent).await;
        assert_eq!(outcome(&answer), wanted, "{token}");
    }
}
