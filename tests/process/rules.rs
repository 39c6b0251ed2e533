//! Tests the operator's own rules: what `stacktoken routes` and `stacktoken catalogue` print can be
//! edited and then used as a file.

use std::fs;

use tempfile::TempDir;

use crate::program::{run, text};

fn printed(arguments: &[&str]) -> String {
    let done = run(arguments);
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stdout)
}

#[test]
fn the_printed_route_table_can_be_edited_and_given_back() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("routes.toml");
    let given = file.to_str().unwrap();
    let builtin = printed(&["routes"]);
    fs::write(&file, &builtin).unwrap();
    assert_eq!(printed(&["routes", "--authz-routes", given]), builtin);
    let own =
        "routes = [\n  { method = \"GET\", path = \"/own/{x}\", actions = [\"entry.read\"] },\n";
    fs::write(&file, builtin.replace("routes = [\n", own)).unwrap();
    let edited = printed(&["routes", "--authz-routes", given]);
    assert!(edited.contains("path = \"/own/{x}\""), "{edited}");
    assert_eq!(edited.lines().count(), builtin.lines().count() + 1);
    let wrong = edited.replace(
        "method = \"GET\",    path = \"/own/{x}\"",
        "http_method = \"GET\", path = \"/own/{x}\"",
    );
    let line = wrong
        .lines()
        .position(|line| line.contains("http_method"))
        .unwrap()
        + 1;
    fs::write(&file, wrong).unwrap();
    let done = run(&["routes", "--authz-routes", given]);
    assert_eq!(done.status.code(), Some(1));
    let told = text(&done.stderr);
    let wanted = format!("--authz-routes {given}: line {line}: `http_method` is unknown");
    assert!(told.contains(&wanted), "{told}");
}

/// The example file in docs.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/catalogue.toml");

#[test]
fn the_printed_catalogue_can_be_edited_and_given_back() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("catalogue.toml");
    let given = file.to_str().unwrap();
    let builtin = printed(&["catalogue"]);
    fs::write(&file, &builtin).unwrap();
    assert_eq!(printed(&["catalogue", "--catalogue", given]), builtin);
    let example = printed(&["catalogue", "--catalogue", EXAMPLE]);
    assert!(
        example.contains("modules = [\"experiment\", \"segment\"]\n"),
        "{example}"
    );
    assert_eq!(example.lines().count(), builtin.lines().count() + 6);
    // The edit forbids one built-in action and removes one custom action.
    let edited: Vec<_> = example
        .lines()
        .filter(|line| !line.contains("\"segment.export\""))
        .map(|line| match line.contains("\"entry.delete\"") {
            true => line.replace("GRANTABLE", "NEVER"),
            false => line.to_owned(),
        })
        .collect();
    fs::write(&file, edited.join("\n")).unwrap();
    let again = printed(&["catalogue", "--catalogue", given]);
    let changed: Vec<_> = again
        .lines()
        .filter(|line| !example.contains(*line))
        .collect();
    let [version, forbidden] = changed[..] else {
        panic!("{changed:?}")
    };
    assert!(
        version.starts_with("# The catalogue in effect."),
        "{version}"
    );
    assert!(
        forbidden.contains("\"entry.delete\"") && forbidden.contains("\"NEVER\""),
        "{forbidden}"
    );
    assert_eq!(again.lines().count(), example.lines().count() - 1);
}

#[test]
fn an_unusable_catalogue_is_reported_in_one_line() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("catalogue.toml");
    let given = file.to_str().unwrap();
    let told = |arguments: &[&str]| {
        let done = run(arguments);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&done.stdout), "");
        let told = text(&done.stderr);
        assert_eq!(told.lines().count(), 1, "{told}");
        told
    };
    let missing = told(&["catalogue", "--catalogue", given]);
    assert!(
        missing.starts_with(&format!("stacktoken: --catalogue {given}: ")),
        "{missing}"
    );
    fs::write(
        &file,
        "# loosens\n[[actions]]\nname = \"token.create\"\nrule = \"GRANTABLE\"\n",
    )
    .unwrap();
    let wanted = format!("--catalogue {given}: line 4: `rule` is GRANTABLE, but the action is");
    for command in ["catalogue", "routes"] {
        let told = told(&[command, "--catalogue", given]);
        assert!(told.contains(&wanted), "{told}");
    }
}

#[test]
fn the_route_table_may_name_actions_of_the_catalogue_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("routes.toml");
    let given = file.to_str().unwrap();
    fs::write(
        &file,
        "[[routes]]\nmethod = \"GET\"\npath = \"/own\"\nactions = [\"segment.read\"]\n",
    )
    .unwrap();
    let both = ["routes", "--catalogue", EXAMPLE, "--authz-routes", given];
    assert!(printed(&both).contains("path = \"/own\", actions = [\"segment.read\"]"));
    let done = run(&["routes", "--authz-routes", given]);
    assert_eq!(done.status.code(), Some(1));
    let told = text(&done.stderr);
    let wanted = format!(
        "--authz-routes {given}: line 4: `actions` contains \"segment.read\", which is not in the catalogue"
    );
    assert!(told.contains(&wanted), "{told}");
}
