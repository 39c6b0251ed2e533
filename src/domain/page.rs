//! Stable pagination: each page starts after the last row of the previous page.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::field::Problem;

const DEFAULT_SIZE: u64 = 50;
const MAX_SIZE: u64 = 100;

/// Parses a page size. 0 means the default of 50, and a size of more than 100 means 100.
///
/// # Errors
/// Returns a [`Problem`] for a negative number.
pub fn parse_size(size: i32) -> Result<u64, Problem> {
    let wrong = || {
        Problem::new(format!(
            "is {size}: use 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}"
        ))
    };
    match u64::try_from(size).map_err(|_| wrong())? {
        0 => Ok(DEFAULT_SIZE),
        size => Ok(size.min(MAX_SIZE)),
    }
}

/// Truncates `rows` to a page of `size` rows. If `rows` had more rows than that, another page
/// follows, and the cursor of the last row of this page is returned. The caller must therefore read
/// at least one row more than fits on the page.
pub fn cut<T, C>(rows: &mut Vec<T>, size: u64, cursor: impl FnOnce(&T) -> C) -> Option<C> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    rows.last().filter(|_| more).map(cursor)
}

#[derive(Serialize, Deserialize)]
struct Envelope<C> {
    /// The fingerprint of the query to which the page belongs.
    q: String,
    /// The cursor after which the next page starts.
    c: C,
}

/// Encodes a page token, which consists of the query's fingerprint and the start of the next page.
/// The token grants no access: with a forged token, a caller can only start at another row, which
/// the caller may read anyway.
pub fn seal<C: Serialize>(question: &impl Serialize, cursor: C) -> String {
    let envelope = Envelope {
        q: fingerprint(question),
        c: cursor,
    };
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&envelope).unwrap_or_default())
}

/// Decodes a page token and returns its cursor. Returns `None` for an empty token, which means the
/// first page.
///
/// # Errors
/// Returns a [`Problem`] if the token is malformed or belongs to another query.
pub fn open<C: DeserializeOwned>(
    question: &impl Serialize,
    token: &str,
) -> Result<Option<C>, Problem> {
    if token.is_empty() {
        return Ok(None);
    }
    match parse::<C>(token) {
        Some(envelope) if envelope.q == fingerprint(question) => Ok(Some(envelope.c)),
        Some(_) => Err(Problem::new(
            "belongs to a list with other filters or another order: repeat those, or begin without a page_token",
        )),
        None => Err(not_a_token()),
    }
}

/// Checks only that a string has the form of a page token, for callers that do not know the query
/// to which the token must belong.
///
/// # Errors
/// Returns a [`Problem`] if the string is not a page token.
pub fn check_form(token: &str) -> Result<(), Problem> {
    let is_one = token.is_empty() || parse::<Value>(token).is_some();
    is_one.then_some(()).ok_or_else(not_a_token)
}

/// Returns the problem of a string that is not a page token.
#[must_use]
pub fn not_a_token() -> Problem {
    Problem::new(
        "is not a page token: send next_page_token from the previous response, or leave it empty for the first page",
    )
}

fn parse<C: DeserializeOwned>(token: &str) -> Option<Envelope<C>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    // PostgreSQL would reject a statement with this token, because its strings cannot contain NUL.
    if holds_nul(&value) {
        return None;
    }
    serde_json::from_value(value).ok()
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(members) => members.values().any(holds_nul),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn fingerprint(question: &impl Serialize) -> String {
    let text = serde_json::to_vec(question).unwrap_or_default();
    BASE64_URL_SAFE_NO_PAD.encode(&digest(&SHA256, &text).as_ref()[..9])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_the_limit_is_the_limit_and_a_negative_one_is_refused() {
        for (size, expected) in [(0, 50), (1, 1), (100, 100), (101, 100), (i32::MAX, 100)] {
            assert_eq!(parse_size(size), Ok(expected), "{size}");
        }
        for size in [-1, i32::MIN] {
            let problem = parse_size(size).unwrap_err().to_string();
            assert!(problem.contains(&size.to_string()), "{problem}");
        }
    }

    #[test]
    fn a_page_has_a_next_one_only_if_a_row_is_left_over() {
        let cut_to = |size| {
            let mut rows = vec![1, 2, 3];
            let next = cut(&mut rows, size, |row| row * 10);
            (rows, next)
        };
        assert_eq!(cut_to(2), (vec![1, 2], Some(20)));
        assert_eq!(cut_to(3), (vec![1, 2, 3], None));
        assert_eq!(cut_to(4), (vec![1, 2, 3], None));
    }

    #[test]
    fn a_token_opens_for_its_own_question_only() {
        let token = seal(&("blt", 1), (5_i64, "x".to_owned()));
        assert_eq!(
            open::<(i64, String)>(&("blt", 1), &token),
            Ok(Some((5, "x".to_owned())))
        );
        assert!(open::<(i64, String)>(&("blt", 2), &token).is_err());
        assert!(open::<(i64, String)>(&("blt", 1), "junk").is_err());
        assert!(open::<(i64, String)>(&("blt", 1), &token[1..]).is_err());
    }

    #[test]
    fn a_token_with_a_nul_byte_is_none_and_one_that_only_spells_it_is() {
        let open = |text: &str| {
            let token = seal(&"q", (1_i64, text.to_owned()));
            open::<(i64, String)>(&"q", &token).ok().flatten()
        };
        assert_eq!(open("a\0b"), None);
        for text in ["a\\u0000b", "\u{1}", "\u{10ffff}"] {
            assert_eq!(open(text), Some((1, text.to_owned())));
        }
    }
}
