//! The parser of the routes file. It returns the route table or the first fault, and does not open
//! the file itself.

use toml::{Table, Value};

use super::{Needs, Node, RouteTable, Segment, path};
use crate::domain::{catalogue, text};

/// The branch of a request that does not name one, unless the routes file sets another. It is the
/// default of the content management API.
const DEFAULT_BRANCH: &str = "main";
/// The methods that an entry can have. A HEAD request uses the entry for GET.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const KEYS: [&str; 3] = ["method", "path", "actions"];

/// Why the routes file is invalid. Names the entry and the key, and says what is wrong and what to
/// do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RoutesError(String);

pub(super) fn parse(text: &str) -> Result<RouteTable, RoutesError> {
    let file: Table = toml::from_str(text).map_err(|error| not_toml(text, &error))?;
    if let Some(key) = file
        .keys()
        .find(|key| !["default_branch", "routes"].contains(&key.as_str()))
    {
        return Err(RoutesError(format!(
            "unknown key `{key}`: the file holds `default_branch` and [[routes]] entries, remove it"
        )));
    }
    let mut table = RouteTable {
        default_branch: default_branch(&file)?,
        root: Node::default(),
    };
    let entries = match file.get("routes") {
        Some(Value::Array(entries)) if !entries.is_empty() => entries,
        None | Some(Value::Array(_)) => {
            return Err(RoutesError(
                "no [[routes]] entry: add one, or every request is denied".to_owned(),
            ));
        }
        Some(_) => {
            return Err(RoutesError(
                "`routes` is not a list of tables: write [[routes]] with two brackets".to_owned(),
            ));
        }
    };
    for (entry, number) in entries.iter().zip(1..) {
        Entry::new(number, entry)?.add_to(&mut table)?;
    }
    Ok(table)
}

fn not_toml(text: &str, error: &toml::de::Error) -> RoutesError {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let words: Vec<_> = error.message().lines().collect();
    RoutesError(format!("line {line} is not TOML: {}", words.join(", ")))
}

fn default_branch(file: &Table) -> Result<String, RoutesError> {
    let given = match file.get("default_branch") {
        None => return Ok(DEFAULT_BRANCH.to_owned()),
        Some(Value::String(name)) => text::parse_slug(name).ok(),
        Some(_) => None,
    };
    given.ok_or_else(|| {
        RoutesError(
            "default_branch is no name of a branch: write a text such as \"main\"".to_owned(),
        )
    })
}

/// An entry that is being parsed. It keeps its number, so that every fault can name the entry.
struct Entry<'a> {
    number: usize,
    table: &'a Table,
}

impl<'a> Entry<'a> {
    fn new(number: usize, entry: &'a Value) -> Result<Self, RoutesError> {
        let Value::Table(table) = entry else {
            return Err(RoutesError(format!(
                "routes entry {number} is not a table: write [[routes]] above its keys"
            )));
        };
        Ok(Self { number, table })
    }

    fn add_to(&self, routes: &mut RouteTable) -> Result<(), RoutesError> {
        if let Some(key) = self.table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let problem = format!("is unknown: the keys are {}", KEYS.join(", "));
            return Err(self.fault(key, &problem));
        }
        let method = self.method()?;
        let template = self.template()?;
        let needs = Needs {
            entry: self.number,
            actions: self.actions()?,
        };
        routes.add(method, &template, needs).map_err(|other| {
            let problem = format!("is the same as that of entry {other}: keep one of them");
            self.fault("path", &problem)
        })
    }

    fn method(&self) -> Result<&'static str, RoutesError> {
        let text = self.text("method")?;
        if text == "HEAD" {
            let problem = "is HEAD, which goes by the entry of GET: remove this one";
            return Err(self.fault("method", problem));
        }
        let known = METHODS.into_iter().find(|method| *method == text);
        known.ok_or_else(|| {
            let problem = format!("is {text:?}: use one of {}", METHODS.join(", "));
            self.fault("method", &problem)
        })
    }

    fn template(&self) -> Result<Vec<Segment<'a>>, RoutesError> {
        let text = self.text("path")?;
        let segments = text.strip_prefix('/').unwrap_or_default().split('/');
        let segments: Option<Vec<_>> = segments.map(segment).collect();
        segments.ok_or_else(|| {
            let problem = format!(
                "is {text:?}: write segments of letters, digits, `-`, `.`, `_` or `{{name}}`, each after one `/`"
            );
            self.fault("path", &problem)
        })
    }

    fn actions(&self) -> Result<Vec<String>, RoutesError> {
        let needed = "must list at least one action, such as [\"entry.read\"]";
        let list = self.table.get("actions").and_then(Value::as_array);
        let list = list.filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| self.fault("actions", needed))?;
        let actions = list.iter().map(|value| {
            let name = value
                .as_str()
                .ok_or_else(|| self.fault("actions", needed))?;
            catalogue::check_shape(name).map_err(|problem| {
                self.fault("actions", &format!("holds {name:?}: it {problem}"))
            })?;
            if catalogue::find(name).is_none() {
                let problem =
                    format!("holds {name:?}, which the catalogue lacks: ListActions has the names");
                return Err(self.fault("actions", &problem));
            }
            Ok(name.to_owned())
        });
        actions.collect()
    }

    fn text(&self, key: &str) -> Result<&'a str, RoutesError> {
        match self.table.get(key) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            None => Err(self.fault(key, "is required: give it a text")),
            Some(_) => Err(self.fault(key, "must be a text that is not empty")),
        }
    }

    fn fault(&self, key: &str, problem: &str) -> RoutesError {
        RoutesError(format!("routes entry {}: `{key}` {problem}", self.number))
    }
}

/// Parses a segment of a path template. A segment is a literal word, or `{name}`, which matches any
/// single segment.
fn segment(text: &str) -> Option<Segment<'_>> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let inside = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    if inside.is_some_and(is_name) {
        return Some(Segment::Name);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_word = text.bytes().all(plain) && path::segments(&format!("/{text}")).is_some();
    is_word.then_some(Segment::Word(text))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
