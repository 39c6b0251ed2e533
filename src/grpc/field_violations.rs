//! Limits the field violations that are reported for a request to 8,000 bytes of headers. A request
//! can have thousands of violations. HTTP/2 clients accept 8 to 16 KiB of headers by default,
//! proxies often less. If the trailers are too large, the client gets an error without a reason.

use tonic_types::ErrorDetails;

use crate::domain::field::Violations;

/// Maximum size of the violations in the error details, in bytes. The details are encoded in
/// base64, which makes them one third longer. About 800 bytes of other details and headers are
/// added.
const IN_DETAILS: usize = 3_300;
/// Maximum size of the violations in the error message, in bytes. The message is sent twice:
/// percent-encoded, and in the details.
const IN_SUMMARY: usize = 850;
/// Maximum overhead of one violation in the details, in bytes: tag and length of the violation and
/// of its two strings. In the message, the separators are shorter.
const FRAMING: usize = 10;
/// Maximum length of a field path and of a problem in the error details, in bytes.
const LONGEST_IN_DETAILS: usize = 400;
/// Maximum length of a field path and of a problem in the error message, in bytes. Percent-encoding
/// can triple this length.
const LONGEST_SUMMARY: usize = 400;

/// Builds the error message that lists the violations.
pub(super) fn summary(violations: &Violations) -> String {
    let mut message = String::from("the request has invalid fields: ");
    let (shown, omitted) = fitting(violations, (IN_SUMMARY, LONGEST_SUMMARY), percent_encoded);
    let each: Vec<String> = shown
        .iter()
        .map(|(field, problem)| format!("{field} {problem}"))
        .collect();
    message.push_str(&each.join("; "));
    if omitted > 0 {
        return format!("{message}; and {omitted} more");
    }
    message
}

/// Adds the violations to the error details.
pub(super) fn add_to(details: &mut ErrorDetails, violations: &Violations) {
    let (shown, omitted) = fitting(violations, (IN_DETAILS, LONGEST_IN_DETAILS), str::len);
    let last = shown.len().saturating_sub(1);
    for (index, (field, mut problem)) in shown.into_iter().enumerate() {
        if omitted > 0 && index == last {
            problem = format!("{problem}; and {omitted} more faults: correct these first");
        }
        details.add_bad_request_violation(field, problem);
    }
}

/// Returns the first violations that fit into `room` bytes, but at least one, and the number of
/// omitted violations. Truncates each field path and each problem to `longest` bytes.
fn fitting(
    violations: &Violations,
    (room, longest): (usize, usize),
    size: impl Fn(&str) -> usize,
) -> (Vec<(String, String)>, usize) {
    let violations = violations.as_slice();
    let (mut shown, mut used) = (Vec::new(), 0);
    for violation in violations {
        let problem = violation.problem.to_string();
        let (field, problem) = (cut(&violation.field, longest), cut(&problem, longest));
        used += size(&field) + size(&problem) + FRAMING;
        if used > room && !shown.is_empty() {
            break;
        }
        shown.push((field, problem));
    }
    let omitted = violations.len() - shown.len();
    (shown, omitted)
}

/// Truncates a string to `longest` bytes. This is necessary because a field path can contain text
/// from the request.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(longest)])
}

/// Returns the size of a string in the header `grpc-message`. tonic percent-encodes bytes that are
/// not printable ASCII, and some that are, as three bytes each.
fn percent_encoded(text: &str) -> usize {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"#%<>`?{}".contains(byte);
    let is_plain = text.bytes().filter(plain).count();
    is_plain + 3 * (text.len() - is_plain)
}
