//! One thing that is wrong, and the list of them. No finding repeats a secret: whatever may quote a
//! setting or a file passes through `credentials`.

use std::fmt::Display;

use serde::Serialize;

use super::codes::{Code, Severity};
use crate::cli::credentials;

/// One thing that is wrong.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// The stable name, such as `schema.pending`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What to do, with a command or a setting that can be pasted.
    pub fix: String,
}

/// All findings, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding. `problem` may quote a setting or a file; credentials in it are left out.
    pub fn add(&mut self, code: Code, problem: impl Display, fix: impl Into<String>) {
        let problem = credentials::redact_urls(&credentials::redact(&problem.to_string()));
        self.0.push(Finding {
            code: code.name(),
            severity: code.severity(),
            problem,
            fix: fix.into(),
        });
    }

    /// Returns the findings, the worst first.
    pub fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.severity);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_repeats_no_credential_and_no_url_with_a_password() {
        let mut findings = Findings::default();
        for text in [
            "postgres://app:hunter2@db/tokens refuses",
            "--issuers x: line 1 is not TOML: stk1_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzhunter2zzzzzz3batYO",
        ] {
            findings.add(Code::DatabaseUrl, text, "");
        }
        for finding in findings.into_sorted() {
            assert!(!finding.problem.contains("hunter2"), "{}", finding.problem);
        }
    }
}
