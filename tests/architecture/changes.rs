//! Checks that a change of a stack or a token cannot be committed without its rows in the audit and
//! in the change log. The compiler enforces most of this: `change_tx!` commits only with a proof
//! that `store/record.rs` creates. The compiler cannot enforce that every change runs in
//! `change_tx!` and that only `store/record.rs` writes the rows, so these tests check both.

use std::path::{Path, PathBuf};

/// The only files that append rows to the audit and to the change log: `record.rs`, and the two
/// files that define the functions that `record.rs` calls.
const RECORDERS: [&str; 3] = ["record.rs", "audit/append.rs", "change_log/append.rs"];

/// Write transactions that change nothing that the audit or the change log records, each with the
/// reason.
const NOT_CHANGES: [(&str, &str); 7] = [
    ("macros.rs", "`change_tx!` expands to it"),
    ("audit/refusals.rs", "the audit rows of refusals themselves"),
    ("engine/schema.rs", "starts a new epoch of the change log"),
    ("last_used.rs", "usage is not a change (R14)"),
    ("purge.rs", "deletes by age, without a caller"),
    ("purge/expired.rs", "deletes by age, without a caller"),
    ("token/expiry.rs", "records which expiries were logged"),
];

fn faults(file: &str, text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: Vec<_> = code.collect();
    let has = |word: &str| code.iter().any(|line| line.contains(word));
    let mut faults = Vec::new();
    for name in ["append_audit", "append_change"] {
        if has(name) && !RECORDERS.contains(&file) {
            faults.push(format!("src/store/{file}: {name}: use record_change"));
        }
    }
    if has("write_tx!") && !NOT_CHANGES.iter().any(|(known, _)| *known == file) {
        faults.push(format!("src/store/{file}: write_tx!: use change_tx!"));
    }
    faults
}

fn store() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")
}

#[test]
fn every_change_is_recorded_by_the_one_way_that_proves_it() {
    let mut found = Vec::new();
    super::dates::files(&store(), &mut found);
    assert!(found.len() > 50, "only {} files", found.len());
    let root = store();
    let each = found.iter().flat_map(|(path, text)| {
        let file = Path::new(path).strip_prefix(&root).unwrap();
        faults(file.to_str().unwrap(), text)
    });
    super::require_none(each);
    for (file, _) in NOT_CHANGES {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        assert!(
            text.contains("write_tx!"),
            "{file} is listed but does not use write_tx!"
        );
    }
}

#[test]
fn a_change_that_could_go_unrecorded_is_reported() {
    for (file, text, expected) in [
        ("token/rotate.rs", "change_tx!(self, |tx| {})", 0),
        ("token/rotate.rs", "write_tx!(self, |tx| {})", 1),
        ("token/rotate.rs", "    // as in write_tx!\n", 0),
        ("token/rotate.rs", "self.append_audit(tx).await?;", 1),
        ("token/rotate.rs", "self\n    .append_change_of_each(tx)", 1),
        ("record.rs", "self.append_change(tx).await?;", 0),
        ("purge.rs", "write_tx!(self, |tx| {})", 0),
    ] {
        assert_eq!(faults(file, text).len(), expected, "{file}: {text}");
    }
}
