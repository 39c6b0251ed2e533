//! The route table, which maps the method and path of a request to actions of the catalogue. A
//! request without an entry is unknown, and there is no default entry. This code does not depend on
//! gRPC.

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

/// The default table, for version 3 of the content management API. It is used if the operator
/// provides no file.
const BUILTIN: &str = include_str!("builtin.toml");

/// Maps the method and path of a request to the actions that the request needs.
#[derive(Clone, Debug)]
pub struct RouteTable {
    default_branch: String,
    root: Node,
}

/// A node of the path tree. A literal word takes precedence over `{name}`. A segment that differs
/// from a literal word only in letter case matches neither.
#[derive(Clone, Debug, Default)]
struct Node {
    words: BTreeMap<String, Self>,
    name: Option<Box<Self>>,
    methods: BTreeMap<&'static str, Needs>,
}

/// The actions that a request with one method needs, and the number of the entry that lists them.
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
    /// Returns the built-in table for version 3 of the content management API.
    ///
    /// # Errors
    /// Never returns an error, because a test parses the built-in table.
    pub fn builtin() -> Result<Self, RoutesError> {
        file::parse(BUILTIN)
    }

    /// Parses an operator's routes file. The table replaces the built-in one.
    ///
    /// # Errors
    /// Returns [`RoutesError`] for the first fault.
    pub fn parse(text: &str) -> Result<Self, RoutesError> {
        file::parse(text)
    }

    /// Returns the branch of a request that does not name one.
    #[must_use]
    pub fn default_branch(&self) -> &str {
        &self.default_branch
    }

    /// Returns the actions that a request needs. Returns `None` if the table has no entry for the
    /// request, which is denied then. `path` must not contain the query. HEAD needs the same
    /// actions as GET.
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

    /// Adds an entry. Returns the number of the existing entry if there is already one for the same
    /// method and path.
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
        // A case-insensitive router behind this service would match the segment with that word, so
        // it must not match `{name}` here.
        let is_a_word = |word: &String| word.eq_ignore_ascii_case(segment);
        if self.words.keys().any(is_a_word) {
            return None;
        }
        self.name.as_deref()
    }
}

/// Returns whether a path is canonical, so that every server interprets it as the same path.
#[must_use]
pub fn is_canonical(path: &str) -> bool {
    path::segments(path).is_some()
}

/// Splits a request target into path and query at the first `?`.
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
