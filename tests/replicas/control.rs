//! Controls for the tests. A control runs a scenario with one safeguard switched off and expects
//! its fault. Without it, a test that finds no fault might be unable to find any.

use stacktoken::{app::Safeguards, config::Tuning};

use crate::cluster::Cluster;

/// The number of attempts. Most of these faults depend on timing, so on a busy machine a single
/// attempt can miss one.
const TRIES: usize = 5;

/// Asserts that a scenario shows its fault if this safeguard is switched off, in at least one of
/// [`TRIES`] attempts. Each attempt has a new cluster.
pub async fn assert_shows(without: Safeguards, scenario: impl AsyncFn(&mut Cluster) -> bool) {
    assert_shows_with(|_| {}, without, scenario).await;
}

/// Like [`assert_shows`], but with other settings.
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
