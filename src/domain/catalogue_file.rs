//! Parses the catalogue file, in which an operator adds modules and actions to the built-in
//! catalogue and forbids built-in actions. This module does not open the file.

mod write;

use std::{borrow::Cow, collections::HashMap};

use super::{
    catalogue::{self, Action, ActionAccess, Catalogue, Fact, Module, OwnModule, Rule},
    operator_file::{FileError, OperatorFile, Section},
    text,
};

pub use self::write::to_toml;

const FILE_KEYS: [&str; 2] = ["modules", "actions"];
const ACTION_KEYS: [&str; 5] = ["name", "access", "rule", "fact", "branch_bound"];
const FACT_KEYS: [&str; 2] = ["name", "value"];
/// The maximum number of modules that a file can add. This bounds the size of a token's
/// permissions, which list each granted module.
const MAX_MODULES: usize = 100;
/// The maximum number of actions that a file can add. `ListActions` returns all of them at once.
const MAX_ACTIONS: usize = 1_000;

/// The modules that a file adds, each with its line number.
type Modules = HashMap<OwnModule, usize>;

/// Parses a catalogue file. Its rows are added to the built-in catalogue. They cannot permit
/// anything that the built-in catalogue forbids.
///
/// # Errors
/// Returns [`FileError`] for the first fault.
pub fn parse(text: &str) -> Result<Catalogue, FileError> {
    let file = OperatorFile::parse(text)?;
    let root = file.root();
    root.only(&FILE_KEYS)?;
    let modules = modules(&root)?;
    let entries = root.sections("actions")?;
    let rows = rows(&entries, &modules)?;
    require_use(&modules, &rows)?;
    require_few(&root, &rows)?;
    Catalogue::extended(rows).map_err(|misfit| {
        let entry = entries.get(misfit.row).unwrap_or(&root);
        entry.fault(misfit.column, &misfit.problem.to_string())
    })
}

/// Returns the modules that the file adds.
fn modules(root: &Section<'_>) -> Result<Modules, FileError> {
    let mut modules = Modules::new();
    for item in root.items("modules")? {
        let fault = |problem: &str| {
            let problem = format!("contains {:?}, which {problem}", item.text);
            FileError::on(item.line, "modules", &problem)
        };
        let module = match Module::named(item.text) {
            Ok(Module::Own(module)) => module,
            Ok(Module::Builtin(_)) => return Err(fault("is built in: remove it from the list")),
            Err(problem) => return Err(fault(&problem.to_string())),
        };
        if let Some(line) = modules.insert(module, item.line) {
            return Err(fault(&format!("is on line {line} too: keep it once")));
        }
    }
    if modules.len() > MAX_MODULES {
        let problem = format!("lists {} modules: at most {MAX_MODULES} fit", modules.len());
        return Err(root.fault("modules", &problem));
    }
    Ok(modules)
}

