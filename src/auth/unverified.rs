//! Formats unverified claims of a refused credential for the log, so that an operator can find out
//! which entry of the issuers file does not match and why. They must not be used for anything else.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::domain::{text, unique_json};

/// Longest `authorization` value that is read, in bytes.
const MAX_VALUE_BYTES: usize = 8 * 1024;
/// Maximum length to which a value is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;
/// Maximum number of audiences that are shown.
const MAX_AUDIENCES: usize = 4;
/// Replaces a value that must not be in the log.
const HIDDEN: &str = "(not shown)";

/// The values of the `authorization` header of a refused call. If the value is a JWT, `Display`
/// shows its `alg`, `kid`, `iss` and `aud`, but never another claim or the JWT itself. The value is
/// parsed only when it is formatted, so a suppressed log line costs nothing.
pub struct Unverified<'a>(pub &'a [&'a [u8]]);

impl fmt::Display for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value] = self.0 else {
            return write!(f, "{} values", self.0.len());
        };
        let Some((header, claims)) = parse(value) else {
            return f.write_str("no JWT");
        };
        write!(f, "alg={}", shown(header.get("alg")))?;
        write!(f, " kid={}", shown(header.get("kid")))?;
        write!(f, " iss={}", shown(claims.get("iss")))?;
        match claims.get("aud") {
            Some(Value::Array(many)) => {
                let shown = many.iter().take(MAX_AUDIENCES).map(|one| shown(Some(one)));
                let shown: Vec<_> = shown.collect();
                let more = if many.len() > MAX_AUDIENCES {
                    ", ..."
                } else {
                    ""
                };
                write!(f, " aud=[{}{more}]", shown.join(", "))
            }
            one => write!(f, " aud={}", shown(one)),
        }
    }
}

fn parse(value: &[u8]) -> Option<(Map<String, Value>, Map<String, Value>)> {
    let value = value.get(..MAX_VALUE_BYTES).unwrap_or(value);
    let value = str::from_utf8(value).ok()?;
    let (_, jwt) = value.split_once(' ')?;
    let mut segments = jwt.split('.');
    let mut object = || {
        let json = URL_SAFE_NO_PAD.decode(segments.next()?).ok()?;
        unique_json::object(&json)
    };
    Some((object()?, object()?))
}

/// Returns a value in quotes. Escapes characters that could forge a log line, and hides a value
/// that looks like a credential (R9).
fn shown(value: Option<&Value>) -> String {
    match value {
        None => "(absent)".to_owned(),
        Some(Value::String(value)) if text::holds_credential(value) => HIDDEN.to_owned(),
        Some(Value::String(value)) => {
            let start: String = value.chars().take(MAX_SHOWN_CHARS).collect();
            let more = if start.len() < value.len() { "..." } else { "" };
            format!("{start:?}{more}")
        }
        Some(_) => "(no text)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(header: &Value, claims: &Value) -> String {
        let segment = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let value = format!("Bearer {}.{}.c2ln", segment(header), segment(claims));
        Unverified(&[value.as_bytes()]).to_string()
    }

    #[test]
    fn only_what_finds_the_entry_is_shown() {
        let claims = json!({
            "iss": "https://login.example.com/", "aud": ["a", "stacktoken"],
            "sub": "alice", "email": "alice@example.com", "groups": ["staff"],
        });
        let text = of(&json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}), &claims);
        assert_eq!(
            text,
            r#"alg="RS256" kid="k1" iss="https://login.example.com/" aud=["a", "stacktoken"]"#
        );
    }

    #[test]
    fn forged_lines_and_credentials_are_escaped() {
        let secret = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
        let claims = json!({"iss": "a\nlevel=ERROR \u{202e}", "aud": [1, 2, 3, 4, 5]});
        let text = of(&json!({"alg": secret, "kid": "k".repeat(300)}), &claims);
        assert!(!text.contains("stk1_") && !text.contains('\n'), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
        assert!(text.contains(HIDDEN) && text.contains(r"\n"), "{text}");
        assert!(!text.contains(&"k".repeat(201)), "{text}");
        assert!(text.ends_with("(no text), ...]"), "{text}");
    }

    #[test]
    fn a_text_that_is_no_jwt_is_not_echoed() {
        for value in [
            "",
            "Bearer",
            "Bearer hunter2",
            "Basic aHVudGVyMg==",
            "Bearer a.b.c",
        ] {
            assert_eq!(Unverified(&[value.as_bytes()]).to_string(), "no JWT");
        }
        assert_eq!(Unverified(&[b"\xff"]).to_string(), "no JWT");
        assert_eq!(Unverified(&[b"x", b"y"]).to_string(), "2 values");
    }
}
