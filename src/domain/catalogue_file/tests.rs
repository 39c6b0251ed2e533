//! Tests of catalogue files, valid and invalid.

use super::*;

const ACTION: &str = "[[actions]]\nname = \"ape.read\"\naccess = \"READ\"\nrule = \"GRANTABLE\"\nbranch_bound = false\n";

/// Returns a file with the module `ape` and one action of it, with the text `line` replaced by
/// `by`.
fn with(line: &str, by: &str) -> String {
    let file = format!("modules = [\"ape\"]\n{ACTION}");
    assert!(file.contains(line), "{line}");
    file.replace(line, by)
}

fn builtin(name: &str, columns: &str) -> String {
    format!("[[actions]]\nname = {name:?}\n{columns}")
}

/// Requires that each file is refused with a message of one line that contains the expected text.
fn require_error<const N: usize>(table: [(String, &str); N]) {
    for (text, told) in table {
        let fault = parse(&text).unwrap_err().to_string();
        assert!(fault.starts_with("line "), "{fault}");
        assert!(fault.contains(told), "{text}\n{fault}\n{told}");
        assert_eq!(fault.lines().count(), 1, "{fault}");
    }
}

const RULE: &str = "rule = \"GRANTABLE\"";

#[test]
fn a_malformed_catalogue_is_refused_with_line_key_and_remedy() {
    let long = "a".repeat(63);
    require_error([
        ("modules".into(), "line 1: is not TOML"),
        (with(RULE, "rule ="), "line 5: is not TOML"),
        (
            with(RULE, "name = \"ape.write\""),
            "line 5: is not TOML: duplicate key `name`: keep it once",
        ),
        (
            format!("# none\nmodule = [\"ape\"]\n{ACTION}"),
            "line 2: `module` is unknown: the keys are modules, actions",
        ),
        (
            with(RULE, "rules = \"GRANTABLE\""),
            "line 5: `rules` is unknown: the keys are name, access, rule",
        ),
        ("\"a\\nb\" = 1".into(), "line 1: `a\\nb` is unknown"),
        (
            "modules = \"ape\"".into(),
            "line 1: `modules` must be a list of strings",
        ),
        (
            "modules = [\n  \"ape\",\n  1,\n]".into(),
            "line 3: `modules` must be a list of strings",
        ),
        (
            with("[\"ape\"]", "[\"ape\",\n\"Ape\"]"),
            "line 2: `modules` contains \"Ape\", which must be a word",
        ),
        (
            with("[\"ape\"]", "[\"\"]"),
            "line 1: `modules` contains \"\", which must be a word",
        ),
        (
            with("\"ape\"", &format!("\"ape\", \"{long}\"")),
            "which must be a word of at most 62",
        ),
        (
            with("[\"ape\"]", "[\"ape\",\n\"entry\"]"),
            "line 2: `modules` contains \"entry\", which is built in: remove it",
        ),
        (
            with("[\"ape\"]", "[\n\"ape\",\n\n\"ape\"]"),
            "line 4: `modules` contains \"ape\", which is on line 2 too: keep it once",
        ),
        (
            with("[\"ape\"]", "[\"ape\",\n\"bee\"]"),
            "line 2: `modules` contains \"bee\", which has no action: add one",
        ),
    ]);
}

