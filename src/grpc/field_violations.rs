//! Reports as many field violations of a request as fit into the header limit of common clients. A
//! batch can have thousands of violations, and a client rejects an error that is too large.

use tonic_types::ErrorDetails;

use crate::domain::field::{Violation, Violations};

/// Maximum size of the violations in the error details, in bytes. The details are sent in base64,
/// and many clients accept at most 16 KiB of headers.
const IN_DETAILS: usize = 8 * 1024;
/// Maximum size of the violations in the error message, in bytes. The message is sent twice.
const IN_WORDS: usize = 1024;

/// Builds the error message that lists the violations.
pub(super) fn in_words(violations: &Violations) -> String {
    let mut message = String::from("the request has fields to mend: ");
    let (told, untold) = fitting(violations.as_slice(), IN_WORDS);
    let each: Vec<String> = told
        .iter()
        .map(|fault| format!("{} {}", fault.field, fault.problem))
        .collect();
    message.push_str(&each.join("; "));
    if untold > 0 {
        return format!("{message}; and {untold} more");
    }
    message
}

/// Adds the violations to the error details.
pub(super) fn add_to(details: &mut ErrorDetails, violations: &Violations) {
    let (told, untold) = fitting(violations.as_slice(), IN_DETAILS);
    for (at, fault) in told.iter().enumerate() {
        let mut problem = fault.problem.to_string();
        if untold > 0 && at + 1 == told.len() {
            problem = format!("{problem}; and {untold} more faults: mend these first");
        }
        details.add_bad_request_violation(&fault.field, problem);
    }
}

/// Returns the first violations that fit in `room` bytes (at least one violation), and the number
/// of violations that are left out.
fn fitting(faults: &[Violation], room: usize) -> (&[Violation], usize) {
    let ends = faults.iter().scan(0, |end, fault| {
        // Each violation has six bytes of framing. Eight bytes leave space for separators too.
        *end += fault.field.len() + fault.problem.to_string().len() + 8;
        Some(*end)
    });
    let fit = ends.take_while(|end| *end <= room).count();
    let told = fit.max(1).min(faults.len());
    (&faults[..told], faults.len() - told)
}
