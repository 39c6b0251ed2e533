//! Entry point of the `stacktoken` binary: parses the arguments, runs the command and sets the exit
//! code.

use std::process::ExitCode;

use stacktoken::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            cli::report(&error);
            cli::code_of(&error)
        }
    }
}
