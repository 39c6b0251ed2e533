//! Refuses credentials on the command line, and removes them from output. Every process of the
//! machine can read a command line, and the shell keeps it in its history (R9).

use std::ffi::OsString;

use crate::domain::text;

/// The prefix of every secret. In each version of the format, a version number follows it.
const PREFIX: &str = "stk";
/// The minimum number of letters and digits after the prefix for a string to count as a secret. A
/// complete secret has 46, but a truncated secret must not be printed either.
const MIN_SECRET_CHARS: usize = 16;
/// Maximum number of times that a string is percent-decoded.
const ROUNDS: usize = 4;

const INSTEAD_OF_SECRET: &str = "(a secret, which belongs on standard input)";
const INSTEAD_OF_JWT: &str = "(a JWT, which belongs in a file)";
const INSTEAD_OF_URL: &str = "(a URL that may contain a password)";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential {
    Secret,
    Jwt,
}

/// Returns an error message if one of the arguments contains a credential. The message states the
/// flag or the position of the argument, but does not contain the argument.
pub fn refusal(arguments: &[OsString]) -> Option<String> {
    let texts: Vec<_> = arguments
        .iter()
        .map(|text| text.to_string_lossy())
        .collect();
    let (index, found) = texts.iter().enumerate().find_map(|(index, text)| {
        let is_jwt_flag = *text == "--jwt" || text.starts_with("--jwt=");
        let found = if is_jwt_flag {
            Some(Credential::Jwt)
        } else {
            find(text)
        };
        Some((index, found?))
    })?;
    let before = index.checked_sub(1).and_then(|before| texts.get(before));
    let place = flag_of(&texts[index])
        .or_else(|| before.and_then(|before| flag_of(before)))
        .map_or_else(|| format!("argument {index}"), str::to_owned);
    Some(match found {
        Credential::Secret => format!(
            "{place}: the secret of a token does not belong on a command line, which other \
             processes can read: give it on standard input, as in `stacktoken introspect … < \
             secret`, and rotate or revoke its token"
        ),
        Credential::Jwt => format!(
            "{place}: a JWT does not belong on a command line, which other processes can read: \
             name its file with --jwt-file (or STACKTOKEN_JWT_FILE), or set STACKTOKEN_JWT"
        ),
    })
}

/// Returns the flag at the start of an argument, unless the flag itself contains a credential.
fn flag_of(argument: &str) -> Option<&str> {
    let flag = argument.split('=').next()?;
    (flag.starts_with("--") && flag.len() > 2 && find(flag).is_none()).then_some(flag)
}

/// Replaces the credentials in a line of output. The line may quote a variable or a file that
/// contains a credential by mistake.
pub fn redact(line: &str) -> String {
    replace_words(line, |word| match find(word)? {
        Credential::Secret => Some(INSTEAD_OF_SECRET),
        Credential::Jwt => Some(INSTEAD_OF_JWT),
    })
}

/// Replaces URLs that may contain a password in a line.
pub fn redact_urls(line: &str) -> String {
    replace_words(line, |word| {
        may_hold_password(word).then_some(INSTEAD_OF_URL)
    })
}

fn replace_words(line: &str, instead: impl Fn(&str) -> Option<&'static str>) -> String {
    let words = line.split_inclusive(char::is_whitespace).map(|word| {
        let Some(instead) = instead(word) else {
            return word.to_owned();
        };
        let rest = &word[word.trim_end().len()..];
        format!("{instead}{rest}")
    });
    words.collect()
}

/// Returns whether a string may be a URL or a connection string with a password.
pub fn may_hold_password(text: &str) -> bool {
    let text = decoded(text);
    let has_user = text
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('@'));
    has_user || text.contains("password=")
}

fn find(text: &str) -> Option<Credential> {
    let text = decoded(text);
    if holds_secret(&text) {
        Some(Credential::Secret)
    } else if text::holds_credential(&text) {
        Some(Credential::Jwt)
    } else {
        None
    }
}

