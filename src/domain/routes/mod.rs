//! The route table: maps a method and path to actions of the catalogue. A request without an entry
//! is unknown; there is no default. Independent of gRPC.

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

/// Default table, used if the operator supplies none: content management API v3.
const BUILTIN: &str = include_str!("builtin.toml");

/// Maps the method and path of a request to the actions it needs.
#[derive(Clone, Debug)]
pub struct RouteTable {
    default_branch: String,
    root: Node,
}

/// A node of the path tree. A literal word takes precedence over `{name}`, and no other spelling
/// of that word matches `{name}`.
#[derive(Clone, Debug, Default)]
struct Node {
    words: BTreeMap<String, Self>,
    name: Option<Box<Self>>,
    methods: BTreeMap<&'static str, Needs>,
}

/// Actions that a method needs, and the number of the entry that says so.
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
    /// Returns the built-in table for content management API v3.
    ///
    /// # Errors
    /// Never; a test ensures this.
    pub fn builtin() -> Result<Self, RoutesError> {
        file::parse(BUILTIN)
    }

    /// Parses an operator's file, which replaces the built-in table.
    ///
    /// # Errors
    /// [`RoutesError`] for the first fault.
    pub fn parse(text: &str) -> Result<Self, RoutesError> {
        file::parse(text)
    }

    /// Returns the branch of a request that names none.
    #[must_use]
    pub fn default_branch(&self) -> &str {
        &self.default_branch
    }

    /// Returns the actions that a request needs; `None`, which denies it, if there is no entry.
    /// `path` has no query. HEAD needs the same actions as GET.
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

    /// Adds an entry; fails with the number of an existing entry for the same method and path.
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
        // A case-insensitive router behind this service would take the segment for that word.
        let is_a_word = |word: &String| word.eq_ignore_ascii_case(segment);
        if self.words.keys().any(is_a_word) {
            return None;
        }
        self.name.as_deref()
    }
}

/// Returns whether a path has a single spelling, so that every reader sees the same path.
#[must_use]
pub fn is_canonical(path: &str) -> bool {
    path::segments(path).is_some()
}

/// Splits a request target at the first `?` into path and query.
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
