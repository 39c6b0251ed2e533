//! From a request to what it does: method and path in, actions of the catalogue out. What
//! the table does not know is not known; there is no rule for the rest. Knows no gRPC.

mod file;
mod names;
mod path;
mod query;

use std::collections::BTreeMap;

pub use self::{
    file::RoutesError,
    names::{fold, is_credential, is_override},
    query::{QueryFault, check_query},
};

/// The table that is used where an operator brings none: the content management API, v3.
const BUILTIN: &str = include_str!("builtin.toml");

/// Which actions a request needs, by its method and path.
#[derive(Clone, Debug)]
pub struct RouteTable {
    default_branch: String,
    root: Node,
}

/// One segment further: words that stand in the table win over a `{name}`, and are never
/// taken for one, so that no spelling of a word slips into the `{name}` beside it.
#[derive(Clone, Debug, Default)]
struct Node {
    words: BTreeMap<String, Self>,
    name: Option<Box<Self>>,
    methods: BTreeMap<&'static str, Needs>,
}

/// What a method needs here, and which entry of the file says so.
#[derive(Clone, Debug)]
struct Needs {
    entry: usize,
    actions: Vec<String>,
}

/// A segment of a path template.
enum Segment<'a> {
    Word(&'a str),
    Name,
}

impl RouteTable {
    /// The table of the content management API, v3.
    ///
    /// # Errors
    /// Never, which a test holds it to.
    pub fn builtin() -> Result<Self, RoutesError> {
        file::parse(BUILTIN)
    }

    /// Reads the text of an operator's file, which takes the place of the built-in table.
    ///
    /// # Errors
    /// [`RoutesError`] for the first fault.
    pub fn parse(text: &str) -> Result<Self, RoutesError> {
        file::parse(text)
    }

    /// The branch that a request without one works on.
    #[must_use]
    pub fn default_branch(&self) -> &str {
        &self.default_branch
    }

    /// What this request needs; `None` where no entry speaks of it, which denies. `path` is
    /// without its query, and HEAD needs what GET does.
    #[must_use]
    pub fn actions(&self, method: &str, path: &str) -> Option<&[String]> {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut node = &self.root;
        for segment in path::segments(path)? {
            node = node.step(segment)?;
        }
        node.methods
            .get(method)
            .map(|needs| needs.actions.as_slice())
    }

    /// Adds an entry; the number of the one that says the same already, if there is one.
    fn add(
        &mut self,
        method: &'static str,
        template: &[Segment<'_>],
        needs: Needs,
    ) -> Result<(), usize> {
        let mut node = &mut self.root;
        for segment in template {
            node = match segment {
                Segment::Word(word) => node.words.entry((*word).to_owned()).or_default(),
                Segment::Name => node.name.get_or_insert_default(),
            };
        }
        if let Some(other) = node.methods.get(method) {
            return Err(other.entry);
        }
        node.methods.insert(method, needs);
        Ok(())
    }
}

impl Node {
    fn step(&self, segment: &str) -> Option<&Self> {
        if let Some(word) = self.words.get(segment) {
            return Some(word);
        }
        // A router behind us may not care about case: then this would be that word.
        let is_a_word = |word: &String| word.eq_ignore_ascii_case(segment);
        if self.words.keys().any(is_a_word) {
            return None;
        }
        self.name.as_deref()
    }
}

/// Whether a path has one spelling only, so that whoever reads it sees the same one.
#[must_use]
pub fn is_canonical(path: &str) -> bool {
    path::segments(path).is_some()
}

/// Path and query of a request target, cut at the first `?`.
#[must_use]
pub fn split_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
