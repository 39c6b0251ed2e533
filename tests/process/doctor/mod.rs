//! `stacktoken doctor`: each fault is planted into a good set-up with real components, and exactly
//! this fault must be found.

mod local;
mod postgresql;
mod setup;

use std::{collections::BTreeSet, fs, path::Path};

/// Codes that no test plants, each with the reason.
const NOT_PLANTED: [(&str, &str); 2] = [
    (
        "clock.stepped",
        "the wall clock would have to be set while the check runs, which takes 0.1 s",
    ),
    (
        "database.too-old",
        "no PostgreSQL older than 13 is installed",
    ),
];

#[test]
fn every_code_of_the_manual_is_planted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/doctor.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<_> = rows.map(|row| row.split('`').next().unwrap()).collect();
    let planted = local::planted().into_iter().chain(postgresql::planted());
    let known: BTreeSet<_> = planted.chain(NOT_PLANTED.map(|(code, _)| code)).collect();
    assert_eq!(documented, known);
    assert!(known.len() - NOT_PLANTED.len() >= 24);
}
