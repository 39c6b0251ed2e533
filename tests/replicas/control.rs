//! Controls: run a scenario with one safeguard disabled and expect its fault. Without a control, a
//! test that finds no fault may be unable to find any.

use stacktoken::{app::Safeguards, config::Tuning};

use crate::cluster::Cluster;

/// Most of these faults depend on timing, so a single attempt on a busy machine can miss one.
const TRIES: usize = 5;

/// Asserts that a scenario shows its fault when a safeguard is disabled, in one of [`TRIES`]
/// attempts, each on a new cluster.
pub async fn assert_shows(without: Safeguards, scenario: impl AsyncFn(&mut Cluster) -> bool) {
    assert_shows_with(|_| {}, without, scenario).await;
}

/// Like [`assert_shows`], with other settings.
pub async fn assert_shows_with(
    set: impl Fn(&mut Tuning),
    without: Safeguards,
    scenario: impl AsyncFn(&mut Cluster) -> bool,
) {
    for tried in 1..=TRIES {
        let Some(mut cluster) = Cluster::start_with(&set, without).await else {
            return;
        };
        if scenario(&mut cluster).await {
            println!("the fault showed in attempt {tried}");
            return;
        }
    }
    panic!("the fault did not show in {TRIES} attempts: the test cannot fail");
}
