//! Faults in what a caller sent: every one of them, each with its field, what is wrong and
//! what to do.

use std::borrow::Cow;

/// What is wrong with one value, and what to do about it. Never quotes a secret (R9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(Cow<'static, str>);

impl Problem {
    /// A problem in words.
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
    /// Notes a fault.
    pub fn add(&mut self, field: impl Into<String>, problem: Problem) {
        self.0.push(Violation {
            field: field.into(),
            problem,
        });
    }

    /// The value, or notes what is wrong with it.
    pub fn keep<T>(&mut self, field: impl Into<String>, parsed: Result<T, Problem>) -> Option<T> {
        parsed.map_err(|problem| self.add(field, problem)).ok()
    }

    /// Takes the faults of an embedded message over, below its path; below no path, as they
    /// are.
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

    /// The value, if it was built and nothing was noted.
    ///
    /// # Errors
    /// The faults, if there are any.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// The faults in the order they were found.
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
