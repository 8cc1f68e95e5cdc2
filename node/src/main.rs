//! The `fulmar` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    fulmar::cli::main()
}
