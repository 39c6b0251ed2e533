//! The route table, which maps the method and path of a request to actions of the catalogue. There
//! is no default entry, so a request without an entry is denied. This code does not depend on gRPC.

mod file;
mod names;
mod path;
mod query;

use std::collections::BTreeMap;

use super::{catalogue::Catalogue, operator_file::FileError};

pub use self::{
    names::{is_credential, is_override, is_same_header},
    query::{Query, QueryFault, check_query},
};

/// The built-in table, for version 3 of the content management API.
const BUILTIN: &str = include_str!("builtin.toml");
/// The branch of a request that does not name one, unless the routes file sets another. The content
/// management API has the same default.
const DEFAULT_BRANCH: &str = "main";

/// Maps the method and path of a request to the actions that the request needs.
#[derive(Clone, Debug)]
pub struct RouteTable {
    default_branch: String,
    /// All entries, those of the built-in table first.
    routes: Vec<Route>,
    root: Node,
}

/// An entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    method: &'static str,
    /// The template, such as `/v3/assets/{asset}`.
    path: String,
    actions: Vec<String>,
}

/// A node of the path tree. A literal word takes precedence over `{name}`. A segment that differs
/// from a literal word only in letter case matches neither.
#[derive(Clone, Debug, Default)]
struct Node {
    words: BTreeMap<String, Self>,
    name: Option<Box<Self>>,
    /// The index of the entry for each method.
    methods: BTreeMap<&'static str, usize>,
}

/// A segment of a path template.
enum Segment<'a> {
    Word(&'a str),
    Name(&'a str),
}

impl<'a> Segment<'a> {
    fn of(text: &'a str) -> Self {
        let inside = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'));
        inside.map_or(Self::Word(text), Self::Name)
    }
}

impl Route {
    /// Returns the segments of the template, without the names of its placeholders.
    fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.path.split('/').skip(1).map(Segment::of)
    }

    /// Returns a key that is the same for all entries that match the same requests.
    fn key(&self) -> (&'static str, Vec<Option<String>>) {
        let segments = self.segments().map(|segment| match segment {
            Segment::Word(word) => Some(word.to_owned()),
            Segment::Name(_) => None,
        });
        (self.method, segments.collect())
    }
}

/// An empty table, which denies every request.
impl Default for RouteTable {
    fn default() -> Self {
        Self {
            default_branch: DEFAULT_BRANCH.to_owned(),
            routes: Vec::new(),
            root: Node::default(),
        }
    }
}

impl RouteTable {
    /// Returns the built-in table for version 3 of the content management API.
    ///
    /// # Errors
    /// Never returns an error, because a test parses the built-in table.
    pub fn builtin() -> Result<Self, FileError> {
        file::parse(BUILTIN, Self::default(), &Catalogue::builtin())
    }

    /// Parses an operator's routes file, which extends the built-in table or replaces it. All
    /// actions in the file must be in the catalogue in effect.
    ///
    /// # Errors
    /// Returns [`FileError`] for the first fault.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, FileError> {
        file::parse(text, Self::builtin()?, catalogue)
    }

    /// Writes the table as the text of a file. [`Self::parse`] returns the same table for this
    /// text.
    #[must_use]
    pub fn to_toml(&self) -> String {
        file::write(self)
    }

    /// Returns the branch of a request that does not name one.
    #[must_use]
    pub fn default_branch(&self) -> &str {
        &self.default_branch
    }

    /// Returns the actions that a request needs. Returns `None` if the table has no entry for the
    /// request, which must then be denied. `path` must not contain the query. HEAD needs the same
    /// actions as GET.
    #[must_use]
    pub fn actions(&self, method: &str, path: &str) -> Option<&[String]> {
        let method = if method == "HEAD" { "GET" } else { method };
        let mut node = &self.root;
        for segment in path::segments(path)? {
            node = node.step(segment)?;
        }
        let route = self.routes.get(*node.methods.get(method)?)?;
        Some(&route.actions)
    }

    /// Adds an entry, or replaces the entry for the same method and path.
    fn put(&mut self, route: Route) {
        let mut node = &mut self.root;
        for segment in route.segments() {
            node = match segment {
                Segment::Word(word) => node.words.entry(word.to_owned()).or_default(),
                Segment::Name(_) => node.name.get_or_insert_default(),
            };
        }
        let index = *node
            .methods
            .entry(route.method)
            .or_insert(self.routes.len());
        match self.routes.get_mut(index) {
            Some(replaced) => *replaced = route,
            None => self.routes.push(route),
        }
    }
}

impl Node {
    fn step(&self, segment: &str) -> Option<&Self> {
        if let Some(word) = self.words.get(segment) {
            return Some(word);
        }
        // If the segment differs from a word only in letter case, it must not match `{name}`,
        // because a case-insensitive router behind this service would match the word.
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
