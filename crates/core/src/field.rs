//! Validation of a caller's input. All faults are reported together. Each one names its field, what
//! is wrong and what to do.

use std::borrow::Cow;

/// What is wrong with a value, and what to do about it. The text never quotes a secret (R9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(Cow<'static, str>);

impl Problem {
    /// Creates a problem from its description.
    pub fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self(words.into())
    }
}

/// A fault in a request: the path of the field, such as `permissions.modules.grants[2].module`, and
/// the problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, starting at the request message.
    pub field: String,
    /// What is wrong with the field, and what to do.
    pub problem: Problem,
}

/// The faults of a request that have been found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Adds a fault.
    pub fn add(&mut self, field: impl Into<String>, problem: Problem) {
        self.0.push(Violation {
            field: field.into(),
            problem,
        });
    }

    /// Returns the parsed value. If parsing failed, adds a fault for the field and returns `None`.
    pub fn keep<T>(&mut self, field: impl Into<String>, parsed: Result<T, Problem>) -> Option<T> {
        parsed.map_err(|problem| self.add(field, problem)).ok()
    }

    /// Returns the value of an embedded message. If parsing failed, adds its faults and returns
    /// `None`. Each path is prefixed with `field`, unless `field` is empty.
    pub fn nest<T>(&mut self, field: &str, parsed: Result<T, Violations>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(Violations(inner)) => {
                self.0.extend(inner.into_iter().map(|fault| Violation {
                    field: join(field, fault.field),
                    problem: fault.problem,
                }));
                None
            }
        }
    }

    /// Returns whether no fault was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value if there is one and no fault was added.
    ///
    /// # Errors
    /// Returns the faults otherwise.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// Returns the faults in the order in which they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }
}

fn join(outer: &str, inner: String) -> String {
    match (outer, inner.as_str()) {
        ("", _) => inner,
        (_, "") => outer.to_owned(),
        // An entry of a map, such as `labels["team"]`, needs no dot.
        _ if inner.starts_with('[') => outer.to_owned() + &inner,
        _ => format!("{outer}.{inner}"),
    }
}
