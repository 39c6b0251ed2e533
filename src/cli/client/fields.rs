//! Maps the fields of a request to the flags that set them, because the server's errors name
//! fields, but users know only the flags.

use tonic::Status;
use tonic_types::StatusExt as _;

use super::text::printable;
use crate::grpc::pb::v1;

/// A request that a command sends.
pub trait Sent {
    /// The fields that flags set, as paths without indexes, each with its flag. A nested field
    /// without its own row is set by the flag of the nearest field above it.
    const FLAGS: &'static [(&'static str, &'static str)];
}

macro_rules! sent {
    ($($message:ident: [$($row:expr),* $(,)?];)*) => {
        $(impl Sent for v1::$message {
            const FLAGS: &'static [(&'static str, &'static str)] = &[$($row),*];
        })*
    };
}

sent! {
    IssueRequest: [
        ("stack_api_key", "--stack"),
        ("name", "--name"),
        ("description", "--description"),
        ("permissions", "--access"),
        ("permissions.access", "--access"),
        ("permissions.modules", "--module"),
        ("permissions.branches", "--branch or --alias"),
        ("permissions.branches.branches", "--branch"),
        ("permissions.branches.aliases", "--alias"),
        ("expiry", "--expires"),
        ("request_id", "--request-id"),
        ("validate_only", "--validate-only"),
        ("labels", "--label"),
        ("federation", "--issuer"),
        ("federation.rules", "--claim or --claim-prefix"),
        ("federation.session_for", "--session-for"),
    ];
    ExchangeRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("session_for", "--session-for"),
        ("narrow", "--access"),
        ("narrow.access", "--access"),
        ("narrow.modules", "--module"),
        ("narrow.branches", "--branch or --alias"),
        ("narrow.branches.branches", "--branch"),
        ("narrow.branches.aliases", "--alias"),
    ];
    ExplainExchangeRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("subject_token", "--subject-token-file"),
    ];
    EndSessionsRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("subject", "--subject"),
        ("validate_only", "--validate-only"),
    ];
    ListFederationIssuersRequest: [("stack_api_key", "--stack")];
    IntrospectRequest: [
        ("token", "standard input"),
        ("stack_api_key", "--stack"),
        ("actions", "--action"),
        ("actions.branch", "--branch"),
        ("actions.branch_alias", "--alias"),
        ("actions.facts", "--fact"),
        ("include", "--include"),
    ];
    ListRequest: [
        ("stack_api_key", "--stack"),
        ("page_size", "--page-size"),
        ("page_token", "--page-token"),
        ("states", "--state"),
        ("expires_before", "--expires-before"),
        ("name_contains", "--name-contains"),
        ("order", "--order"),
        ("unused_since", "--unused-since"),
        ("issued_by", "--issued-by"),
        ("name", "--name"),
        ("secret_hint", "--secret-hint"),
        ("access", "--access"),
        ("issued_from", "--issued-from"),
        ("issued_before", "--issued-before"),
        ("expires_from", "--expires-from"),
        ("labels", "--label"),
    ];
    GetRequest: [("stack_api_key", "--stack"), ("token_uid", "--token")];
    UpdateRequest: [
        ("stack_api_key", "--stack"),
        ("token", "--token"),
        ("token.name", "--new-name"),
        ("token.description", "--description"),
        ("token.permissions", "--access"),
        ("token.permissions.access", "--access"),
        ("token.permissions.modules", "--module or --all-modules"),
        ("token.permissions.branches", "--branch, --alias or --all-branches"),
        ("token.permissions.branches.branches", "--branch"),
        ("token.permissions.branches.aliases", "--alias"),
        ("token.labels", "--label or --no-labels"),
        ("token.federation", "--issuer"),
        ("token.federation.rules", "--claim or --claim-prefix"),
        ("token.federation.session_for", "--session-for"),
        ("validate_only", "--validate-only"),
        ("etag", "--etag"),
    ];
    SetExpiryRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("expiry", "--expires"),
        ("validate_only", "--validate-only"),
        ("etag", "--etag"),
    ];
    RotateRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("overlap", "--overlap or --until-first-use"),
        ("overlap.overlap_for", "--overlap"),
        ("overlap.until_first_use", "--until-first-use"),
        ("overlap.at_most", "--at-most"),
        ("request_id", "--request-id"),
        ("validate_only", "--validate-only"),
        ("etag", "--etag"),
    ];
    EndOverlapRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("validate_only", "--validate-only"),
        ("etag", "--etag"),
    ];
    RevokeRequest: [
        ("stack_api_key", "--stack"),
        ("token_uid", "--token"),
        ("reason", "--reason"),
        ("validate_only", "--validate-only"),
        ("etag", "--etag"),
    ];
    ListStacksRequest: [("page_size", "--page-size"), ("page_token", "--page-token")];
}

