//! Controls: what a scenario finds when one safeguard is switched off. Without its control, a test
//! that finds no fault may be one that cannot find any.

use stacktoken::{app::Safeguards, config::Tuning};

use crate::cluster::Cluster;

/// Most such faults depend on timing: on a busy machine a single try can miss one.
const TRIES: usize = 5;

/// Asserts that a scenario shows its fault in replicas without a safeguard, in one of a few tries,
/// each with a cluster of its own.
pub async fn assert_shows(without: Safeguards, scenario: impl AsyncFn(&mut Cluster) -> bool) {
    assert_shows_with(|_| {}, without, scenario).await;
}

/// The same with other settings.
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
            println!("the fault showed in try {tried}");
            return;
        }
    }
    panic!("the fault did not show in {TRIES} tries: the test cannot fail");
}
