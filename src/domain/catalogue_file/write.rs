//! Writes a catalogue as a file that can be edited and used with `--catalogue`.

use std::fmt::Write as _;

use crate::domain::catalogue::{Action, Catalogue, Module, Rule};

/// Writes a catalogue as the text of a file. [`super::parse`] returns the same catalogue for this
/// text. Names are not escaped, because no name contains a special character.
#[must_use]
pub fn to_toml(catalogue: &Catalogue) -> String {
    let mut text = format!(
        "\
# The catalogue in effect. ListActions gives it the version {}.
# Edit it, and give it back with --catalogue FILE. A file adds to the built-in catalogue: a built-in
# action stays as it is, whether it is repeated or left out, unless `rule` is set to NEVER.
modules = [{}]

actions = [
",
        catalogue.version(),
        own_modules(catalogue).join(", ")
    );
    for action in catalogue.actions() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {{ {} }},", columns(action));
    }
    text.push_str("]\n");
    text
}

/// Returns the quoted names of the modules that are not built in.
fn own_modules(catalogue: &Catalogue) -> Vec<String> {
    let own = catalogue.actions().iter();
    let own = own.filter(|action| matches!(action.module, Module::Own(_)));
    let mut names: Vec<_> = own
        .map(|action| format!("{:?}", action.module.name()))
        .collect();
    names.dedup();
    names
}

fn columns(action: &Action) -> String {
    let name = format!("\"{}\",", action.name);
    let access = format!("\"{}\",", action.access.name());
    let fact = match &action.rule {
        Rule::Conditional(fact) => {
            format!(
                ", fact = {{ name = \"{}\", value = {} }}",
                fact.name, fact.value
            )
        }
        Rule::Grantable | Rule::Never => String::new(),
    };
    format!(
        "name = {name:<32} access = {access:<8} rule = \"{}\"{fact}, branch_bound = {}",
        action.rule.name(),
        action.branch_bound
    )
}