#[test]
fn an_incomplete_action_is_refused_with_line_key_and_remedy() {
    require_error([
        (
            "modules = []\nactions = 1".into(),
            "line 2: `actions` is not a list of tables: write [[actions]] with two brackets",
        ),
        (
            "[actions]\nname = \"role.read\"".into(),
            "line 1: `actions` is not a list of tables",
        ),
        (
            "actions = [\n1]".into(),
            "line 2: `actions` contains something that is not a table",
        ),
        (
            with("name = \"ape.read\"", ""),
            "line 2: `name` is required",
        ),
        (
            with("\"ape.read\"", "\"ape\""),
            "line 3: `name` is \"ape\", not `module.verb`: write two words",
        ),
        (
            with("\"ape.read\"", "\"ape.Read\""),
            "line 3: `name` is \"ape.Read\", not `module.verb`",
        ),
        (
            with("\"ape.read\"", "\"apee.read\""),
            "line 3: `name` is \"apee.read\", of the module apee, which is neither built in nor in `modules`: add it",
        ),
        (
            format!("{}{ACTION}", with(RULE, RULE)),
            "line 8: `name` is \"ape.read\", as in the action on line 2: keep one",
        ),
        (
            format!(
                "{}{}",
                builtin("role.read", "rule = \"NEVER\"\n"),
                builtin("role.read", "rule = \"NEVER\"\n")
            ),
            "line 5: `name` is \"role.read\", as in the action on line 1",
        ),
        (
            with("access = \"READ\"", ""),
            "line 2: `access` is required, because no built-in action has this name: correct the name, or write READ or WRITE for a new action",
        ),
        (
            with("\"READ\"", "\"READ_WRITE\""),
            "line 4: `access` is \"READ_WRITE\": write READ or WRITE",
        ),
        (
            with("\"READ\"", "true"),
            "line 4: `access` must be a non-empty string",
        ),
        (
            with(RULE, ""),
            "line 2: `rule` is required: write GRANTABLE, NEVER or CONDITIONAL",
        ),
        (
            with(RULE, "rule = \"ALLOW\""),
            "line 5: `rule` is \"ALLOW\": write GRANTABLE",
        ),
        (
            with("branch_bound = false", ""),
            "line 2: `branch_bound` is required: write true if",
        ),
        (
            with("branch_bound = false", "branch_bound = \"no\""),
            "line 6: `branch_bound` must be true or false",
        ),
    ]);
}

#[test]
fn a_loosening_condition_or_row_is_refused_with_line_key_and_remedy() {
    require_error([
        (
            with(RULE, "rule = \"CONDITIONAL\""),
            "line 2: `fact` is required, because `rule` is CONDITIONAL: write {",
        ),
        (
            with(
                RULE,
                "rule = \"NEVER\"\nfact = { name = \"x\", value = true }",
            ),
            "line 6: `fact` is for CONDITIONAL only, and `rule` is NEVER: remove it",
        ),
        (
            with(RULE, "rule = \"CONDITIONAL\"\nfact = \"x=true\""),
            "line 6: `fact` must be a table",
        ),
        (
            with(RULE, "rule = \"CONDITIONAL\"\nfact = { name = \"x\" }"),
            "line 6: `value` of `fact` is required: write true or false",
        ),
        (
            with(
                RULE,
                "rule = \"CONDITIONAL\"\nfact = { name = \"a b\", value = true }",
            ),
            "line 6: `name` of `fact` must be 1 to 64",
        ),
        (
            with(
                RULE,
                "rule = \"CONDITIONAL\"\nfact = { name = \"x\", value = true, or = 1 }",
            ),
            "line 6: `or` is unknown: the keys are name, value",
        ),
        (
            builtin("token.read", "rule = \"GRANTABLE\""),
            "line 3: `rule` is GRANTABLE, but the action is built in with NEVER: repeat that, or set `rule` to NEVER",
        ),
        (
            builtin("entry.update", "rule = \"NEVER\"\naccess = \"READ\""),
            "line 4: `access` is READ, but the action is built in with WRITE",
        ),
        (
            builtin("entry.update", "rule = \"GRANTABLE\"\nbranch_bound = false"),
            "line 4: `branch_bound` is false, but the action is built in with true",
        ),
        (
            builtin(
                "publish_rule.create",
                "rule = \"CONDITIONAL\"\nfact = { name = \"has_approvers\", value = true }",
            ),
            "line 4: `fact` is has_approvers=true, but the action is built in with has_approvers=false",
        ),
        (
            builtin("role.read", "access = \"READ\""),
            "line 1: `rule` is required",
        ),
        (
            builtin(
                "stack.rename",
                "access = \"WRITE\"\nrule = \"GRANTABLE\"\nbranch_bound = false",
            ),
            "line 4: `rule` is GRANTABLE, but no token may ever write in the built-in module stack (R5): write NEVER, or declare",
        ),
        (
            builtin(
                "entry.archive",
                "access = \"WRITE\"\nrule = \"GRANTABLE\"\nbranch_bound = false",
            ),
            "line 5: `branch_bound` is false, but branches bind every action of the built-in module entry: write true",
        ),
    ]);
}

