//! Text written by people. It is validated once, and each kind of text has its own type.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use crate::{field::Problem, secret};

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident, $min:literal..=$max:literal, $kind:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Parses a string. Checks its length and its characters, and that it contains no
            /// credential.
            ///
            /// # Errors
            /// Returns a problem that says what to change and never quotes a secret.
            pub fn parse(text: &str) -> Result<Self, Problem> {
                let text = Kind::$kind.spelled(text);
                check(&text, $min, $max, Kind::$kind)?;
                Ok(Self(text.into_owned()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )+};
}

/// The kind of a text, which determines the allowed characters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A single line, without whitespace at either end.
    Name,
    /// Like `Name`, but another system issues the text. The spelling is not normalized, because two
    /// spellings identify two people.
    Identity,
    /// A part of a name, on a single line. It may begin or end with whitespace.
    Part,
    /// Several lines, which may contain tabs.
    Prose,
}

impl Kind {
    /// Normalizes a string to NFC, so that names that look the same are equal. Returns an identity
    /// unchanged.
    fn spelled(self, text: &str) -> Cow<'_, str> {
        if self == Self::Identity || text.is_ascii() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(text.nfc().collect())
        }
    }
}

texts! {
    /// A token's name, with 1 to 50 characters.
    TokenName, 1..=50, Name;
    /// A description of what a token is for, with up to 500 characters.
    Description, 0..=500, Prose;
    /// The reason for an action, with up to 500 characters.
    Reason, 0..=500, Prose;
    /// A stack's name, with 1 to 100 characters.
    StackName, 1..=100, Name;
    /// A part of a token's name to search for, with up to 50 characters.
    NamePart, 0..=50, Part;
    /// The value of a label, with up to 63 characters.
    LabelValue, 0..=63, Name;
    /// The `iss` of a credential, with 1 to 512 characters and up to 1,024 bytes.
    Issuer, 1..=512, Identity;
    /// The `sub` of a credential, with 1 to 255 characters.
    Subject, 1..=255, Identity;
    /// The `sub` of a workload's JWT, with 1 to 1,024 characters and up to 1,024 bytes. Platforms put
    /// several claims into it, so it can be longer than that of a person.
    WorkloadSubject, 1..=1024, Identity;
    /// An email address for notifications, with up to 254 characters.
    Email, 0..=254, Identity;
}

/// The maximum length of an identity in bytes. An issuer and a subject together form the key of a
/// row, and PostgreSQL limits an index entry to 2,704 bytes.
const MAX_IDENTITY_BYTES: usize = 1024;

fn check(text: &str, min: usize, max: usize, kind: Kind) -> Result<(), Problem> {
    let length = text.chars().count();
    if length < min {
        return Err(Problem::new(format!(
            "is required: {min} to {max} characters"
        )));
    }
    if length > max {
        return Err(Problem::new(format!(
            "has {length} characters: shorten it to {max}"
        )));
    }
    if kind == Kind::Identity && text.len() > MAX_IDENTITY_BYTES {
        return Err(Problem::new(format!(
            "has {} bytes: shorten it to {MAX_IDENTITY_BYTES}",
            text.len()
        )));
    }
    if let Some(bad) = text
        .chars()
        .find(|c| is_unprintable(*c) && !(kind == Kind::Prose && matches!(c, '\n' | '\t')))
    {
        return Err(Problem::new(format!(
            "contains the character U+{:04X}, which does not print: remove it",
            u32::from(bad)
        )));
    }
    if kind != Kind::Part && holds_lone_mark(text) {
        return Err(Problem::new(
            "contains a combining mark with no letter before it: remove it",
        ));
    }
    if matches!(kind, Kind::Name | Kind::Identity) && text.trim() != text {
        return Err(Problem::new("begins or ends with a space: remove it"));
    }
    if holds_jwt(text) {
        return Err(Problem::new(
            "contains a JWT, which is a credential: remove it",
        ));
    }
    if secret::is_within(text) {
        return Err(Problem::new(
            "contains the secret of a management token: remove it, and revoke that token if it was exposed",
        ));
    }
    Ok(())
}

/// Returns whether a string contains a token's secret or a signed JWT.
#[must_use]
pub fn holds_credential(text: &str) -> bool {
    holds_jwt(text) || secret::is_within(text)
}

