//! Parses the routes file, and returns the route table or the first fault. Also writes a route
//! table as such a file. Does not open files itself.

use std::{collections::HashMap, fmt::Write as _};

use super::{DEFAULT_BRANCH, Route, RouteTable, Segment, path};
use crate::domain::{
    catalogue::{self, Catalogue},
    operator_file::{FileError, OperatorFile, Section},
    text,
};

/// The methods that an entry can have. A HEAD request uses the entry for GET.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const FILE_KEYS: [&str; 3] = ["builtin", "default_branch", "routes"];
const ROUTE_KEYS: [&str; 3] = ["method", "path", "actions"];

/// Parses a routes file. Its entries are added to those of `builtin`, unless the file sets
/// `builtin = false`. An entry for the same method and path replaces the built-in one.
pub(super) fn parse(
    text: &str,
    builtin: RouteTable,
    catalogue: &Catalogue,
) -> Result<RouteTable, FileError> {
    let file = OperatorFile::parse(text)?;
    let root = file.root();
    root.only(&FILE_KEYS)?;
    let extends = root.boolean("builtin")?.unwrap_or(true);
    let mut table = if extends {
        builtin
    } else {
        RouteTable::default()
    };
    if let Some(branch) = default_branch(&root)? {
        branch.clone_into(&mut table.default_branch);
    }
    let entries = root.sections("routes")?;
    if entries.is_empty() && table.routes.is_empty() {
        let problem = "is empty: add a [[routes]] entry, or every request is denied";
        return Err(root.fault("routes", problem));
    }
    let mut lines = HashMap::new();
    for entry in entries {
        let route = route(&entry, catalogue)?;
        if let Some(line) = lines.insert(route.key(), entry.line()) {
            let problem =
                format!("is the same as that of the entry on line {line}: keep one of them");
            return Err(entry.fault("path", &problem));
        }
        table.put(route);
    }
    Ok(table)
}

fn default_branch<'a>(root: &Section<'a>) -> Result<Option<&'a str>, FileError> {
    let wrong = || {
        root.fault(
            "default_branch",
            "is not the name of a branch: write a string such as \"main\"",
        )
    };
    let Some(name) = root.optional_text("default_branch").map_err(|_| wrong())? else {
        return Ok(None);
    };
    text::parse_slug(name).map_err(|_| wrong())?;
    Ok(Some(name))
}

fn route(entry: &Section<'_>, catalogue: &Catalogue) -> Result<Route, FileError> {
    entry.only(&ROUTE_KEYS)?;
    Ok(Route {
        method: method(entry)?,
        path: template(entry)?,
        actions: actions(entry, catalogue)?,
    })
}

fn method(entry: &Section<'_>) -> Result<&'static str, FileError> {
    let text = entry.text("method")?;
    if text == "HEAD" {
        let problem = "is HEAD, which uses the entry for GET: remove this one";
        return Err(entry.fault("method", problem));
    }
    let known = METHODS.into_iter().find(|method| *method == text);
    known.ok_or_else(|| {
        let problem = format!("is {text:?}: use one of {}", METHODS.join(", "));
        entry.fault("method", &problem)
    })
}

fn template(entry: &Section<'_>) -> Result<String, FileError> {
    let text = entry.text("path")?;
    let mut segments = text.strip_prefix('/').unwrap_or_default().split('/');
    if segments.all(is_segment) {
        return Ok(text.to_owned());
    }
    let problem = format!(
        "is {text:?}: write segments of letters, digits, `-`, `.`, `_` or `{{name}}`, each after one `/`"
    );
    Err(entry.fault("path", &problem))
}

fn actions(entry: &Section<'_>, catalogue: &Catalogue) -> Result<Vec<String>, FileError> {
    let listed = entry.texts("actions").filter(|list| !list.is_empty());
    let listed = listed.ok_or_else(|| {
        entry.fault(
            "actions",
            "must list at least one action, such as [\"entry.read\"]",
        )
    })?;
    let checked = listed.into_iter().map(|name| {
        catalogue::check_shape(name)
            .map_err(|problem| entry.fault("actions", &format!("contains {name:?}: it {problem}")))?;
        if catalogue.find(name).is_none() {
            let problem =
                format!("contains {name:?}, which is not in the catalogue: `stacktoken catalogue` prints it, and --catalogue adds to it");
            return Err(entry.fault("actions", &problem));
        }
        Ok(name.to_owned())
    });
    checked.collect()
}

/// Returns whether a string can be a segment of a path template. A segment is a literal word, or
/// `{name}`, which matches any single segment.
fn is_segment(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match Segment::of(text) {
        Segment::Name(name) => is_name(name),
        Segment::Word(word) => {
            word.bytes().all(plain) && path::segments(&format!("/{word}")).is_some()
        }
    }
}

/// Writes a table as the text of a file that replaces the built-in table. Methods, paths and names
/// are not escaped, because they contain no special characters.
pub(super) fn write(table: &RouteTable) -> String {
    let mut text = "\
# The actions that each request checked by Envoy requires. Edit it, and give it back with
# --authz-routes FILE. Without `builtin = false`, a file adds to the built-in table.
builtin = false
"
    .to_owned();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = text.write_fmt(line);
    };
    if table.default_branch == DEFAULT_BRANCH {
        line(format_args!(
            "# The branch of a request without a `branch` header.\n"
        ));
    }
    line(format_args!(
        "default_branch = \"{}\"\n\nroutes = [\n",
        table.default_branch
    ));
    for Route {
        method,
        path,
        actions,
    } in &table.routes
    {
        let pad = " ".repeat(6_usize.saturating_sub(method.len()));
        let actions = actions.join("\", \"");
        line(format_args!(
            "  {{ method = \"{method}\",{pad} path = \"{path}\", actions = [\"{actions}\"] }},\n"
        ));
    }
    line(format_args!("]\n"));
    text
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