/// Returns the message of a failed call. Replaces the names of the wrong fields by the flags that
/// set them.
pub fn message_of<T: Sent>(status: &Status) -> String {
    let Some(bad) = status.get_details_bad_request() else {
        return words::<T>(status.message());
    };
    let mut faults: Vec<String> = Vec::new();
    for violation in &bad.field_violations {
        let flag = flag_of::<T>(&violation.field);
        let fault = format!("{flag} {}", words::<T>(&violation.description));
        // The value of a flag such as `--branch` is sent with every action, so the server may
        // report the same fault several times.
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() {
        return words::<T>(status.message());
    }
    printable(&faults.join("; "))
}

/// Returns the flag that sets a field. If the flag can be repeated, adds the key or the number of
/// the element. Returns a field that this version does not know unchanged.
fn flag_of<T: Sent>(path: &str) -> String {
    let mut plain = String::new();
    // The last index in the path, and the length of the plain path before that index.
    let mut element = None;
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((index, after)) = split_index(after) else {
            return path.to_owned();
        };
        plain.push_str(before);
        element = Some((plain.len(), index));
        rest = after;
    }
    plain.push_str(rest);
    let above = |field: &str| {
        let below = plain.strip_prefix(field);
        below.is_some_and(|below| below.is_empty() || below.starts_with('.'))
    };
    let rows = T::FLAGS.iter().filter(|(field, _)| above(field));
    let Some((field, flag)) = rows.max_by_key(|(field, _)| field.len()) else {
        return path.to_owned();
    };
    match element {
        // The flag sets this whole element, not a field that is the same in all elements.
        Some((length, index)) if field.len() <= length && !index.is_empty() => {
            format!("{flag} {index}")
        }
        _ => (*flag).to_owned(),
    }
}

/// Splits `"team"].more` or `0].more` into the name of the element and the rest.
fn split_index(text: &str) -> Option<(String, &str)> {
    if let Some(key) = text.strip_prefix('"') {
        let (key, rest) = key.rsplit_once("\"]")?;
        return Some((key.to_owned(), rest));
    }
    let (index, rest) = text.split_once(']')?;
    let index: usize = index.parse().ok()?;
    Some((format!("(number {})", index + 1), rest))
}

/// Phrases in the server's messages that refer to a request or a response, and their replacements
/// for the command line.
const PHRASES: [(&str, &str); 2] = [
    (
        "name permissions.modules in update_mask",
        "give --module or --all-modules",
    ),
    (
        "send next_page_token from the previous response, or leave it empty",
        "use the one that the previous page reported, or leave it out",
    ),
];

/// Replaces the names of fields in a text by their flags. Does not replace field names that are
/// plain English words, or `token_uid`, which is the name of a detail of the error.
fn words<T: Sent>(text: &str) -> String {
    let mut text = text.to_owned();
    for (phrase, flags) in PHRASES {
        text = text.replace(phrase, flags);
    }
    let is_part = |letter: char| letter.is_alphanumeric() || "_.".contains(letter);
    let mut replaced = String::new();
    for word in text.split_inclusive(|letter| !is_part(letter)) {
        let name = word.trim_end_matches(|letter| !is_part(letter));
        // A full stop at the end of a sentence is not part of the name.
        let name = name.trim_end_matches('.');
        replaced.push_str(flag_named::<T>(name));
        replaced.push_str(&word[name.len()..]);
    }
    replaced
}

fn flag_named<T: Sent>(name: &str) -> &str {
    let is_field = name.contains(['_', '.']) && name != "token_uid";
    let is_it = |field: &str| field == name || field.strip_prefix("token.") == Some(name);
    let mut rows = T::FLAGS.iter().filter(|_| is_field);
    let row = rows.find(|(field, _)| is_it(field));
    row.map_or(name, |(_, flag)| flag)
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
