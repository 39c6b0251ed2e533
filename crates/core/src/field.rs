//! Validation of a caller's input: every fault is reported, with its field, what is wrong and what
//! to do.

use std::borrow::Cow;

/// What is wrong with one value, and what to do about it. Never quotes a secret (R9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(Cow<'static, str>);

impl Problem {
    /// Creates a problem from its description.
    pub fn new(words: impl Into<Cow<'static, str>>) -> Self {
        Self(words.into())
    }
}

/// One fault: the path of the field, as in `permissions.modules.grants[2].module`, and the problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path from the request message.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: Problem,
}

/// All faults found so far.
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

    /// Returns the value, or adds a fault for the field and returns `None`.
    pub fn keep<T>(&mut self, field: impl Into<String>, parsed: Result<T, Problem>) -> Option<T> {
        parsed.map_err(|problem| self.add(field, problem)).ok()
    }

    /// Returns the value of an embedded message, or adds its faults and returns `None`. The path of
    /// each fault is prefixed with `field`, unless that is empty.
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

    /// Returns the value, if it was built and there are no faults.
    ///
    /// # Errors
    /// Returns the faults otherwise.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
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
        _ => format!("{outer}.{inner}"),
    }
}
