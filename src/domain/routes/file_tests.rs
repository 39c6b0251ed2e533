//! Tests of invalid routes files.

use crate::domain::routes::RouteTable;

#[test]
fn a_file_that_is_no_table_is_told_with_entry_key_and_what_to_do() {
    let entry = |method: &str, path: &str, actions: &str| {
        format!("[[routes]]\nmethod = {method}\npath = {path}\nactions = {actions}\n")
    };
    let good = entry("\"GET\"", "\"/a/{b}\"", "[\"entry.read\"]");
    let path = |path: &str| entry("\"GET\"", &format!("{path:?}"), "[\"entry.read\"]");
    let actions = |actions: &str| entry("\"GET\"", "\"/b\"", actions);
    for (text, told) in [
        (String::new(), "no [[routes]] entry: add one"),
        ("routes = []".into(), "no [[routes]] entry: add one"),
        ("x".into(), "line 1 is not TOML"),
        (format!("{good}\nx ="), "line 6 is not TOML"),
        ("route = 1".into(), "unknown key `route`"),
        ("routes = 1".into(), "two brackets"),
        ("routes = [1]".into(), "routes entry 1 is not a table"),
        (
            format!("default_branch = \"\"\n{good}"),
            "default_branch is no name",
        ),
        (
            format!("default_branch = 1\n{good}"),
            "default_branch is no name",
        ),
        (
            format!("{good}[[routes]]\n"),
            "routes entry 2: `method` is required",
        ),
        (
            format!("{good}verb = 1\n"),
            "routes entry 1: `verb` is unknown",
        ),
        (
            entry("\"get\"", "\"/b\"", "[\"entry.read\"]"),
            "`method` is \"get\": use one of GET",
        ),
        (
            entry("\"HEAD\"", "\"/b\"", "[\"entry.read\"]"),
            "goes by the entry of GET",
        ),
        (
            entry("1", "\"/b\"", "[\"entry.read\"]"),
            "`method` must be a text",
        ),
        (path("a"), "`path` is \"a\": write segments"),
        (path("/a/"), "write segments"),
        (path("/a//b"), "write segments"),
        (path("/a/../b"), "write segments"),
        (path("/a/{}"), "write segments"),
        (path("/a/{b"), "write segments"),
        (path("/a/x{b}"), "write segments"),
        (path("/a/*"), "write segments"),
        (path("/a%20b"), "write segments"),
        (path("/a?b"), "write segments"),
        (actions("[]"), "`actions` must list at least one action"),
        (
            actions("\"entry.read\""),
            "`actions` must list at least one action",
        ),
        (actions("[1]"), "`actions` must list at least one action"),
        (actions("[\"read\"]"), "must be `module.verb`"),
        (
            actions("[\"entry.read\", \"entry.peel\"]"),
            "holds \"entry.peel\", which the catalogue lacks",
        ),
        (
            format!("{good}{}", path("/a/{other}")),
            "routes entry 2: `path` is the same as that of entry 1",
        ),
    ] {
        let fault = RouteTable::parse(&text).unwrap_err().to_string();
        assert!(fault.contains(told), "{text}\n{fault}");
    }
    let two = format!(
        "{good}{}",
        entry("\"PUT\"", "\"/a/{b}\"", "[\"entry.read\"]")
    );
    assert!(RouteTable::parse(&two).is_ok());
}
