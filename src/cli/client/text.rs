//! Formats answers as lines and tables for people. Removes characters that could control a terminal
//! from strings that the server sent.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use prost_types::Timestamp;

use super::federation;
use crate::{
    domain::text as characters,
    grpc::pb::v1::{self, TokenSecret},
};

/// A table whose columns are as wide as their longest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|heading| (*heading).to_owned());
        Self {
            rows: vec![headings.collect()],
        }
    }

    /// Adds a row, which must have a cell for each heading.
    pub fn add(&mut self, cells: &[String]) {
        let cells = cells.iter().map(|cell| printable(cell));
        self.rows.push(cells.collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        let widths = cells.map(|cell| cell.chars().count());
        widths.max().unwrap_or_default()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Formats a token with one line for each fact that is set.
pub fn token(token: &v1::Token) -> String {
    let optional = |at: &Option<Timestamp>| at.as_ref().map(|at| instant(Some(at), ""));
    let facts = [
        ("token", some(&token.token_uid)),
        ("name", some(&token.name)),
        ("description", some(&token.description)),
        ("state", some(&state(token))),
        (
            "permissions",
            some(&permissions(token.permissions.as_ref())),
        ),
        ("labels", some(&labels(&token.labels))),
        ("secrets", some(&secrets(&token.secrets))),
        (
            "exchange",
            token.federation.as_ref().map(federation::described),
        ),
        ("issued", issued(token)),
        ("expires", Some(instant(token.expires_at.as_ref(), "never"))),
        ("revoked", optional(&token.revoked_at)),
        ("revoked by", token.revoked_by.as_ref().map(person)),
        ("reason", some(&token.revoke_reason)),
        (
            "last used",
            Some(instant(token.last_used_at.as_ref(), "never")),
        ),
        ("etag", some(&token.etag)),
    ];
    lines(&facts)
}

/// Formats a verdict.
pub fn verdict(answer: &v1::IntrospectResponse) -> String {
    let active = if answer.active { "active" } else { "inactive" };
    let reason = enum_word(answer.reason().as_str_name(), "REASON_");
    let mut facts = vec![
        ("token", some(&answer.token_uid)),
        ("verdict", some(active)),
        (
            "reason",
            some(&reason).filter(|reason| reason != "unspecified"),
        ),
    ];
    let results = answer.results.iter().map(|result| {
        let reason = enum_word(result.reason().as_str_name(), "REASON_");
        let verdict = if result.allowed {
            "allowed".to_owned()
        } else {
            format!("denied: {reason}")
        };
        ("action", Some(format!("{} {verdict}", result.name)))
    });
    facts.extend(results);
    if let Some(token) = &answer.token {
        facts.push(("name", some(&token.name)));
        facts.push(("generation", Some(token.generation.to_string())));
    }
    if let Some(stack) = &answer.stack {
        facts.push((
            "stack",
            Some(format!("{} {}", stack.stack_api_key, stack.name)),
        ));
    }
    let session = answer.session.as_ref();
    facts.push(("session", session.map(session_of)));
    facts.push(("labels", some(&labels(&answer.labels))));
    let granted = answer.permissions.as_ref();
    facts.push((
        "permissions",
        granted.map(|granted| permissions(Some(granted))),
    ));
    if answer.active {
        facts.push((
            "expires",
            Some(instant(answer.expires_at.as_ref(), "never")),
        ));
    }
    lines(&facts)
}

/// Formats the impact of a change: the services that recently used the token.
pub fn impact(impact: Option<&v1::Impact>) -> String {
    let Some(impact) = impact else {
        return String::new();
    };
    let last_used = instant(impact.last_used_at.as_ref(), "never");
    let services = impact.services.iter().filter_map(|used| {
        let service = printable(&used.service.as_ref()?.subject);
        Some(format!(
            "{service} {}",
            instant(used.last_used_at.as_ref(), "")
        ))
    });
    let services: Vec<_> = services.collect();
    let mut text = format!("last used: {last_used}");
    for service in services {
        text = format!("{text}\nused in the last 30 days by {service}");
    }
    text
}

/// Formats when a token expires or has expired.
pub fn expiry(token: &v1::Token) -> String {
    let expires_at = instant(token.expires_at.as_ref(), "never");
    match (token.state(), &token.expires_at) {
        (_, None) => "never expires".to_owned(),
        (v1::TokenState::Expired, _) => format!("expired at {expires_at}"),
        _ => format!("expires at {expires_at}"),
    }
}

/// Formats an instant in UTC, with a precision of one second. Returns `absent` if there is none.
pub fn instant(at: Option<&Timestamp>, absent: &str) -> String {
    at.map_or_else(
        || absent.to_owned(),
        |at| {
            let whole = Timestamp { nanos: 0, ..*at };
            whole.to_string()
        },
    )
}

/// Formats the session whose secret was presented.
fn session_of(facts: &v1::SessionFacts) -> String {
    let began = instant(facts.issued_at.as_ref(), "");
    format!("of {}, since {began}", facts.subject)
}

/// Returns the name of an enum value without its prefix, in lower case and with hyphens.
pub fn enum_word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name);
    word.to_lowercase().replace('_', "-")
}

