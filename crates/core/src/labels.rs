//! The labels of a token. They are short keys with values, for finding and grouping the tokens of a
//! stack. They do not affect verdicts.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::{
    field::{Problem, Violations},
    secret,
    text::LabelValue,
};

/// The maximum number of labels of a token.
pub const MAX: usize = 16;
/// The maximum length of a key in characters.
const MAX_KEY: usize = 63;

/// The labels of a token, sorted by key. An empty set allocates nothing, so that a cached token
/// without labels stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Parses labels. There are at most [`MAX`] of them, with keys of 1 to 63 characters of
    /// `[a-z0-9_.-]` and values of up to 63 characters.
    ///
    /// # Errors
    /// Returns all violations. The path of a violation is `["key"]`, or empty if it concerns the
    /// labels as a whole or a key that must not be quoted.
    pub fn parse(labels: BTreeMap<String, String>) -> Result<Self, Violations> {
        let mut faults = Violations::default();
        if labels.len() > MAX {
            let problem = format!("has {} labels: use at most {MAX}", labels.len());
            faults.add("", Problem::new(problem));
        }
        let mut parsed = Vec::with_capacity(labels.len().min(MAX));
        for (key, value) in labels {
            let field = path(&key);
            let value = faults.keep(field.as_str(), LabelValue::parse(&value));
            if let Err(problem) = check_key(&key) {
                faults.add(field, problem);
            }
            parsed.extend(value.map(|value| (key.into_boxed_str(), value.as_str().into())));
        }
        faults.finish(Some(Self(parsed.into_boxed_slice())))
    }

    /// Takes labels without checking them, because they were checked when they were set, perhaps by
    /// a newer server with other limits than [`Self::parse`].
    #[must_use]
    pub fn unchecked(labels: BTreeMap<String, String>) -> Self {
        let boxed = |(key, value): (String, String)| (key.into_boxed_str(), value.into());
        Self(labels.into_iter().map(boxed).collect())
    }

    /// Returns whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys with their values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Returns the labels as a map.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        self.iter().map(owned).collect()
    }
}

impl Serialize for Labels {
    /// Serializes the labels as a map.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// Returns the field path of a label, with the key in quotes. Returns an empty path if an error
/// must not repeat the key, because the key is too long, is not printable, or contains a credential
/// (R9).
fn path(key: &str) -> String {
    match LabelValue::parse(key) {
        Ok(_) => format!("[\"{}\"]", key.escape_debug()),
        Err(_) => String::new(),
    }
}

fn check_key(key: &str) -> Result<(), Problem> {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
    };
    if (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(fits) && !secret::is_within(key) {
        return Ok(());
    }
    Err(Problem::new(
        "has a key that is not 1 to 63 of the characters a-z 0-9 _ . -",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";

    fn parse(labels: &[(&str, &str)]) -> Result<Labels, Violations> {
        let owned = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Labels::parse(owned.collect())
    }

    fn fields(labels: &[(&str, &str)]) -> Vec<String> {
        let faults = parse(labels).unwrap_err();
        let faults = faults.as_slice().iter();
        faults.map(|fault| fault.field.clone()).collect()
    }

    #[test]
    fn labels_are_kept_in_the_order_of_their_keys() {
        let (longest, value) = ("k".repeat(63), "é".repeat(63));
        let labels = parse(&[
            ("team", "shop"),
            ("a_b.c-9", ""),
            (&longest, &value),
            ("city", "Zoe\u{301} 2"),
        ]);
        let labels = labels.unwrap();
        let kept: Vec<_> = labels.iter().collect();
        assert_eq!(
            kept,
            [
                ("a_b.c-9", ""),
                ("city", "Zo\u{e9} 2"),
                (&longest, &value),
                ("team", "shop"),
            ]
        );
        let json = r#"{"team":"shop"}"#;
        let one = parse(&[("team", "shop")]).unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), json);
        assert!(parse(&[]).unwrap().is_empty());
    }

    #[test]
    fn every_fault_of_labels_is_named_at_once() {
        let many: Vec<_> = (0..17).map(|n| format!("k{n}")).collect();
        let many: Vec<_> = many.iter().map(|key| (key.as_str(), "")).collect();
        assert!(parse(&many[..16]).is_ok());
        assert_eq!(fields(&many), [""]);
        let long = "k".repeat(64);
        assert_eq!(
            fields(&[
                ("Team", "x"),
                ("a b", "x"),
                ("é", "x"),
                ("ok", "a\u{7}b"),
                ("value", "x".repeat(64).as_str()),
                (&long, "x"),
                ("", "x"),
            ]),
            [
                "[\"\"]",
                "[\"Team\"]",
                "[\"a b\"]",
                "",
                "[\"ok\"]",
                "[\"value\"]",
                "[\"é\"]",
            ]
        );
        assert_eq!(fields(&[("Team", "\n")]), ["[\"Team\"]", "[\"Team\"]"]);
    }

    #[test]
    fn a_secret_is_refused_in_a_key_and_in_a_value_and_not_echoed() {
        for (labels, field) in [([(SECRET, "x")], ""), ([("key", SECRET)], "[\"key\"]")] {
            let faults = parse(&labels).unwrap_err();
            assert_eq!(faults.as_slice()[0].field, field);
            assert!(!format!("{faults:?}").contains("stk1_z"));
        }
    }
}
