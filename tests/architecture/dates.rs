//! Finds fixed dates in tests that use the host's clock. Such a test would start to fail on that
//! date.

use std::{fs, path::Path};

/// Test targets that start real programs, or servers that use the host's clock. The other targets
/// use fake clocks, which start at the same date in every run.
const ON_THE_HOSTS_CLOCK: &[&str] = &[
    "tests/client",
    "tests/clients",
    "tests/floods",
    "tests/issuers",
    "tests/mesh",
    "tests/process",
    "tests/replicas",
    "tests/sdks",
    "benches",
    // A test runs the commands in this document.
    "README.md",
];

/// The range (2017 to 2286) in which a number in a test counts as a Unix time in seconds.
const SECONDS: std::ops::Range<i64> = 1_500_000_000..10_000_000_000;

/// Returns whether the word is a date of this century such as `2027-06-30`, or a Unix time in
/// [`SECONDS`].
fn is_near_date(word: &str) -> bool {
    let is_day = word.len() >= 10
        && word.starts_with("20")
        && word.bytes().take(10).enumerate().all(|(at, byte)| {
            let hyphen = at == 4 || at == 7;
            if hyphen {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        });
    let seconds = word.replace('_', "").parse::<i64>();
    is_day || seconds.is_ok_and(|seconds| SECONDS.contains(&seconds))
}

fn near_dates(file: &str, text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let lines = text.lines().enumerate();
    let words =
        lines.flat_map(|(at, line)| line.split(|c| !is_part(c)).map(move |word| (at, word)));
    words
        .filter(|(_, word)| is_near_date(word))
        .map(|(at, word)| {
            format!(
                "{file}:{}: the test fails once {word} is past; use an offset from now, or clock::FAR",
                at + 1
            )
        })
        .collect()
}

/// Collects every text file at or below this path.
pub fn files(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in path.read_dir().unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        found.push((path.display().to_string(), text));
    }
}

#[test]
fn no_test_on_the_hosts_clock_has_a_date_that_passes() {
    let mut found = Vec::new();
    for path in ON_THE_HOSTS_CLOCK {
        files(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
            &mut found,
        );
    }
    assert!(found.len() > 50, "only {} files", found.len());
    let faults = found.iter().flat_map(|(file, text)| near_dates(file, text));
    super::require_none(faults);
}

#[test]
fn a_date_that_passes_is_reported_however_it_is_written() {
    for (text, faults) in [
        ("\"2027-06-30\"", 1),
        ("\"2027-06-30T00:00:00Z\"", 1),
        ("at(1_900_000_000)", 1),
        ("at(4000000000 + n)", 1),
        ("\"9999-12-31\"", 0),
        ("RUSTSEC-2026-0258", 0),
        ("253_399_622_400", 0),
    ] {
        assert_eq!(near_dates("made_up.rs", text).len(), faults, "{text}");
    }
}
