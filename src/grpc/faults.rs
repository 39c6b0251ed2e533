//! Telling the faults of a request: all of them, as far as a client's limit on headers takes
//! them. A batch can have thousands, and an error that does not arrive helps nobody.

use tonic_types::ErrorDetails;

use crate::domain::field::{Violation, Violations};

/// How many bytes of faults the details hold: they travel in base64, and many clients take
/// 16 KiB of headers.
const IN_DETAILS: usize = 8 * 1024;
/// How many bytes of faults the message holds besides, for people. It travels twice.
const IN_WORDS: usize = 1024;

/// The message of the error.
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

/// Adds each fault with its path.
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

/// The first faults, one at least, that so many bytes hold, and how many there are besides.
fn fitting(faults: &[Violation], room: usize) -> (&[Violation], usize) {
    let ends = faults.iter().scan(0, |end, fault| {
        // The frame of each is six bytes; a few more are for separators.
        *end += fault.field.len() + fault.problem.to_string().len() + 8;
        Some(*end)
    });
    let fit = ends.take_while(|end| *end <= room).count();
    let told = fit.max(1).min(faults.len());
    (&faults[..told], faults.len() - told)
}
