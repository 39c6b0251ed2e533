//! Stable pagination. Each page starts after the last row of the page before.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::field::Problem;

const DEFAULT_SIZE: i32 = 50;
const MAX_SIZE: i32 = 100;

/// Parses a page size from 1 to 100. 0 stands for the default of 50.
///
/// # Errors
/// Returns a [`Problem`] for any other number.
pub fn parse_size(size: i32) -> Result<u64, Problem> {
    match size {
        0 => Ok(u64::from(DEFAULT_SIZE.unsigned_abs())),
        1..=MAX_SIZE => Ok(u64::from(size.unsigned_abs())),
        _ => Err(Problem::new(format!(
            "is {size}: use 1 to {MAX_SIZE}, or 0 for {DEFAULT_SIZE}"
        ))),
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<C> {
    /// The fingerprint of the query to which the page belongs.
    q: String,
    /// The cursor after which the next page starts.
    c: C,
}

/// Encodes a page token, which consists of the query's fingerprint and the start of the next page.
/// The token grants no access. With a forged token a caller can only start at another row that the
/// caller may read anyway.
pub fn seal<C: Serialize>(question: &impl Serialize, cursor: C) -> String {
    let envelope = Envelope {
        q: fingerprint(question),
        c: cursor,
    };
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&envelope).unwrap_or_default())
}

/// Decodes a page token and returns its cursor. Returns `None` for an empty token, which stands for
/// the first page.
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
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let envelope: Option<Envelope<C>> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match envelope {
        Some(envelope) if envelope.q == fingerprint(question) => Ok(Some(envelope.c)),
        Some(_) => Err(Problem::new(
            "belongs to a list with other filters or another order: repeat those, or begin without a page_token",
        )),
        None => Err(Problem::new(
            "is not a page token: send next_page_token as it was answered, or nothing for the first page",
        )),
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
}
