//! Nobody there to decide, or nobody able to: what comes of it is what Envoy's failure mode
//! says, never a yes or a no of ours.

use crate::{support::database::Outside, world::World};

const PATH: &str = "/v3/content_types/blog/entries";
const UNKNOWN: &str = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy";

fn strict(config: String) -> String {
    config
}

fn lenient(config: String) -> String {
    let (from, to) = ("failure_mode_allow: false", "failure_mode_allow: true");
    assert_eq!(config.matches(from).count(), 1);
    config.replacen(from, to, 1)
}

/// The statuses of a good token that was never asked about, of an unknown one, and of junk.
async fn statuses(world: &World, good: &str) -> [u16; 3] {
    let stack = world.dev.get("stack_api_key");
    let mut found = [0; 3];
    for (secret, status) in [good, UNKNOWN, "junk"].into_iter().zip(&mut found) {
        let sent = [("authorization", secret), ("api_key", stack)];
        *status = world.envoy.send("GET", PATH, &sent).await.status;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_gone_stops_requests_or_lets_them_all_pass_as_envoy_is_told() {
    for (change, wanted) in [
        (strict as fn(String) -> String, [503, 503, 503]),
        (lenient, [200, 200, 200]),
    ] {
        let Some(mut world) = World::start(change).await else {
            return;
        };
        let tokens = world.tokens().await;
        let live = &tokens["live"].secret;
        assert_eq!(statuses(&world, live).await, [200, 401, 401]);
        world.stop_stacktoken();
        assert_eq!(statuses(&world, live).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_does_the_same_but_for_what_needs_no_store() {
    for (change, wanted) in [
        (strict as fn(String) -> String, [503, 503, 401]),
        (lenient, [200, 200, 401]),
    ] {
        let Some(world) = World::start(change).await else {
            return;
        };
        let tokens = world.tokens().await;
        let outside = Outside::of(&world.dev.folder.join(".stacktoken/stacktoken.db")).await;
        outside.corrupt().await;
        assert_eq!(statuses(&world, &tokens["live"].secret).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_whose_own_credential_is_no_good_decides_by_its_failure_mode() {
    let no_good = |config: String| config.replacen("Bearer SERVICE_JWT", "Bearer x.SERVICE_JWT", 1);
    let Some(world) = World::start(no_good).await else {
        return;
    };
    let tokens = world.tokens().await;
    let told = statuses(&world, &tokens["live"].secret).await;
    assert_eq!(told, [503, 503, 503]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trace_that_a_client_brings_makes_a_check_fail() {
    let sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let large = format!("a={}", "x".repeat(20_000));
    for change in [strict as fn(String) -> String, lenient] {
        let Some(world) = World::start(change).await else {
            return;
        };
        for name in ["tracestate", "Tracestate", "baggage"] {
            let sent = [
                ("traceparent", sampled),
                (name, large.as_str()),
                ("x-stacktoken-access", "READ_WRITE"),
            ];
            let answer = world.envoy.send("DELETE", PATH, &sent).await;
            assert_eq!(answer.status, 401, "{name}: {}", answer.text());
        }
        // More than Envoy takes stops there, whoever else would let it pass.
        let larger = "x".repeat(61 * 1024);
        let sent = [("traceparent", sampled), ("tracestate", &larger)];
        let answer = world.envoy.send("DELETE", PATH, &sent).await;
        assert_eq!(answer.status, 431);
    }
}
