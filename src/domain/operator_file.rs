//! Parses the TOML files that an operator writes: the route table and the catalogue. Every error
//! states the line, the key, what is wrong and how to fix it. This module does not open the files.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Why a file is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct FileError {
    line: usize,
    problem: String,
}

impl FileError {
    /// Describes what is wrong with a key on a line.
    #[must_use]
    pub fn on(line: usize, key: &str, problem: &str) -> Self {
        // A quoted key may contain a line break, which would split the message.
        let key = key.escape_debug();
        Self {
            line,
            problem: format!("`{key}` {problem}"),
        }
    }
}

/// A file that was parsed as TOML.
pub struct OperatorFile<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

impl<'a> OperatorFile<'a> {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// Returns [`FileError`] if the text is not TOML.
    pub fn parse(text: &'a str) -> Result<Self, FileError> {
        let root = DeTable::parse(text).map_err(|error| {
            let words: Vec<_> = error.message().lines().collect();
            let span = error.span().unwrap_or_default();
            let mut problem = format!("is not TOML: {}", words.join(", "));
            // The library's error does not name the key, but its span covers the key.
            if error.message() == "duplicate key" {
                let key = text.get(span.clone()).unwrap_or_default().escape_debug();
                problem = format!("{problem} `{key}`: keep it once");
            }
            let line = line_of(text, span);
            FileError { line, problem }
        })?;
        Ok(Self { text, root })
    }

    /// Returns the top-level table of the file.
    pub fn root(&self) -> Section<'_> {
        Section {
            text: self.text,
            span: 0..0,
            table: self.root.get_ref(),
        }
    }
}

/// One element of an array of strings, and where it is in the file.
pub struct Item<'a> {
    /// The value of the string.
    pub text: &'a str,
    /// Line number, for errors that name the element.
    pub line: usize,
}

/// A table of a file, such as one `[[routes]]` entry.
#[derive(Clone)]
pub struct Section<'a> {
    text: &'a str,
    span: Range<usize>,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// Returns the number of the line on which the table starts.
    pub fn line(&self) -> usize {
        line_of(self.text, self.span.clone())
    }

    /// Checks that the table has no keys other than `keys`.
    pub fn only(&self, keys: &[&str]) -> Result<(), FileError> {
        let unknown = self
            .table
            .keys()
            .filter(|key| !keys.contains(&key.get_ref().as_ref()));
        // The keys of a table are sorted by name.
        let Some(first) = unknown.min_by_key(|key| key.span().start) else {
            return Ok(());
        };
        let problem = format!("is unknown: the keys are {}", keys.join(", "));
        Err(self.fault(first.get_ref(), &problem))
    }

    /// Returns the string at a required key.
    pub fn text(&self, key: &str) -> Result<&'a str, FileError> {
        self.optional_text(key)?
            .ok_or_else(|| self.fault(key, "is required: set it to a string"))
    }

    /// Returns a string. Returns `None` if the key is absent.
    pub fn optional_text(&self, key: &str) -> Result<Option<&'a str>, FileError> {
        match self.get(key) {
            None => Ok(None),
            Some(DeValue::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.fault(key, "must be a non-empty string")),
        }
    }

    /// Returns `true` or `false`. Returns `None` if the key is absent.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FileError> {
        match self.get(key) {
            None => Ok(None),
            Some(DeValue::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(self.fault(key, "must be true or false")),
        }
    }

    /// Returns a list of strings. Returns `None` if the key is absent or its value is not a list of
    /// strings.
    pub fn texts(&self, key: &str) -> Option<Vec<&'a str>> {
        let list = self.get(key)?.as_array()?;
        list.iter().map(|value| value.get_ref().as_str()).collect()
    }

    /// Returns the strings of a list with their line numbers. The result is empty if the key is
    /// absent.
    pub fn items(&self, key: &str) -> Result<Vec<Item<'a>>, FileError> {
        let problem = "must be a list of strings, such as [\"a\", \"b\"]";
        let list = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(list)) => list,
            Some(_) => return Err(self.fault(key, problem)),
        };
        let item = |value: &'a Spanned<DeValue<'a>>| {
            let line = line_of(self.text, value.span());
            let text = value.get_ref().as_str();
            text.map(|text| Item { text, line })
                .ok_or_else(|| FileError::on(line, key, problem))
        };
        list.iter().map(item).collect()
    }

    /// Returns a table. Returns `None` if the key is absent.
    pub fn section(&self, key: &str) -> Result<Option<Self>, FileError> {
        let found = self.table.iter().find(|(found, _)| found.get_ref() == key);
        match found.map(|(_, value)| (value.get_ref(), value.span())) {
            None => Ok(None),
            Some((DeValue::Table(table), span)) => Ok(Some(Section {
                text: self.text,
                span,
                table,
            })),
            Some(_) => Err(self.fault(key, "must be a table, such as { key = \"value\" }")),
        }
    }

    /// Returns a list of tables. It is empty if the key is absent.
    pub fn sections(&self, key: &str) -> Result<Vec<Self>, FileError> {
        let list = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(DeValue::Array(list)) => list,
            Some(_) => {
                let problem = format!("is not a list of tables: write [[{key}]] with two brackets");
                return Err(self.fault(key, &problem));
            }
        };
        let section = |value: &'a Spanned<DeValue<'a>>| match value.get_ref() {
            DeValue::Table(table) => Ok(Section {
                text: self.text,
                span: value.span(),
                table,
            }),
            _ => Err(FileError {
                line: line_of(self.text, value.span()),
                problem: format!(
                    "`{key}` contains something that is not a table: write [[{key}]] above its keys"
                ),
            }),
        };
        list.iter().map(section).collect()
    }

    /// Describes what is wrong with a key. If the key is absent, reports the line of the table.
    pub fn fault(&self, key: &str, problem: &str) -> FileError {
        let found = self.table.keys().find(|found| found.get_ref() == key);
        let span = found.map_or_else(|| self.span.clone(), Spanned::span);
        FileError::on(line_of(self.text, span), key, problem)
    }

    fn get(&self, key: &str) -> Option<&'a DeValue<'a>> {
        let mut entries = self.table.iter();
        let (_, value) = entries.find(|(found, _)| found.get_ref() == key)?;
        Some(value.get_ref())
    }
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or_default();
    before.matches('\n').count() + 1
}
