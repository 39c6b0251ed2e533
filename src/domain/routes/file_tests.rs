//! Tests valid and invalid routes files.

use crate::domain::{catalogue::Catalogue, operator_file::FileError, routes::RouteTable};

fn parse(text: &str) -> Result<RouteTable, FileError> {
    RouteTable::parse(text, &Catalogue::builtin())
}

#[test]
fn a_malformed_route_table_is_refused_with_entry_key_and_remedy() {
    let entry = |method: &str, path: &str, actions: &str| {
        format!("[[routes]]\nmethod = {method}\npath = {path}\nactions = {actions}\n")
    };
    let good = entry("\"GET\"", "\"/a/{b}\"", "[\"entry.read\"]");
    let path = |path: &str| entry("\"GET\"", &format!("{path:?}"), "[\"entry.read\"]");
    let actions = |actions: &str| entry("\"GET\"", "\"/b\"", actions);
    for (text, told) in [
        (
            "builtin = false".into(),
            "line 1: `routes` is empty: add a [[routes]] entry",
        ),
        (
            "\nbuiltin = false\nroutes = []".into(),
            "line 3: `routes` is empty: add a [[routes]] entry",
        ),
        ("x".into(), "line 1: is not TOML"),
        (format!("{good}\nx ="), "line 6: is not TOML"),
        ("route = 1".into(), "line 1: `route` is unknown"),
        (
            "builtin = \"no\"".into(),
            "line 1: `builtin` must be true or false",
        ),
        ("routes = 1".into(), "two brackets"),
        (
            "routes = [\n1]".into(),
            "line 2: `routes` contains something that is not a table",
        ),
        (
            format!("default_branch = \"\"\n{good}"),
            "line 1: `default_branch` is not the name",
        ),
        (
            format!("default_branch = 1\n{good}"),
            "line 1: `default_branch` is not the name",
        ),
        (
            format!("default_branch = \"a b\"\n{good}"),
            "line 1: `default_branch` is not the name",
        ),
        (
            format!("{good}[[routes]]\n"),
            "line 5: `method` is required",
        ),
        (format!("{good}verb = 1\n"), "line 5: `verb` is unknown"),
        (
            entry("\"get\"", "\"/b\"", "[\"entry.read\"]"),
            "line 2: `method` is \"get\": use one of GET",
        ),
        (
            entry("\"HEAD\"", "\"/b\"", "[\"entry.read\"]"),
            "uses the entry for GET",
        ),
        (
            entry("1", "\"/b\"", "[\"entry.read\"]"),
            "`method` must be a non-empty string",
        ),
        (path("a"), "line 3: `path` is \"a\": write segments"),
        (path("/a/"), "write segments"),
        (path("/a//b"), "write segments"),
        (path("/a/../b"), "write segments"),
        (path("/a/{}"), "write segments"),
        (path("/a/{b"), "write segments"),
        (path("/a/x{b}"), "write segments"),
        (path("/a/*"), "write segments"),
        (path("/a%20b"), "write segments"),
        (path("/a?b"), "write segments"),
        (path("/a/.b"), "write segments"),
        (
            actions("[]"),
            "line 4: `actions` must list at least one action",
        ),
        (
            actions("\"entry.read\""),
            "`actions` must list at least one action",
        ),
        (actions("[1]"), "`actions` must list at least one action"),
        (actions("[\"read\"]"), "must be `module.verb`"),
        (
            actions("[\"entry.read\", \"entry.peel\"]"),
            "contains \"entry.peel\", which is not in the catalogue",
        ),
        (
            format!("{good}{}", path("/a/{other}")),
            "line 7: `path` is the same as that of the entry on line 1",
        ),
    ] {
        let fault = parse(&text).unwrap_err().to_string();
        assert!(fault.contains(told), "{text}\n{fault}");
    }
    let two = format!(
        "{good}{}",
        entry("\"PUT\"", "\"/a/{b}\"", "[\"entry.read\"]")
    );
    assert!(parse(&two).is_ok());
}

#[test]
fn a_file_adds_to_the_built_in_table_and_replaces_its_entries() {
    let builtin = RouteTable::builtin().unwrap();
    let file = "routes = [\n\
        { method = \"GET\", path = \"/v3/assets/{uid}\", actions = [\"asset.update\"] },\n\
        { method = \"POST\", path = \"/own/{x}\", actions = [\"entry.read\"] },\n]\n";
    let table = parse(file).unwrap();
    assert_eq!(
        table.actions("GET", "/v3/assets/a").unwrap(),
        ["asset.update"]
    );
    assert_eq!(table.actions("POST", "/own/a").unwrap(), ["entry.read"]);
    assert_eq!(
        table.actions("PUT", "/v3/assets/a").unwrap(),
        ["asset.update"]
    );
    assert_eq!(table.actions("GET", "/v3/stacks").unwrap(), ["stack.read"]);
    assert_eq!(table.routes.len(), builtin.routes.len() + 1);
    let alone = parse(&format!("builtin = false\n{file}")).unwrap();
    assert_eq!(alone.actions("GET", "/v3/stacks"), None);
    assert_eq!(alone.routes.len(), 2);
    let branch = parse("default_branch = \"trunk\"").unwrap();
    assert_eq!(branch.default_branch(), "trunk");
    assert_eq!(branch.routes, builtin.routes);
    assert_eq!(parse("").unwrap().routes, builtin.routes);
}

#[test]
fn a_table_that_is_written_down_reads_back() {
    let own = "builtin = false\ndefault_branch = \"trunk\"\n[[routes]]\nmethod = \"OPTIONS\"\n\
               path = \"/a/{b}/c.d\"\nactions = [\"entry.read\", \"asset.read\"]\n";
    for table in [RouteTable::builtin().unwrap(), parse(own).unwrap()] {
        let written = table.to_toml();
        let read = parse(&written).unwrap();
        assert_eq!(read.routes, table.routes);
        assert_eq!(read.default_branch(), table.default_branch());
        assert_eq!(read.to_toml(), written);
    }
}
