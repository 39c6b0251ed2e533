//! Tests the validation and the intersection of permissions.

use super::*;

fn draft(json: &str) -> Draft {
    serde_json::from_str(json).unwrap()
}

#[test]
fn an_empty_scope_never_means_all() {
    for empty in [
        r#"{"access":"READ","modules":[]}"#,
        r#"{"access":"READ","branches":{}}"#,
    ] {
        assert!(Permissions::try_from(draft(empty)).is_err(), "{empty}");
    }
}

#[test]
fn a_grant_that_grants_nothing_is_refused_in_requests_only() {
    let nothing = draft(
        r#"{"access":"READ","modules":[{"module":"entry","access":"READ"},{"module":"token","access":"READ"}]}"#,
    );
    let faults = Permissions::requested(nothing.clone(), &Catalogue::builtin()).unwrap_err();
    let fields: Vec<_> = faults.as_slice().iter().map(|fault| &fault.field).collect();
    assert_eq!(fields, ["modules.grants[1].module"]);
    assert!(Permissions::try_from(nothing).is_ok(), "one that is stored");
}

#[test]
fn all_faults_are_reported_at_once() {
    let asked = draft(
        r#"{"access":"READ","modules":[{"module":"entry","access":"READ_WRITE"},{"module":"entries"}],"branches":{"branches":["a b"]}}"#,
    );
    let faults = Permissions::requested(asked, &Catalogue::builtin()).unwrap_err();
    let fields: Vec<_> = faults
        .as_slice()
        .iter()
        .map(|fault| fault.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "modules.grants[0].access",
            "modules.grants[1].module",
            "modules.grants[1].access",
            "branches.branches[0]"
        ]
    );
}

fn cut(token: &str, narrow: &str) -> Permissions {
    let both = [token, narrow].map(|json| Permissions::try_from(draft(json)).unwrap());
    let cut = both[0].cut_by(&both[1]);
    assert_eq!(cut, both[1].cut_by(&both[0]), "either narrows the other");
    assert_eq!(Permissions::effective(cut.draft()).as_ref(), Ok(&cut));
    cut
}

#[test]
fn a_cut_permits_what_both_permit() {
    let entries = r#"{"access":"READ_WRITE","modules":[{"module":"entry","access":"READ_WRITE"},{"module":"asset","access":"READ_WRITE"}],"branches":{"branches":["main","dev"],"aliases":["live"]}}"#;
    let reading = r#"{"access":"READ"}"#;
    let capped = cut(entries, reading);
    let expected = r#"{"access":"READ","modules":[{"module":"asset","access":"READ"},{"module":"entry","access":"READ"}],"branches":{"branches":["dev","main"],"aliases":["live"]}}"#;
    assert_eq!(capped, Permissions::try_from(draft(expected)).unwrap());
    let other = r#"{"access":"READ_WRITE","modules":[{"module":"entry","access":"READ"},{"module":"zebra","access":"READ"}],"branches":{"branches":["main"],"aliases":["next"]}}"#;
    let expected = r#"{"access":"READ_WRITE","modules":[{"module":"entry","access":"READ"}],"branches":{"branches":["main"]}}"#;
    let common = cut(entries, other);
    assert_eq!(common, Permissions::try_from(draft(expected)).unwrap());
    assert!(!common.permits_nothing());
}

#[test]
fn a_cut_without_anything_in_common_permits_nothing() {
    let module = |name: &str| {
        format!(r#"{{"access":"READ","modules":[{{"module":"{name}","access":"READ"}}]}}"#)
    };
    let nothing = cut(&module("entry"), &module("asset"));
    assert!(nothing.permits_nothing());
    for name in ["entry", "asset", "locale"] {
        let module = Module::named(name).unwrap();
        assert_eq!(nothing.access_to(&module), None, "{name}");
    }
    let branch =
        |name: &str| format!(r#"{{"access":"READ","branches":{{"branches":["{name}"]}}}}"#);
    let nothing = cut(&branch("main"), &branch("dev"));
    assert!(nothing.permits_nothing());
    assert!(!nothing.covers_branch(Some("main"), None));
    assert!(!nothing.covers_branch(None, None));
}

#[test]
fn what_is_written_down_reads_back() {
    let written = draft(
        r#"{"access":"READ_WRITE","modules":[{"module":"asset","access":"READ"},{"module":"zebra","access":"READ"}],"branches":{"branches":["main"],"aliases":["live"]}}"#,
    );
    let permissions = Permissions::try_from(written.clone()).unwrap();
    assert_eq!(permissions.draft(), written);
}

#[test]
fn a_grant_of_a_module_that_the_catalogue_lacks_is_kept_and_never_requested() {
    let lacking = draft(
        r#"{"access":"READ","modules":[{"module":"zebra","access":"READ"},{"module":"ape","access":"READ"}]}"#,
    );
    let kept = Permissions::try_from(lacking.clone()).unwrap();
    let named: Vec<_> = kept.draft().modules.into_iter().flatten().collect();
    let named: Vec<_> = named.iter().map(|grant| grant.module.as_str()).collect();
    assert_eq!(named, ["ape", "zebra"]);
    for (name, access) in [("zebra", Some(Access::Read)), ("entry", None)] {
        assert_eq!(kept.access_to(&Module::named(name).unwrap()), access);
    }
    let faults = Permissions::requested(lacking, &Catalogue::builtin()).unwrap_err();
    assert_eq!(faults.as_slice().len(), 2);
    let twice = r#"{"access":"READ","modules":[{"module":"ape","access":"READ"},{"module":"ape","access":"READ"}]}"#;
    assert!(Permissions::try_from(draft(twice)).is_err());
    for name in ["", "Ape", "a-b", "1ape", "a.b", &"a".repeat(63)] {
        let text =
            format!(r#"{{"access":"READ","modules":[{{"module":"{name}","access":"READ"}}]}}"#);
        assert!(Permissions::try_from(draft(&text)).is_err(), "{name:?}");
    }
}
