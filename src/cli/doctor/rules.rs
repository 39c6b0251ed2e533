//! The operator's own rules: the catalogue and the route table.

use super::{codes::Code, finding::Findings};
use crate::{
    cli::{output, settings},
    config::Rules,
};

pub fn check(rules: &Rules, findings: &mut Findings) {
    if let Err(error) = settings::rules(rules) {
        let fix = "Correct the file. `stacktoken catalogue` and `stacktoken routes` print files that \
                   are accepted";
        findings.add(Code::RulesInvalid, output::error_text(&error), fix);
    }
}
