//! Etags identify the version of a token that a caller has read. A change can be made conditional
//! on an etag, so that no caller overwrites a change that it has not seen.

use std::fmt::{self, Write as _};

use super::{field::Problem, id::TokenUid, request::Fingerprint, stack::StackKey};

/// The maximum length of an etag that a caller may send, in characters.
const MAX_CHARS: usize = 128;
/// The number of bytes of the digest in an etag.
const LENGTH: usize = 16;

/// The version of a token. It is opaque to callers, and different for every token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

/// The token to change, and the version of the token that the caller expects.
#[derive(Clone, Debug)]
pub struct Target {
    /// The stack of the token.
    pub stack_key: StackKey,
    /// The id of the token.
    pub uid: TokenUid,
    /// The version that the caller has read. `None` if the change is unconditional.
    pub etag: Option<Etag>,
}

impl Target {
    /// Creates the target of an unconditional change.
    #[must_use]
    pub const fn new(stack_key: StackKey, uid: TokenUid) -> Self {
        Self {
            stack_key,
            uid,
            etag: None,
        }
    }
}

impl Etag {
    /// Parses an etag that a caller sends. Returns `None` for an empty string. Any other string
    /// that is not too long is accepted, because it is only ever compared.
    ///
    /// # Errors
    /// Returns a [`Problem`] for a string that is too long to be an etag.
    pub fn parse(text: &str) -> Result<Option<Self>, Problem> {
        if text.chars().count() > MAX_CHARS {
            let problem =
                "is longer than any etag: send the `etag` of the Token from an earlier response";
            return Err(Problem::new(problem));
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// Hashes a list of parts. Each part is preceded by its length, so that different lists never
    /// yield the same bytes.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        let digest = Fingerprint::of(&bytes);
        let mut text = String::with_capacity(2 * LENGTH);
        for byte in &digest.as_bytes()[..LENGTH] {
            // Writing to a `String` never fails.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Etag::of(&["ab", "c"]), Etag::of(&["a", "bc"]));
        assert_ne!(Etag::of(&["a", ""]), Etag::of(&["", "a"]));
        assert_ne!(Etag::of(&["a"]), Etag::of(&["a", ""]));
        assert_eq!(Etag::of(&["a", "b"]), Etag::of(&["a", "b"]));
    }

    #[test]
    fn any_text_but_a_longer_one_can_be_compared() {
        assert_eq!(Etag::parse(""), Ok(None));
        for text in ["x", "W/\"1\"", " ", &"é".repeat(128)] {
            assert_eq!(Etag::parse(text), Ok(Some(Etag(text.to_owned()))));
        }
        assert!(Etag::parse(&"é".repeat(129)).is_err());
        let own = Etag::of(&[]);
        assert_eq!(Etag::parse(&own.to_string()), Ok(Some(own)));
    }
}