#[test]
fn a_file_has_at_most_as_many_modules_and_actions_as_are_supported() {
    let file = |modules: usize, actions: usize| {
        let names: Vec<_> = (0..modules).map(|index| format!("\"m{index}\"")).collect();
        let rows = (0..actions).map(|index| {
            let module = index % modules;
            ACTION.replace("ape.read", &format!("m{module}.read_{index}"))
        });
        let rows: String = rows.collect();
        format!("\nmodules = [{}]\n{rows}", names.join(", "))
    };
    assert!(parse(&file(MAX_MODULES, MAX_ACTIONS)).is_ok());
    let told = |text: String| parse(&text).unwrap_err().to_string();
    let modules = told(file(MAX_MODULES + 1, 101));
    assert!(
        modules.contains("line 2: `modules` lists 101 modules: at most 100"),
        "{modules}"
    );
    let actions = told(file(1, MAX_ACTIONS + 1));
    assert!(
        actions.contains("line 3: `actions` adds 1001 actions: at most 1000"),
        "{actions}"
    );
}

/// A file that uses every feature of the format.
const OWN: &str = "modules = [\"zebra\", \"ape\"]\n\
    [[actions]]\nname = \"entry.delete\"\nrule = \"NEVER\"\n\
    [[actions]]\nname = \"entry.archive\"\naccess = \"WRITE\"\nrule = \"GRANTABLE\"\nbranch_bound = true\n\
    [[actions]]\nname = \"zebra.read\"\naccess = \"READ\"\nrule = \"GRANTABLE\"\nbranch_bound = true\n\
    [[actions]]\nname = \"zebra.sell\"\naccess = \"WRITE\"\nrule = \"NEVER\"\nbranch_bound = false\n\
    [[actions]]\nname = \"ape.feed\"\naccess = \"WRITE\"\nrule = \"CONDITIONAL\"\nfact = { name = \"is_hungry\", value = true }\nbranch_bound = false\n";

#[test]
fn a_catalogue_that_is_written_down_reads_back() {
    for catalogue in [Catalogue::builtin(), parse(OWN).unwrap()] {
        let written = to_toml(&catalogue);
        let read = parse(&written).unwrap();
        assert_eq!(read.actions(), catalogue.actions());
        assert_eq!(read.version(), catalogue.version());
        assert_eq!(to_toml(&read), written);
    }
}

#[test]
fn a_file_adds_to_the_built_in_catalogue_and_forbids() {
    let catalogue = parse(OWN).unwrap();
    let builtin = Catalogue::builtin();
    assert_eq!(catalogue.actions().len(), builtin.actions().len() + 4);
    let rule = |name: &str| catalogue.find(name).unwrap().rule.name();
    assert_eq!(rule("entry.delete"), "NEVER");
    assert_eq!(rule("entry.update"), "GRANTABLE");
    let fed = catalogue.find("ape.feed").unwrap().to_string();
    let expected =
        "ape.feed module=ape access=WRITE rule=CONDITIONAL(is_hungry=true) branch_bound=false";
    assert_eq!(fed, expected);
}

#[test]
fn the_version_changes_exactly_when_the_content_of_the_file_does() {
    let version = |text: &str| parse(text).unwrap().version().to_owned();
    let own = version(OWN);
    for empty in ["", "# nothing", "modules = []\nactions = []"] {
        assert_eq!(version(empty), Catalogue::builtin().version());
    }
    let (head, rows) = OWN.split_once('\n').unwrap();
    let mut rows: Vec<_> = rows.split("[[actions]]\n").skip(1).collect();
    rows.reverse();
    let turned = format!(
        "# turned\nmodules = [\n  \"ape\", # one\n  \"zebra\",\n]\n\n[[actions]]\n{}",
        rows.join("# next\n[[actions]]\n")
    );
    assert_eq!(version(&turned), own);
    let repeated = format!("{OWN}[[actions]]\nname = \"role.read\"\nrule = \"GRANTABLE\"\n");
    assert_eq!(version(&repeated), own, "a built-in row that is repeated");
    assert!(head.starts_with("modules"));
    for (from, to) in [
        ("\"entry.delete\"", "\"entry.create\""),
        ("zebra.sell", "zebra.buy"),
        (
            "name = \"zebra.read\"\naccess = \"READ\"",
            "name = \"zebra.read\"\naccess = \"WRITE\"",
        ),
        ("value = true", "value = false"),
        ("is_hungry", "is_tame"),
        (
            "access = \"READ\"\nrule = \"GRANTABLE\"\nbranch_bound = true",
            "access = \"READ\"\nrule = \"GRANTABLE\"\nbranch_bound = false",
        ),
        ("zebra", "horse"),
    ] {
        assert!(OWN.contains(from), "{from}");
        assert_ne!(version(&OWN.replace(from, to)), own, "{to}");
    }
}
