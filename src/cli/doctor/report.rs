//! Prints the findings, as text for people or as JSON for scripts.

use std::fmt::Write as _;

use serde::Serialize;

use super::{codes::Severity, finding::Finding};
use crate::cli::output;

/// The form of the findings on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Text for people; its layout is not stable, so scripts should use `json`
    Text,
    /// One JSON object: `findings`, and the number of `errors`, `warnings` and `notes`
    Json,
}

#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    errors: usize,
    warnings: usize,
    notes: usize,
}

impl<'a> Report<'a> {
    fn of(findings: &'a [Finding]) -> Self {
        let count = |severity| {
            let same = findings
                .iter()
                .filter(|finding| finding.severity == severity);
            same.count()
        };
        Self {
            findings,
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
        }
    }
}

/// Prints the findings. Returns whether one of them is an error.
///
/// # Errors
/// Returns an error if standard output cannot be written.
pub fn print(findings: &[Finding], form: Form) -> anyhow::Result<bool> {
    let report = Report::of(findings);
    match form {
        Form::Text => output::line(&text(&report))?,
        Form::Json => output::line(&serde_json::to_string_pretty(&report)?)?,
    }
    Ok(report.errors > 0)
}

fn text(report: &Report<'_>) -> String {
    let mut text = String::new();
    for finding in report.findings {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{} {}\n  {}\n  fix: {}\n",
            finding.severity.name(),
            finding.code,
            indented(&finding.problem),
            indented(&finding.fix)
        );
    }
    let counted = |count: usize, word: &str| {
        let ending = if count == 1 { "" } else { "s" };
        format!("{count} {word}{ending}")
    };
    let _ = write!(
        text,
        "{}, {}, {}",
        counted(report.errors, "error"),
        counted(report.warnings, "warning"),
        counted(report.notes, "note")
    );
    text
}

/// Indents the further lines of a text, and replaces control characters, which a name in a database
/// or a certificate can contain.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let printed = |letter: char| if letter.is_control() { ' ' } else { letter };
        line.chars().map(printed).collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n       ")
}