/// Formats the access of a token. A token that is restricted to modules or branches is marked.
pub fn access(permissions: Option<&v1::Permissions>) -> String {
    let Some(permissions) = permissions else {
        return String::new();
    };
    let access = enum_word(permissions.access().as_str_name(), "ACCESS_");
    if permissions.modules.is_some() || permissions.branches.is_some() {
        format!("{access}, restricted")
    } else {
        access
    }
}

/// Formats the last characters of the live secrets, by which users can recognize the secrets.
pub fn hints(secrets: &[TokenSecret]) -> String {
    let hints: Vec<_> = secrets.iter().map(hint).collect();
    hints.join(" ")
}

/// Replaces non-printing characters and line breaks in a string by spaces.
pub fn printable(text: &str) -> String {
    let shown = |letter: char| {
        if characters::is_unprintable(letter) {
            ' '
        } else {
            letter
        }
    };
    text.chars().map(shown).collect()
}

fn hint(secret: &TokenSecret) -> String {
    format!("…{}", secret.hint)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Formats the facts that are set, one per line, with aligned values.
fn lines(facts: &[(&str, Option<String>)]) -> String {
    let mut lines = String::new();
    for (name, value) in facts {
        if let Some(value) = value {
            // Writing to a String does not fail.
            let _ = writeln!(lines, "{:12} {}", format!("{name}:"), printable(value));
        }
    }
    lines
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<_> = (labels.iter())
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(" ")
}

fn state(token: &v1::Token) -> String {
    enum_word(token.state().as_str_name(), "TOKEN_STATE_")
}

fn issued(token: &v1::Token) -> Option<String> {
    let issued_at = instant(Some(token.issued_at.as_ref()?), "");
    let by = token.issued_by.as_ref().map(person).unwrap_or_default();
    Some(format!("{issued_at} by {by}"))
}

fn person(actor: &v1::Actor) -> String {
    format!("{} ({})", actor.subject, actor.issuer)
}

/// Formats live secrets with their generations, first uses and ends.
pub fn secrets(secrets: &[TokenSecret]) -> String {
    let secrets: Vec<_> = secrets
        .iter()
        .map(|secret| {
            let ends = secret.ends_at.as_ref();
            let ends = ends.map(|at| format!(", ends {}", instant(Some(at), "")));
            let used = instant(secret.first_used_at.as_ref(), "never");
            let (generation, hint) = (secret.generation, hint(secret));
            format!(
                "{hint} (generation {generation}, first used {used}{})",
                ends.unwrap_or_default()
            )
        })
        .collect();
    secrets.join("; ")
}

/// Formats permissions as the flags that `issue` accepts.
fn permissions(permissions: Option<&v1::Permissions>) -> String {
    let Some(permissions) = permissions else {
        return String::new();
    };
    let mut words = vec![enum_word(permissions.access().as_str_name(), "ACCESS_")];
    for grant in permissions
        .modules
        .iter()
        .flat_map(|modules| &modules.grants)
    {
        let access = enum_word(grant.access().as_str_name(), "ACCESS_");
        words.push(format!("--module {}:{access}", grant.module));
    }
    if let Some(branches) = &permissions.branches {
        let named = |flag: &str, name: &String| format!("{flag} {name}");
        words.extend(branches.branches.iter().map(|name| named("--branch", name)));
        words.extend(branches.aliases.iter().map(|name| named("--alias", name)));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_table_are_aligned() {
        let mut table = Table::new(&["A", "LONG", "C"]);
        table.add(&["one", "é", "x"].map(str::to_owned));
        table.add(&["", "longest", ""].map(str::to_owned));
        let expected = "A    LONG     C\none  é        x\n     longest\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_text_of_the_server_cannot_control_the_terminal() {
        let token_with = v1::Token {
            name: "\u{1b}[2Ja\nb\u{202e}c\u{9b}".into(),
            ..v1::Token::default()
        };
        let shown = token(&token_with);
        assert!(shown.contains("name:         [2Ja b c \n"), "{shown:?}");
    }

    #[test]
    fn an_instant_is_shown_to_the_second() {
        let at = Timestamp {
            seconds: 60,
            nanos: 999_999_999,
        };
        assert_eq!(instant(Some(&at), ""), "1970-01-01T00:01:00Z");
        assert_eq!(instant(None, "never"), "never");
    }
}
