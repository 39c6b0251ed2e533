//! Nobody there to decide: what comes of it is what Envoy's failure mode says.

use crate::world::World;

const PATH: &str = "/v3/content_types/blog/entries";

/// The statuses of a good and of an unknown token, before and after stacktoken is gone.
async fn statuses(change: fn(String) -> String) -> Option<[[u16; 2]; 2]> {
    let mut world = World::start(change).await?;
    let tokens = world.tokens().await;
    let stack = world.dev.get("stack_api_key").to_owned();
    let mut found = [[0; 2]; 2];
    for (at, row) in found.iter_mut().enumerate() {
        if at == 1 {
            world.stop_stacktoken();
        }
        for (secret, status) in [&tokens["live"].secret, "junk"].into_iter().zip(row) {
            let sent = [("authorization", secret), ("api_key", &stack)];
            *status = world.envoy.send("GET", PATH, &sent).await.status;
        }
    }
    Some(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_stops_every_request_as_documented() {
    if let Some(found) = statuses(|config| config).await {
        assert_eq!(found, [[200, 401], [503, 503]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_lets_every_request_pass_where_envoy_is_told_so() {
    let lenient = |config: String| {
        config.replacen("failure_mode_allow: false", "failure_mode_allow: true", 1)
    };
    if let Some(found) = statuses(lenient).await {
        assert_eq!(found, [[200, 401], [200, 200]]);
    }
}