fn holds_secret(text: &str) -> bool {
    text.match_indices(PREFIX).any(|(at, _)| {
        let rest = &text[at + PREFIX.len()..];
        let body = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        let body = body.strip_prefix('_').filter(|_| body.len() < rest.len());
        let telling = body.map(|body| body.chars().take_while(char::is_ascii_alphanumeric));
        telling.is_some_and(|telling| telling.count() >= MIN_SECRET_CHARS)
    })
}

/// Decodes `%XX`, even if it was encoded more than once.
fn decoded(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..ROUNDS {
        let next = decoded_once(&text);
        if next == text {
            break;
        }
        text = next;
    }
    text
}

fn decoded_once(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let digits = others
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|_| *first == b'%');
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = if byte.is_some() { &others[2..] } else { others };
        bytes.push(byte.unwrap_or(*first));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3batYO";
    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJvd25lciIsImlzcyI6IngifQ.c2lnbmF0dXJl";

    fn refused(arguments: &[&str]) -> Option<String> {
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        refusal(&arguments)
    }

    /// Returns arguments that contain a credential in various forms.
    fn forms(credential: &str) -> Vec<String> {
        let encode = |text: &str| -> String {
            text.bytes()
                .fold(String::new(), |out, byte| format!("{out}%{byte:02x}"))
        };
        let once = encode(credential);
        vec![
            credential.to_owned(),
            format!("--name={credential}"),
            format!("--{credential}"),
            format!("-{credential}"),
            format!("http://{credential}@host/"),
            format!("before{credential}after"),
            format!("a\n{credential}\nb"),
            credential.replace('_', "%5F").replace('.', "%2e"),
            encode(&once),
            once,
        ]
    }

    #[test]
    fn a_credential_is_found_in_any_argument_and_form_and_not_repeated() {
        for (credential, cure) in [(SECRET, "on standard input"), (JWT, "--jwt-file")] {
            for form in forms(credential) {
                for arguments in [
                    vec!["stacktoken", &form],
                    vec!["stacktoken", "introspect", "--stack", &form],
                    vec!["stacktoken", "serve", "--", &form],
                ] {
                    let error = refused(&arguments).unwrap_or_else(|| panic!("{arguments:?}"));
                    assert!(error.contains(cure), "{error}");
                    assert!(!error.contains("zzzz") && !error.contains("eyJ"), "{error}");
                }
                let line = redact(&format!("--x: cannot read {form}: gone"));
                assert!(!line.contains("zzzz") && !line.contains("eyJ"), "{line}");
                assert!(
                    !line.contains("%7a%7a") && line.ends_with(" gone"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn the_place_of_a_credential_is_named() {
        for (arguments, place) in [
            (vec!["x", "introspect", SECRET], "argument 2: "),
            (vec!["x", "get", "--name", SECRET], "--name: "),
            (vec!["x", "issue", "--jwt", "a.b.c"], "--jwt: "),
        ] {
            let error = refused(&arguments).unwrap();
            assert!(error.starts_with(place), "{error}");
        }
    }

    #[test]
    fn what_is_no_credential_is_accepted() {
        for argument in [
            "stk1_",
            "stk1_demo",
            "stick",
            "--jwt-file",
            "%",
            "%zz",
            "a%20b",
            "eyJ",
        ] {
            assert_eq!(refused(&["x", argument]), None, "{argument}");
            assert_eq!(redact(argument), argument);
        }
    }

    #[test]
    fn a_url_with_a_password_is_not_repeated() {
        let line = redact_urls("cannot use 'postgres://user:hunter2@host/db' here");
        assert_eq!(line, format!("cannot use {INSTEAD_OF_URL} here"));
        assert!(may_hold_password("host=x password=y"));
        assert!(!may_hold_password("http://127.0.0.1:50051"));
    }
}