/// Returns whether a string contains something that looks like a signed JWT. A JWT in a field of a
/// token would be stored, and shown to everyone who can read the token.
#[must_use]
pub fn holds_jwt(text: &str) -> bool {
    let starts = text.match_indices("eyJ");
    starts.into_iter().any(|(at, _)| {
        let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let end = text[at..].find(|c| !part(c)).unwrap_or(text.len() - at);
        let word = &text[at..at + end];
        word.len() >= 40 && word.matches('.').count() >= 2 && word.contains(".eyJ")
    })
}

/// Returns whether a character is rejected as unprintable. Control characters, and characters that
/// change the direction of text, could forge lines in a log or on a console. Invisible characters
/// could make two different names look the same. These are the characters that a renderer may omit
/// (`Default_Ignorable_Code_Point`), two line separators, and two characters that look blank
/// although Unicode classes them as letters or symbols.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}'
            | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns whether a string contains a combining mark without a character to combine with. Such a
/// mark would be displayed on the character before the text.
fn holds_lone_mark(text: &str) -> bool {
    let mut before = ' ';
    text.chars().any(|c| {
        let lone = is_combining_mark(c) && before.is_whitespace();
        before = c;
        lone
    })
}

/// Parses the name of a branch, an alias or an organization. Such a name has 1 to 64 characters of
/// `[A-Za-z0-9._-]`.
///
/// # Errors
/// Returns a problem for any other text.
pub fn parse_slug(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new(
            "is required: 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        ));
    }
    let fits = text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits && !secret::is_within(text) {
        return Ok(text.to_owned());
    }
    Err(Problem::new(
        "must be 1 to 64 of the characters A-Z a-z 0-9 . _ -",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_limits() {
        assert!(TokenName::parse("é".repeat(50).as_str()).is_ok());
        for bad in [
            "",
            " a",
            "a ",
            "a\nb",
            "a\u{202e}b",
            "a\u{0}b",
            "x".repeat(51).as_str(),
        ] {
            assert!(TokenName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_look_the_same_are_the_same_or_refused() {
        let composed = TokenName::parse("\u{e9}");
        assert_eq!(composed, TokenName::parse("e\u{301}"));
        assert!(composed.is_ok());
        for unseen in [
            "dep\u{200b}loy",
            "deploy\u{ad}",
            "deploy\u{fe0f}",
            "de\u{2060}ploy",
            "\u{3164}",
            "\u{2800}",
            "deploy\u{e0041}",
            "\u{115f}a",
            "\u{301}deploy",
            "a \u{301}b",
        ] {
            assert!(TokenName::parse(unseen).is_err(), "{unseen:?}");
            assert!(Subject::parse(unseen).is_err(), "{unseen:?}");
            assert!(Reason::parse(unseen).is_err(), "{unseen:?}");
        }
        for seen in [
            "日本語",
            "café 2",
            "Ünïcödé",
            "deploy \u{1f680}",
            "हिन्दी",
            "ไทย",
        ] {
            assert!(TokenName::parse(seen).is_ok(), "{seen:?}");
        }
    }

    #[test]
    fn an_identity_has_a_limit_in_bytes_too() {
        assert!(Issuer::parse(&"x".repeat(512)).is_ok());
        assert!(Issuer::parse(&"\u{20000}".repeat(256)).is_ok());
        let problem = Issuer::parse(&"\u{20000}".repeat(257)).unwrap_err();
        assert_eq!(problem.to_string(), "has 1028 bytes: shorten it to 1024");
        assert!(Subject::parse(&"\u{20000}".repeat(255)).is_ok());
        assert!(WorkloadSubject::parse(&"x".repeat(1024)).is_ok());
        assert!(WorkloadSubject::parse(&"x".repeat(1025)).is_err());
        assert!(WorkloadSubject::parse(&"\u{20000}".repeat(257)).is_err());
    }

    #[test]
    fn people_are_distinguished_by_exact_spelling() {
        assert_ne!(Subject::parse("\u{e9}"), Subject::parse("e\u{301}"));
    }

    #[test]
    fn a_jwt_is_refused_and_not_echoed() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJlLW9mLWZvcnR5LWJ5dGVz";
        let problem = Reason::parse(&format!("used {jwt}, sorry")).unwrap_err();
        assert!(!problem.to_string().contains("eyJ"), "{problem}");
        assert!(Reason::parse("the eyJ prefix of a.b.c").is_ok());
    }

    #[test]
    fn a_secret_is_refused_and_not_echoed() {
        let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
        let problem = Reason::parse(&format!("leaked: {secret}!"))
            .unwrap_err()
            .to_string();
        assert!(!problem.contains("stk1_"), "{problem}");
    }
}
