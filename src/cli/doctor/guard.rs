//! The settings of the restore guard.

use super::{codes::Code, finding::Findings};
use crate::{
    cli::{exit::ExitError, output, settings},
    config::GuardFlags,
};

/// Checks the settings. Those that `serve` refuses as wrong are refused here too.
pub fn check(flags: &GuardFlags, findings: &mut Findings) -> anyhow::Result<()> {
    match settings::guard(flags) {
        Ok(_) => Ok(()),
        Err(error) if error.downcast_ref::<ExitError>().is_some() => Err(error),
        Err(error) => {
            let fix = "Correct the path, or let the user of `serve` read the file; to make a key: \
                       `head -c 32 /dev/urandom > FILE && chmod 600 FILE`";
            findings.add(Code::GuardKey, output::error_text(&error), fix);
            Ok(())
        }
    }
}
