//! Reads the keys of one entry while the issuers file is parsed. Every error states the section and
//! the number of the entry. This module does not know which keys an entry may have.

use toml::{Table, Value};

use crate::domain::caller::CallerKind;

/// An error in the issuers file. Its text states the entry, the key, what is wrong and how to fix
/// it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IssuersError(pub(super) String);

/// A table of the issuers file.
pub(super) struct Entry<'a> {
    section: &'static str,
    number: usize,
    table: &'a Table,
}

impl<'a> Entry<'a> {
    pub fn new(
        section: &'static str,
        number: usize,
        entry: &'a Value,
    ) -> Result<Self, IssuersError> {
        let Value::Table(table) = entry else {
            return Err(IssuersError(format!(
                "{section} entry {number} is not a table: write [[{section}]] above its keys"
            )));
        };
        Ok(Self {
            section,
            number,
            table,
        })
    }

    /// Checks that the entry has no keys other than `keys`.
    pub fn only(&self, keys: &[&str]) -> Result<(), IssuersError> {
        match self.table.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => {
                let problem = format!("is unknown: the keys are {}", keys.join(", "));
                Err(self.fault(key, &problem))
            }
            None => Ok(()),
        }
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.table.get(key)
    }

    /// Parses the key `caller`, whose value must be one of `kinds`.
    pub fn caller(&self, kinds: &[(&str, CallerKind)]) -> Result<CallerKind, IssuersError> {
        let text = self.text("caller")?;
        let found = kinds.iter().find(|(name, _)| *name == text);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
            let (last, rest) = names.split_last().unwrap_or((&"", &[]));
            let problem = format!(
                "is not a kind of caller: write {} or {last}",
                rest.join(", ")
            );
            self.fault("caller", &problem)
        })
    }

    pub fn text(&self, key: &str) -> Result<&'a str, IssuersError> {
        self.optional_text(key)?
            .ok_or_else(|| self.fault(key, "is required: set it to a string"))
    }

    pub fn optional_text(&self, key: &str) -> Result<Option<&'a str>, IssuersError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.fault(key, "must be a non-empty string")),
        }
    }

    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, IssuersError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        let texts = value
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect());
        texts
            .map(Some)
            .ok_or_else(|| self.fault(key, "must be a list of strings, as in [\"a\", \"b\"]"))
    }

    pub fn fault(&self, key: &str, problem: &str) -> IssuersError {
        IssuersError(format!(
            "{} entry {}, `{key}` {problem}",
            self.section, self.number
        ))
    }
}