fn rows(entries: &[Section<'_>], modules: &Modules) -> Result<Vec<Action>, FileError> {
    let builtin = Catalogue::builtin();
    let mut lines = HashMap::new();
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let row = row(entry, &builtin, modules)?;
        if let Some(line) = lines.insert(row.name.clone(), entry.line()) {
            let problem = format!(
                "is {:?}, as in the action on line {line}: keep one of them",
                row.name
            );
            return Err(entry.fault("name", &problem));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Parses one action. For a built-in action, only the rule is required; the file may omit the other
/// columns.
fn row(entry: &Section<'_>, builtin: &Catalogue, modules: &Modules) -> Result<Action, FileError> {
    entry.only(&ACTION_KEYS)?;
    let name = entry.text("name")?;
    let module = module(entry, name, modules)?;
    let known = builtin.find(name);
    Ok(Action {
        name: Cow::Owned(name.to_owned()),
        module,
        access: access(entry, known)?,
        rule: rule(entry)?,
        branch_bound: branch_bound(entry, known)?,
    })
}

/// Returns the module of an action. The module must be built in or listed in the file, so that a
/// typo does not create a module.
fn module(entry: &Section<'_>, name: &str, modules: &Modules) -> Result<Module, FileError> {
    let fault = |problem: &str| entry.fault("name", &format!("is {name:?}, {problem}"));
    if catalogue::check_shape(name).is_err() {
        return Err(fault(
            "not `module.verb`: write two words of lower-case letters, digits and `_`, together at most 64 characters",
        ));
    }
    let (module, _) = name.split_once('.').unwrap_or((name, ""));
    match Module::named(module) {
        Ok(Module::Own(own)) if !modules.contains_key(&own) => Err(fault(&format!(
            "of the module {module}, which is neither built in nor in `modules`: add it there"
        ))),
        Ok(module) => Ok(module),
        Err(problem) => Err(fault(&format!("whose module {problem}"))),
    }
}

fn access(entry: &Section<'_>, known: Option<&Action>) -> Result<ActionAccess, FileError> {
    match (entry.optional_text("access")?, known) {
        (Some("READ"), _) => Ok(ActionAccess::Read),
        (Some("WRITE"), _) => Ok(ActionAccess::Write),
        (Some(other), _) => {
            Err(entry.fault("access", &format!("is {other:?}: write READ or WRITE")))
        }
        (None, Some(known)) => Ok(known.access),
        // A new action must have this column. Otherwise, a mistyped name in a row that is meant to
        // forbid a built-in action would silently add a new action.
        (None, None) => Err(entry.fault(
            "access",
            "is required, because no built-in action has this name: correct the name, or write READ or WRITE for a new action",
        )),
    }
}

fn branch_bound(entry: &Section<'_>, known: Option<&Action>) -> Result<bool, FileError> {
    let required = || {
        let problem = "is required: write true if a token that is narrowed to branches may do this only on them, or false";
        entry.fault("branch_bound", problem)
    };
    let known = known.map(|action| action.branch_bound);
    entry
        .boolean("branch_bound")?
        .or(known)
        .ok_or_else(required)
}

fn rule(entry: &Section<'_>) -> Result<Rule, FileError> {
    const CHOICES: &str = "write GRANTABLE, NEVER or CONDITIONAL";
    let fact = entry.section("fact")?;
    let rule = match entry.optional_text("rule")? {
        Some("GRANTABLE") => Rule::Grantable,
        Some("NEVER") => Rule::Never,
        Some("CONDITIONAL") => return conditional(entry, fact),
        Some(other) => return Err(entry.fault("rule", &format!("is {other:?}: {CHOICES}"))),
        None => return Err(entry.fault("rule", &format!("is required: {CHOICES}"))),
    };
    if fact.is_some() {
        let problem = format!(
            "is for CONDITIONAL only, and `rule` is {}: remove it",
            rule.name()
        );
        return Err(entry.fault("fact", &problem));
    }
    Ok(rule)
}

fn conditional(entry: &Section<'_>, fact: Option<Section<'_>>) -> Result<Rule, FileError> {
    const EXAMPLE: &str = "{ name = \"has_approvers\", value = false }";
    let Some(fact) = fact else {
        let problem = format!("is required, because `rule` is CONDITIONAL: write {EXAMPLE}");
        return Err(entry.fault("fact", &problem));
    };
    fact.only(&FACT_KEYS)?;
    let name = fact.text("name")?;
    let name = text::parse_slug(name)
        .map_err(|problem| fact.fault("name", &format!("of `fact` {problem}")))?;
    let value = fact.boolean("value")?;
    let required = || fact.fault("value", "of `fact` is required: write true or false");
    Ok(Rule::Conditional(Fact {
        name: Cow::Owned(name),
        value: value.ok_or_else(required)?,
    }))
}

/// Refuses a module without an action, because nothing in it could be granted.
fn require_use(modules: &Modules, rows: &[Action]) -> Result<(), FileError> {
    let is_used = |module: &OwnModule| {
        let mut names = rows.iter().map(|row| row.module.name());
        names.any(|name| name == module.name())
    };
    let unused = modules.iter().filter(|(module, _)| !is_used(module));
    let Some((module, line)) = unused.min_by_key(|(_, line)| **line) else {
        return Ok(());
    };
    let problem = format!(
        "contains {:?}, which has no action: add one to `actions`, or remove the module",
        module.name()
    );
    Err(FileError::on(*line, "modules", &problem))
}

fn require_few(root: &Section<'_>, rows: &[Action]) -> Result<(), FileError> {
    let builtin = Catalogue::builtin();
    let added = rows.iter().filter(|row| builtin.find(&row.name).is_none());
    let added = added.count();
    if added <= MAX_ACTIONS {
        return Ok(());
    }
    let problem = format!("adds {added} actions: at most {MAX_ACTIONS} fit");
    Err(root.fault("actions", &problem))
}

#[cfg(test)]
mod tests;
