//! Tests that a test that cannot run reports this on the real standard error, or fails if `CI` is
//! set. To do so, it runs tests of this binary that need grpcurl with an empty `PATH`.

use std::process::Command;

use crate::program::{folder, text};

/// Runs two tests that need grpcurl, without grpcurl. Returns whether the binary succeeds, and its
/// standard error.
fn without_grpcurl(ci: Option<&str>) -> (bool, String) {
    let empty = folder();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--test-threads=2"])
        .args(["documented_commands::grpcurl_needs_no_files_of_ours"])
        .args(["documented_commands::the_preview_in_the_operations_manual_works"])
        .env("PATH", empty.path())
        .env_remove("CI");
    if let Some(value) = ci {
        command.env("CI", value);
    }
    let done = command.output().unwrap();
    let shown = text(&done.stdout);
    assert!(shown.contains("running 2 tests"), "{shown}");
    (done.status.success(), text(&done.stderr))
}

#[test]
fn a_skip_is_shown_and_counted_and_names_the_test_and_the_tool() {
    for ci in [None, Some("")] {
        let (passed, shown) = without_grpcurl(ci);
        assert!(passed, "{shown}");
        for expected in [
            "SKIPPED 1: documented_commands::",
            "SKIPPED 2: documented_commands::",
            ": documented_commands::grpcurl_needs_no_files_of_ours; missing: grpcurl (tests/",
            ": documented_commands::the_preview_in_the_operations_manual_works; missing: grpcurl",
        ] {
            assert!(shown.contains(expected), "no {expected} in {shown}");
        }
        assert_eq!(shown.matches("SKIPPED").count(), 2, "{shown}");
    }
}

#[test]
fn scripts_skip_by_the_same_rule() {
    for (ci, passes) in [(None, true), (Some(""), true), (Some("1"), false)] {
        let mut command = Command::new("bash");
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["-c", ". .ci/skip.sh; skip 'the image' a b; skip more c"])
            .env_remove("CI");
        if let Some(value) = ci {
            command.env("CI", value);
        }
        let done = command.output().unwrap();
        let shown = text(&done.stderr);
        assert_eq!(done.status.success(), passes, "{ci:?}: {shown}");
        let counted = shown.contains("SKIPPED 1: the image; missing: a b\nSKIPPED 2: more");
        assert_eq!(counted, passes, "{ci:?}: {shown}");
    }
}

#[test]
fn any_value_of_ci_makes_a_skip_a_failure() {
    for value in ["true", "1", "false", "woodpecker"] {
        let (passed, shown) = without_grpcurl(Some(value));
        assert!(!passed, "CI={value}");
        assert!(!shown.contains("SKIPPED"), "{shown}");
    }
}
